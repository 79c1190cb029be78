"""The five losses against naive loops, forward and gradient; masks; what gets gradients."""

import math

import pytest
import torch

from vikdf.model.distill import IAMTM, TAMIM, TIM, uniform
from vikdf.model.iqformer import FusionBlock
from vikdf.model.vikdf import LOSSES, VIKDFForPretraining

CAPTIONS = ["a red kettle", "the blue vase on the beach and a tree", "hello"]


@pytest.fixture(scope="module")
def model(backbones):
    return VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12)


@pytest.fixture
def batch(model):
    pixels = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    return {"pixels": pixels, "clip_tokens": model.source.clip.tokenize(CAPTIONS), "captions": CAPTIONS} | lots(0)


def lots(seed: int) -> dict[str, list[int]]:
    return {"lots": [seed + 1000 * row for row in range(3)]}


def random(*shape, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).requires_grad_()


def assert_same(ours, naive, inputs):
    """Equal losses, equal gradients of every input."""
    torch.testing.assert_close(ours, naive, atol=2e-5, rtol=2e-5)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(naive, inputs), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("kind", ["pooled", "set"])
def test_tim_equals_a_loop_over_pairs(kind):
    tim = TIM(width=8, kind=kind, projection=4, temperature=0.07)
    K_T, K_I = random(4, 3, 8), random(4, 3, 8, seed=1)

    def cosine(i, j):
        a = tim.text(K_T[i, 0]) if kind == "pooled" else K_T[i].flatten()
        b = tim.image(K_I[j, 0]) if kind == "pooled" else K_I[j].flatten()
        return a @ b / a.norm() / b.norm() * tim.log_scale.exp()

    terms = []
    for i in range(4):
        terms.append(-torch.log(cosine(i, i).exp() / sum(cosine(i, j).exp() for j in range(4))))
        terms.append(-torch.log(cosine(i, i).exp() / sum(cosine(j, i).exp() for j in range(4))))
    total, count = tim(K_T, K_I)
    assert_same(total / count, sum(terms) / 8, [K_T, K_I, tim.log_scale])


def test_the_temperature_stays_within_its_bounds():
    tim = TIM(width=8, kind="set", projection=4, temperature=0.07)
    with torch.no_grad():
        tim.log_scale.fill_(9.0)
    total, _ = tim(random(4, 3, 8), random(4, 3, 8, seed=1))
    assert math.isclose(math.exp(-tim.log_scale.item()), 0.01, rel_tol=1e-5)
    assert torch.autograd.grad(total, tim.log_scale)[0] != 0


def tamim(**changes):
    settings = {"pixels": 16, "patch": 4, "mask_pixels": 8, "ratio": 0.5, "leave_unchanged": 0.0}
    return TAMIM(width=8, knowledge_width=6, heads=2, **settings | changes)


def test_tamim_equals_a_loop_over_masked_pixels():
    part, K, H = tamim(), random(2, 3, 6), random(2, 17, 8, seed=1)
    pixels = torch.randn(2, 3, 16, 16)
    _, masked = part.cover(pixels, list(range(len(pixels))))
    picture, errors = part.draw(H, K), []
    for b in range(2):
        for patch in masked[b].tolist():
            for y in range(4):
                for x in range(4):
                    row, column = patch // 4 * 4 + y, patch % 4 * 4 + x
                    errors += [(pixels[b, c, row, column] - picture[b, c, row, column]).abs() for c in range(3)]
    total, count = part(H, K, pixels, masked)
    assert count == len(errors)
    assert_same(total / count, sum(errors) / len(errors), [H, K, *part.parameters()])


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


def iamtm(**changes):
    settings = {"vocabulary": 11, "context": 6, "end_of_text": 10, "ratio": 0.4, "leave_unchanged": 0.0}
    return IAMTM(width=8, knowledge_width=6, heads=2, **settings | changes)


TOKENS = torch.tensor([[9, 1, 2, 3, 4, 10], [9, 5, 6, 10, 0, 0], [9, 7, 10, 0, 0, 0]])
REAL = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]).bool()


def test_iamtm_equals_a_loop_over_masked_tokens():
    part, K, H = iamtm(), random(3, 3, 6), random(3, 6, 8, seed=1)
    _, masked = part.cover(TOKENS, REAL, [1, 2, 3])
    errors = []
    for b, place in masked.nonzero().tolist():
        logits = part.decoder(part.block(H[b : b + 1, place : place + 1], K[b : b + 1]))[0, 0]
        errors.append(-torch.log_softmax(logits, 0)[TOKENS[b, place]])
    total, count = part(H, K, TOKENS, masked)
    assert count == len(errors)
    assert_same(total / count, sum(errors) / len(errors), [H, K, *part.parameters()])


def test_iamtm_masks_words_only_and_one_at_least():
    for seed in range(20):
        covered, masked = iamtm(ratio=0.01).cover(TOKENS, REAL, [seed, seed + 100, seed + 200])
        assert masked.any(1).all()
        assert not masked[:, 0].any() and not masked[~REAL].any() and not masked[TOKENS == 10].any()
        assert (covered[masked] == 10).all() and torch.equal(covered[~masked], TOKENS[~masked])


def test_a_text_without_words_masks_nothing():
    _, masked = iamtm().cover(torch.tensor([[9, 10, 0]]), torch.tensor([[True, True, False]]), [1])
    assert not masked.any()


def test_the_fusion_block_reads_only_knowledge():
    block, H, K = FusionBlock(8, 6, 2), torch.randn(1, 4, 8), torch.randn(1, 3, 6)
    torch.testing.assert_close(block(H, K)[:, 1:2], block(H[:, 1:2], K))


def naive_states(llm, row, K):
    """One unpadded row, vector by vector: last hidden states [1, L, H] and logits [1, L, V]."""
    table, vectors, given = llm.model.get_input_embeddings(), [], iter(K)
    for token in row:
        vectors.append(next(given) if token < 0 else table(torch.tensor(token)))
    made = llm.model(inputs_embeds=torch.stack(vectors)[None], output_hidden_states=True)
    return made.hidden_states[-1], made.logits


@pytest.mark.parametrize("target", ["attached", "detached"])
def test_iaci_and_iakr_equal_a_loop_over_captions(model, target):
    model.iakr.target = target
    K, texts = random(3, 3, 32), model.llm.tokenize(CAPTIONS)
    ours = model.integrate(K, None, {"caption_ids": texts} | lots(0), ("iaci", "iakr"))
    said, reconstructed = [], []
    for b, text in enumerate(texts):
        given = model.source.into_llm(K[b])
        prompt = model.llm.tokenize(model.iaci.prompts)[0]
        row = model.llm.rows([[prompt]], 3)[0] + text + [model.llm.end]
        _, logits = naive_states(model.llm, row, given)
        for place in range(len(row) - len(text) - 1, len(row)):
            said.append(-torch.log_softmax(logits[0, place - 1], 0)[row[place]])
        prompt = model.llm.tokenize(model.iakr.prompts)[0]
        row = model.llm.rows([[prompt + text]], 0)[0] + [-1] * 3
        states, _ = naive_states(model.llm, row, given)
        truth = K[b].detach() if target == "detached" else K[b]
        for i in range(3):
            reconstructed.append((model.iakr.back(states[0, len(row) - 3 + i - 1]) - truth[i]) ** 2)
    inputs = [K, model.source.into_llm.weight]
    total, count = ours["iaci"]
    assert count == len(said)
    model.iakr.target = "attached"
    iakr = ours["iakr"][0] / ours["iakr"][1]
    naive = torch.cat(reconstructed).mean()
    both, both_naive = total / count + iakr, sum(said) / len(said) + naive
    torch.testing.assert_close(iakr, naive, atol=2e-5, rtol=2e-5)
    assert_same(both, both_naive, [*inputs, model.iakr.back.weight])


def test_one_loss_alone_equals_the_same_loss_among_all(model):
    K, texts = random(3, 3, 32), model.llm.tokenize(CAPTIONS)
    batch = {"caption_ids": texts} | lots(0)
    together = model.integrate(K, None, batch, ("iaci", "iakr"))
    for name in ("iaci", "iakr"):
        alone = model.integrate(K, None, batch, (name,))
        torch.testing.assert_close(alone[name][0], together[name][0])


def test_losses_start_near_chance(model, batch):
    losses = model.losses(batch)
    assert set(losses) == set(LOSSES)
    assert abs(losses["tim"] - math.log(3)) < 0.2
    assert abs(losses["iamtm"] - math.log(model.source.clip.vocabulary)) < 1


def test_the_same_lots_give_the_same_losses(model, batch):
    assert model.losses(batch | lots(3)) == model.losses(batch | lots(3))
    assert model.losses(batch | lots(3))["tamim"] != model.losses(batch | lots(4))["tamim"]


def test_cached_features_and_ids_change_nothing(model, batch):
    clip = model.source.clip
    cached = batch | {"h_image": clip.image(batch["pixels"]), "h_text": clip.states(batch["clip_tokens"])}
    cached["caption_ids"] = model.llm.tokenize(cached.pop("captions"))
    plain, ours = model.losses(batch), model.losses(cached)
    for name in LOSSES:
        torch.testing.assert_close(plain[name], ours[name])


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_reaches_the_queries_and_no_frozen_part(model, batch, name):
    model.zero_grad()
    model.losses(batch, (name,))[name].backward()
    assert model.source.iqformer.queries.grad.abs().sum() > 0
    for frozen in (model.source.clip, model.llm):
        assert all(parameter.grad is None for parameter in frozen.parameters())


def test_both_text_and_image_knowledge_equal_one_source_at_a_time(model, batch):
    clip, iqformer = model.source.clip, model.source.iqformer
    H_T, mask = clip.text(batch["clip_tokens"])
    H_I = clip.image(batch["pixels"])
    K_T, K_I = iqformer.together([(H_T, mask), (H_I, None)])
    torch.testing.assert_close(K_T, iqformer(H_T, mask))
    torch.testing.assert_close(K_I, torch.cat([iqformer(row[None]) for row in H_I]))
    for b in range(3):  # padding is not seen
        torch.testing.assert_close(K_T[b], iqformer(H_T[b : b + 1, : mask[b].sum()])[0])


def test_training_by_all_losses_changes_no_frozen_weight_and_every_trained_one(backbones, batch):
    made = VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, seed=2)
    before = {name: value.clone() for name, value in made.named_parameters()}
    optimizer = torch.optim.AdamW(made.trained_parameters(), lr=3e-3, weight_decay=0.0)
    made.train()
    for _ in range(2):
        optimizer.zero_grad()
        sum(made.losses(batch).values()).backward()
        optimizer.step()
    for name, value in made.named_parameters():
        assert torch.equal(value, before[name]) != value.requires_grad, name


def test_the_targets_counted_before_a_step_are_those_of_the_step(model, batch):
    assert model.counts(batch) == {name: count for name, (_, count) in model.sums(batch).items()}


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


def test_iakr_with_slots_gives_back_all_of_K_from_prompt_and_text(backbones, batch):
    made = VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, iakr_input="slots")
    K, texts, errors = random(3, 3, 32), made.llm.tokenize(CAPTIONS), []
    for b, text in enumerate(texts):
        row = made.llm.rows([[made.llm.tokenize(made.iakr.prompts)[0] + text]], 0)[0] + [-1] * 3
        states, _ = naive_states(made.llm, row, made.iakr.slots)
        errors += [(made.iakr.back(states[0, i - 3]) - K[b, i]) ** 2 for i in range(3)]
    total, count = made.integrate(K, None, {"caption_ids": texts, "lots": [1, 2, 3]}, ("iakr",))["iakr"]
    assert_same(total / count, torch.cat(errors).mean(), [K, made.iakr.slots, made.iakr.back.weight])


# iaci only so far: a random language model that stays as it is can hardly be made to say a text
@pytest.mark.parametrize(
    ("name", "share"), [("tim", 0.1), ("tamim", 0.7), ("iamtm", 0.1), ("iaci", 0.7), ("iakr", 0.1)]
)
def test_each_loss_learns_one_batch_by_heart(backbones, batch, name, share):
    made = VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, seed=3)
    optimizer, history = torch.optim.AdamW(made.trained_parameters(), lr=3e-3), []
    for _ in range(80):
        loss = made.losses(batch, (name,))[name]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < share * history[0], history[-1] / history[0]


@pytest.mark.parametrize(
    ("key", "value"), [("tim", "mean"), ("iaci_from", "pixels"), ("iakr_target", "no"), ("iakr_input", "no")]
)
def test_a_choice_that_is_not_known_is_refused_with_the_known_ones(backbones, key, value):
    with pytest.raises(ValueError, match=f"{key} is '{value}': expected '"):
        VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, **{key: value})


def test_tim_contrasts_in_float32_where_the_rest_runs_in_bfloat16():
    tim, K_T, K_I = TIM(width=8, kind="set", projection=4, temperature=0.01), random(4, 3, 8), random(4, 3, 8, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = tim(K_T, K_I)
    assert_same(total, tim(K_T, K_I)[0], [K_T, K_I, tim.log_scale])


def test_frozen_parts_in_bfloat16_give_nearly_the_same_losses_and_trained_ones_stay_float32(backbones, batch):
    from vikdf import place

    plain = VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, seed=4)
    lower = place.put(VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, seed=4), "bfloat16")
    assert {value.dtype for value in lower.trained_parameters()} == {torch.float32}
    assert {value.dtype for value in lower.parameters() if not value.requires_grad} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        losses = lower.losses(batch)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    for name, expected in plain.losses(batch).items():
        torch.testing.assert_close(losses[name], expected, rtol=0.03, atol=0.03)
    sum(losses.values()).backward()
    assert all(value.grad.isfinite().all() for value in lower.trained_parameters() if value.grad is not None)
