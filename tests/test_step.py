"""The training step against the plain one of benchmarks/plain.py: less work, the same losses and the same gradients."""

import pytest
import torch

from benchmarks import plain as naive
from benchmarks import step
from vikdf import loop
from vikdf.model.vikdf import LOSSES, VIKDFForPretraining

CAPTIONS = ["a red kettle", "the blue vase on the beach and a tree", "hello", "what colour is the green vase?"]
NEAR = 2e-6  # of the largest entry
NUMBERS = {
    "seed": 1,
    "steps": 3,
    "processes": 1,
    "micro_batch": 4,
    "accumulate": 1,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
}
NUMBERS |= {"schedule": "constant_after_warmup", "warmup": 0.0, "clip_norm": 1.0, "precision": "float32", "workers": 0}
NUMBERS |= {"checkpoint_every": 100}
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
    assert_same(model, model.losses(batches[features], (loss,))[loss], naive.losses(model, batches["plain"])[loss])


def test_all_losses_at_once_give_the_gradients_of_the_plain_step(model, batches):
    ours, plain = model.losses(batches["cached"]), naive.losses(model, batches["plain"])
    assert_same(model, step.total(ours), step.total(plain))


TRICKS = (
    "at masked places only",
    "without a graph",
    "two calls of the LLM",
    "head at targets only",
    "in one batch",
    "SDPA",
)


@pytest.mark.parametrize("trick", TRICKS)
def test_each_trick_changes_no_loss_and_no_gradient(model, batches, trick):
    (parts,) = [parts for name, parts in step.tricks(model).items() if trick in name]
    with step.without(parts):
        plain = step.total(model.losses(batches["plain"]))
    assert_same(model, step.total(model.losses(batches["plain"])), plain)


def test_no_trick_is_left_out(model):
    assert len(step.tricks(model)) == len(TRICKS)


@pytest.mark.parametrize("target", ["attached", "detached"])
@pytest.mark.parametrize("loss", ["iaci", "iakr"])
def test_one_call_of_the_llm_for_both_paths_gives_each_loss_and_its_gradients(
    model, batches, monkeypatch, loss, target
):
    monkeypatch.setattr(model.iakr, "target", target)
    with step.without(
        step.tricks(model)["IACI and IAKR in two calls of the LLM, so that only what needs a graph is in one"]
    ):
        both = model.losses(batches["cached"], ("iaci", "iakr"))
    assert_same(model, model.losses(batches["cached"], (loss,))[loss], both[loss])


def test_the_flops_of_a_step_are_those_of_its_products():
    x, weight = torch.randn(3, 5), torch.randn(5, 7, requires_grad=True)
    assert step.flops(lambda: (x @ weight).sum().backward()) == 2 * 2 * 3 * 5 * 7  # forward, and the weight's gradient
    q = torch.randn(1, 2, 4, 6)
    seen = step.flops(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert seen == 2 * 2 * 2 * 4 * 4 * 6  # both products of each of two heads


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
    assert_same(made, made.losses(batch, ("iakr",))["iakr"], naive.losses(made, batch)["iakr"])


def test_three_steps_of_the_fused_optimizer_are_those_of_the_plain_one(backbones):
    """The loop's own, on the same gradients: where one is but rounding (keys' biases), AdamW would blow its sign up to a step."""
    made = VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, seed=4)
    trained = {name: value for name, value in made.named_parameters() if value.requires_grad}
    copies = {name: value.detach().clone() for name, value in trained.items()}
    fused, of_copy = (
        loop._optimizer(trained, loop.Numbers(**NUMBERS)),
        {trained[name]: copies[name] for name in trained},
    )
    groups = [group | {"params": [of_copy[value] for value in group["params"]]} for group in fused.param_groups]
    plain = torch.optim.AdamW([group | {"fused": False, "foreach": False} for group in groups])
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0] and all(group["fused"] for group in groups)
    batch, _ = step.batches(made, len(CAPTIONS), CAPTIONS)
    for _ in range(3):
        made.zero_grad()
        step.total(made.losses(batch)).backward()
        for value, copy in of_copy.items():
            copy.grad = value.grad.clone()
        fused.step()
        plain.step()
        torch.testing.assert_close(copies, dict(trained), atol=1e-7, rtol=1e-6)
    begun = dict(VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, seed=4).named_parameters())
    assert all((value - begun[name]).abs().max() > 1e-4 for name, value in copies.items() if "key.bias" not in name)
