"""The training step against the plain one of benchmarks/step.py: less work, the same losses and the same gradients."""

import pytest
import torch

from benchmarks import step
from vikdf.model.vikdf import LOSSES, VIKDFForPretraining

CAPTIONS = ["a red kettle", "the blue vase on the beach and a tree", "hello", "what colour is the green vase?"]
NEAR = 2e-6  # of the largest entry
PROMPTS = {
    "iaci_prompts": ("hello there", "what is in the image ?"),
    "iakr_prompts": ("an image of", "an image on the"),
}


def exact(model):
    """In double precision, and with weights that make texts and pictures differ: what is compared is then no rounding."""
    torch.manual_seed(3)
    with torch.no_grad():
        for value in model.trained_parameters():
            if value.ndim > 1:
                value.normal_(std=0.2)
    return model.double()


@pytest.fixture(scope="module", params=["pooled", "set"])
def model(backbones, request):
    return exact(VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, tim=request.param, **PROMPTS))


@pytest.fixture(scope="module")
def batches(model):
    """Without and with cached features."""
    return dict(zip(("plain", "cached"), step.batches(model, len(CAPTIONS), CAPTIONS), strict=True))


def assert_same(model, ours, plain):
    torch.testing.assert_close(ours.double(), plain.double(), atol=0, rtol=NEAR)
    assert step.apart(step.gradients(model, ours), step.gradients(model, plain)) < NEAR


@pytest.mark.parametrize("features", ["plain", "cached"])
@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_and_its_gradients_are_those_of_the_plain_step(model, batches, loss, features):
    assert_same(model, model.losses(batches[features], (loss,))[loss], step.plain_losses(model, batches["plain"])[loss])


def test_all_losses_at_once_give_the_gradients_of_the_plain_step(model, batches):
    ours, plain = model.losses(batches["cached"]), step.plain_losses(model, batches["plain"])
    assert_same(model, step.total(ours), step.total(plain))


@pytest.mark.parametrize("number", range(4))
def test_each_trick_changes_no_loss_and_no_gradient(model, batches, number):
    parts = list(step.tricks(model).values())[number]
    with step.without(parts):
        plain = step.total(model.losses(batches["plain"]))
    assert_same(model, step.total(model.losses(batches["plain"])), plain)


def test_each_trick_has_its_plain_form_while_it_is_switched_off(model, batches):
    for parts in step.tricks(model).values():
        usual = [getattr(owner, name) for owner, name, _ in parts]
        with step.without(parts):
            assert all(getattr(owner, name) is plain for owner, name, plain in parts)
        assert [getattr(owner, name) for owner, name, _ in parts] == usual


@pytest.mark.parametrize("prompts", [("an image of",), ("an image of", "an image on the"), ("hello", "what is it ?")])
def test_what_all_rows_begin_with_is_read_once_and_changes_nothing(backbones, prompts):
    made = exact(VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, iakr_prompts=prompts))
    batch, _ = step.batches(made, len(CAPTIONS), CAPTIONS)
    assert_same(made, made.losses(batch, ("iakr",))["iakr"], step.plain_losses(made, batch)["iakr"])
