"""What is masked and counted, row by row and from the row's own lot; what else can be chosen, and what is refused."""

import pytest
import torch
from small import CAPTIONS, REAL, TOKENS, batch_of, iamtm, lots, tamim

from vikdf.model.distill import uniform
from vikdf.model.vikdf import VIKDFForPretraining


@pytest.fixture(scope="module")
def model(backbones):
    return VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12)


@pytest.fixture
def batch(model):
    return batch_of(model)


def test_tamim_hides_whole_squares_and_nothing_else():
    part, pixels = tamim(), torch.rand(5, 3, 16, 16) + 1
    covered, masked = part.cover(pixels, list(range(len(pixels))))
    zero = (covered == 0).all(dim=1)  # [B, S, S]
    assert masked.shape == (5, 8)
    for b in range(5):
        squares = zero[b].view(2, 8, 2, 8).transpose(1, 2).flatten(2)  # [2, 2, 64]
        assert torch.equal(squares.all(-1), squares.any(-1))
        assert squares.all(-1).sum() == 2
        hidden = {(y // 4) * 4 + x // 4 for y, x in zero[b].nonzero().tolist()}
        assert hidden == set(masked[b].tolist())
    assert torch.equal(covered[~zero[:, None].expand_as(covered)], pixels[~zero[:, None].expand_as(pixels)])


def test_a_share_of_the_masked_squares_can_stay_visible_and_still_counts():
    covered, masked = tamim(leave_unchanged=1.0).cover(torch.ones(2, 3, 16, 16), [1, 2])
    assert covered.min() == 1
    assert masked.shape == (2, 8)


def test_a_mask_square_that_does_not_fit_the_patches_is_refused():
    with pytest.raises(ValueError, match="mask_pixels is 6"):
        tamim(mask_pixels=6)


def test_iamtm_masks_words_only_and_one_at_least():
    for seed in range(20):
        covered, masked = iamtm(ratio=0.01).cover(TOKENS, REAL, [seed, seed + 100, seed + 200])
        assert masked.any(1).all()
        assert not masked[:, 0].any() and not masked[~REAL].any() and not masked[TOKENS == 10].any()
        assert (covered[masked] == 10).all() and torch.equal(covered[~masked], TOKENS[~masked])


def test_a_text_without_words_masks_nothing():
    _, masked = iamtm().cover(torch.tensor([[9, 10, 0]]), torch.tensor([[True, True, False]]), [1])
    assert not masked.any()


def test_a_row_is_masked_alike_in_whatever_micro_batch_it_stands(model, batch):
    clip, alone = model.source.clip, 2
    mask = clip.text_mask(batch["clip_tokens"])
    tokens = batch["clip_tokens"][:, : mask.shape[1]]
    own = clip.text_mask(tokens[alone:])
    shorter = tokens[alone:, : own.shape[1]]  # trimmed to its own length
    _, words = model.iamtm.cover(tokens, mask, batch["lots"])
    assert torch.equal(words[alone:, : own.shape[1]], model.iamtm.cover(shorter, own, batch["lots"][alone:])[1])
    _, patches = model.tamim.cover(batch["pixels"], batch["lots"])
    assert torch.equal(patches[alone:], model.tamim.cover(batch["pixels"][alone:], batch["lots"][alone:])[1])


def test_pictures_and_words_are_masked_independently():
    lots = list(range(400))
    first = [uniform(lots, salt, 1)[:, 0] for salt in (1, 2)]
    assert torch.corrcoef(torch.stack(first))[0, 1].abs() < 0.15
    assert abs(torch.cat(first).mean() - 0.5) < 0.05


def test_the_targets_counted_before_a_step_are_those_of_the_step(model, batch):
    assert model.counts(batch) == {name: count for name, (_, count) in model.sums(batch).items()}


def test_the_same_lots_give_the_same_losses(model, batch):
    assert model.losses(batch | lots(3)) == model.losses(batch | lots(3))
    assert model.losses(batch | lots(3))["tamim"] != model.losses(batch | lots(4))["tamim"]


@pytest.mark.parametrize("source", ["other_caption", "image"])
def test_iaci_can_read_the_picture_or_another_caption(backbones, batch, source):
    made = VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, iaci_from=source)
    batch = batch | {"others": CAPTIONS[::-1]}
    total, count = made.sums(batch, ("iaci",))["iaci"]
    clip, told = made.source.clip, CAPTIONS[::-1] if source == "other_caption" else CAPTIONS
    K = made.knowledge(CAPTIONS) if source == "other_caption" else made.source.iqformer(clip.image(batch["pixels"]))
    naive = made.iaci(made.llm, made.source.into_llm(K), made.llm.tokenize(told), batch["lots"])
    torch.testing.assert_close(total, naive[0])
    assert made.counts(batch, ("iaci",)) == {"iaci": count}


@pytest.mark.parametrize(
    ("key", "value"), [("tim", "mean"), ("iaci_from", "pixels"), ("iakr_target", "no"), ("iakr_input", "no")]
)
def test_a_choice_that_is_not_known_is_refused_with_the_known_ones(backbones, key, value):
    with pytest.raises(ValueError, match=f"{key} is '{value}': expected '"):
        VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, **{key: value})
