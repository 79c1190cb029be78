"""The five losses against naive loops, forward and gradient; where they start and that they learn; what gets gradients."""

import math
from statistics import mean

import pytest
import torch
from small import CAPTIONS, REAL, TOKENS, assert_same, batch_of, iamtm, lots, naive_states, random, tamim

from vikdf import pretrain
from vikdf.model.distill import TIM
from vikdf.model.iqformer import FusionBlock
from vikdf.model.vikdf import LOSSES, VIKDFForPretraining


@pytest.fixture(scope="module")
def model(backbones):
    return VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12)


@pytest.fixture
def batch(model):
    return batch_of(model)


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


def test_the_fusion_block_reads_only_knowledge():
    block, H, K = FusionBlock(8, 6, 2), torch.randn(1, 4, 8), torch.randn(1, 3, 6)
    torch.testing.assert_close(block(H, K)[:, 1:2], block(H[:, 1:2], K))


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


def test_tim_of_knowledge_that_tells_nothing_starts_at_ln_of_the_rows():
    tim = TIM(width=1024, kind="set", projection=4, temperature=0.07)
    found = [
        tim(random(3, 8, 1024, seed=seed), random(3, 8, 1024, seed=100 + seed))[0].item() / 3 for seed in range(10)
    ]
    assert mean(found) == pytest.approx(math.log(3), abs=0.05)


def test_iamtm_of_new_weights_starts_near_ln_of_the_vocabulary(backbones, batch):
    """Above it by half the variance of the logits: of 1/3, as a new linear layer behind a norm gives them."""
    found = []
    for seed in range(8):
        made = VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, seed=seed)
        found += [made.losses(batch | lots(lot), ("iamtm",))["iamtm"].item() for lot in range(5)]
    assert mean(found) == pytest.approx(math.log(made.source.clip.vocabulary) + 1 / 6, abs=0.1)


def test_all_five_losses_start_at_once(model, batch):
    losses = model.losses(batch)
    assert set(losses) == set(LOSSES) and all(loss.isfinite() and loss > 0 for loss in losses.values())


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


def test_iakr_with_slots_gives_back_all_of_K_from_prompt_and_text(backbones, batch):
    made = VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, iakr_input="slots")
    K, texts, errors = random(3, 3, 32), made.llm.tokenize(CAPTIONS), []
    for b, text in enumerate(texts):
        row = made.llm.rows([[made.llm.tokenize(made.iakr.prompts)[0] + text]], 0)[0] + [-1] * 3
        states, _ = naive_states(made.llm, row, made.iakr.slots)
        errors += [(made.iakr.back(states[0, i - 3]) - K[b, i]) ** 2 for i in range(3)]
    total, count = made.integrate(K, None, {"caption_ids": texts, "lots": [1, 2, 3]}, ("iakr",))["iakr"]
    assert_same(total / count, torch.cat(errors).mean(), [K, made.iakr.slots, made.iakr.back.weight])


def test_tim_contrasts_in_float32_where_the_rest_runs_in_bfloat16():
    tim, K_T, K_I = TIM(width=8, kind="set", projection=4, temperature=0.01), random(4, 3, 8), random(4, 3, 8, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = tim(K_T, K_I)
    assert_same(total, tim(K_T, K_I)[0], [K_T, K_I, tim.log_scale])


def test_without_bvif_the_picture_alone_says_the_caption_and_nothing_of_iakr_is_trained(backbones, batch):
    """The ablation's own settings: BLIP-2's vision-to-language generation, K_I before an empty prompt."""
    made = VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, iaci_from="image", iaci_prompts=[""])
    aim, said = pretrain.objective(made, {name: 1.0 for name in LOSSES} | {"iakr": 0.0}), []
    K = made.source.iqformer(made.source.clip.image(batch["pixels"]))
    for b, text in enumerate(made.llm.tokenize(CAPTIONS)):
        row = made.llm.rows([[[]]], 3)[0] + text + [made.llm.end]
        _, logits = naive_states(made.llm, row, made.source.into_llm(K[b]))
        said += [-torch.log_softmax(logits[0, i - 1], 0)[row[i]] for i in range(len(row) - len(text) - 1, len(row))]
    whole = aim.counts(batch)
    _, shares = aim(batch, whole)
    assert whole.keys() == shares.keys() == set(LOSSES) - {"iakr"} and whole["iaci"] == len(said)
    assert_same(shares["iaci"], sum(said) / len(said), [made.source.into_llm.weight, made.source.iqformer.queries])
    aim(batch, whole)[0].backward()
    assert made.source.into_llm.weight.grad.abs().sum() > 0
    assert all(value.grad is None and not value.requires_grad for value in made.iakr.parameters())


# a random language model that stays as it is can hardly be made to say a text: IACI needs more queries, and stops short of 0
@pytest.mark.parametrize(
    ("name", "queries", "rate", "share"),
    [
        ("tim", 3, 3e-3, 0.1),
        ("tamim", 3, 1e-2, 0.2),
        ("iamtm", 3, 3e-3, 0.1),
        ("iaci", 16, 1e-2, 0.35),
        ("iakr", 3, 3e-3, 0.1),
    ],
)
def test_each_loss_learns_one_batch_by_heart(backbones, batch, name, queries, rate, share):
    made = VIKDFForPretraining.build(**backbones, queries=queries, mask_pixels=12, seed=3)
    clip = made.source.clip
    batch = batch | {"h_image": clip.image(batch["pixels"]), "h_text": clip.states(batch["clip_tokens"])}
    optimizer, history = torch.optim.AdamW(made.trained_parameters(), lr=rate), []
    for _ in range(110):
        loss = made.losses(batch, (name,))[name]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < share * history[0], history[-1] / history[0]
