"""ZRIGF: it learns which picture belongs to a text, finds pictures for dialogues, and answers with them."""

import copy
import io
import math
from pathlib import Path

import checkpoints
import learns
import numpy as np
import pytest
import torch
from PIL import Image
from test_bart import write_bart

from vikdf import files, loop
from vikdf import pretrain_baseline as stage
from vikdf.baselines import zrigf
from vikdf.baselines.parts.index import Index
from vikdf.baselines.parts.matching import Matcher, Retriever
from vikdf.baselines.parts.pairing import Pairing
from vikdf.baselines.parts.transfer import Transfer, additive, causal
from vikdf.samples import Shards
from vikdf.systems import Places

ENTRY = {"kind": "zrigf", "bart": "bart", "vit": "vit", "images": 3, "heads": 4, "dropout": 0.1, "longest": 32}
ENTRY |= {"mask_pixels": 12, "mask_image": 0.4, "mask_shown": 0.2, "weights": {"rebuild": 0.2, "preserve": 0.1}}
ENTRY |= {"index": {"kind": "flat"}, "smoothing": 0.1, "join_start": "bart"}
CONTEXTS, RESPONSES = learns.TEN["contexts"], learns.TEN["responses"]
WORDS = checkpoints.WORDS.split()
PICTURES = 12


def write_vit(folder: Path) -> Path:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(**shape, image_size=24, patch_size=6)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Places:
    """Backbones and shards: each picture is of one colour, and its caption one word of its own."""
    import packs

    from vikdf import schemas
    from vikdf.shards import shards

    root = tmp_path_factory.mktemp("zrigf")
    write_bart(root / "bart")
    write_vit(root / "vit")
    rng, pairs, captions = np.random.default_rng(0), [], []
    empty = {"source": "a", "url": "", "captions": ["web"], "status": "ok", "width": 24, "height": 24}
    for number, colour in enumerate(rng.integers(0, 256, (PICTURES, 3))):
        stream = io.BytesIO()
        Image.new("RGB", (24, 24), tuple(map(int, colour))).save(stream, "PNG")
        pairs.append(empty | {"key": packs.key(number), "image": stream.getvalue()})
        said = {"source": "a", "origin": "web", "score": 0.5, "rank": 0, "used": True, "dropped": ""}
        captions.append(said | {"key": packs.key(number), "caption": f"hello {WORDS[number]}"})
    schemas.write(pairs, root / "pairs.parquet", schemas.PAIRS)
    schemas.write(captions, root / "captions.parquet", schemas.CAPTIONS)
    tables = {"captions": root / "captions.parquet", "pairs": root / "pairs.parquet"}
    shards(rows_per_shard=5, max_shard_bytes=10**9, output=root / "shards", **tables)
    return Places(root, pretrained=root / "pretrained", shards=root / "shards")


@pytest.fixture(scope="module")
def paired(places):
    """The first stage after some training; it has also written its product."""
    lesson, shards = zrigf.pretrainer(ENTRY, places, 1), Shards(places.shards)
    first = copy.deepcopy(lesson).eval()
    pairs = stage.Pairs(lesson, shards, list(range(PICTURES)), 1)
    numbers = loop.Numbers(**(learns.NUMBERS | {"steps": 60, "learning_rate": 0.003, "micro_batch": PICTURES}))
    loop.train(lesson, pairs.batch, PICTURES, numbers, folder=places.backbones / "state", journal=None)
    lesson.eval().write(places.pretrained, shards)
    with torch.no_grad():
        return lesson, [each.judge(pairs.batches()) for each in (first, lesson)], pairs


@pytest.fixture(scope="module")
def make(places, paired):
    return lambda **changed: zrigf.learner(ENTRY | changed, places.pretrained, places, {}, 1)


@pytest.fixture(scope="module")
def taught(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    return learns.overfits_ten_dialogues(lambda: make(smoothing=0.0), folder, steps=120, learning_rate=0.004)


def test_matching_learns_which_picture_belongs_to_a_caption(paired):
    before, after = paired[1]
    assert after["validation"] < 0.5 * before["validation"]
    assert after["text_to_image_recall_at_1"] >= 0.7


def test_masked_pictures_are_rebuilt_better_than_before(paired):
    before, after = paired[1]
    assert after["masked_error"] < 0.8 * before["masked_error"]


def test_the_covered_patches_are_those_of_the_rows_lots_and_as_many_as_asked(paired):
    lesson = paired[0]
    inside, covered = lesson.cover([3, 4, 5], "cpu")
    again = lesson.cover([5], "cpu")
    assert torch.equal(inside[2:], again[0]) and torch.equal(covered[2:], again[1])
    assert inside.sum(1).tolist() == [2 * 4] * 3  # two of four squares of two by two patches
    assert (covered <= inside).all() and covered.any() and not inside[0].equal(inside[1])


def test_the_rebuilding_loss_is_the_mean_error_of_the_pixels_in_masked_squares(paired):
    """The naive form: pixel by pixel, of the picture that the head draws."""
    lesson, _, pairs = paired
    batch = pairs.batch([(0, row) for row in range(3)])
    pixels, drawn = lesson.eye.normal(batch["pictures"]), {}
    lesson.head.register_forward_hook(lambda *seen: drawn.update(head=seen[2]))
    states, mask = lesson.read(batch["captions"])
    with torch.no_grad():
        ours = lesson.rebuild(pixels, states, mask, batch["lots"]).item()
    lesson.head._forward_hooks.clear()
    picture = torch.nn.functional.pixel_shuffle(drawn["head"], 6)
    inside, _ = lesson.cover(batch["lots"], "cpu")
    errors = [
        (picture[b, c, y, x] - pixels[b, c, y, x]).abs().item()
        for b in range(3)
        for c in range(3)
        for y in range(24)
        for x in range(24)
        if inside[b, y // 6 * 4 + x // 6]
    ]
    assert len(errors) == lesson.counts(batch)["rebuild"]
    assert ours == pytest.approx(sum(errors), rel=1e-4)


def test_neither_texts_encoder_changes_in_the_first_stage_nor_counts(paired, places):
    lesson = paired[0]
    kept = zrigf.pretrainer(ENTRY, places, 1).encoder.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in lesson.encoder.state_dict().items())
    trained = [name for name, value in lesson.named_parameters() if value.requires_grad]
    assert not any(name.startswith("encoder.") for name in trained)


def test_the_index_holds_every_picture_once_and_as_many_as_asked(paired, places, tmp_path):
    assert len(Index.load(places.pretrained)) == PICTURES
    few = zrigf.pretrainer(ENTRY | {"index": {"kind": "flat", "most_pictures": 5}}, places, 1).eval()
    few.write(tmp_path, Shards(places.shards))
    assert Index.load(tmp_path).names == Index.load(places.pretrained).names[:5]


def test_a_context_finds_the_pictures_that_were_taught_with_its_words(make):
    retriever = make().retriever
    found = retriever([[f"hello {word}"] for word in WORDS[:PICTURES]])
    hits = [place in row for place, row in enumerate(found.tolist())]
    assert found.shape == (PICTURES, 3) and sum(hits) >= 0.7 * PICTURES


def test_tuning_leaves_the_look_up_as_pretraining_made_it(make, taught):
    assert not any(value.requires_grad for value in taught.retriever.parameters())
    assert taught.retriever(CONTEXTS).equal(make().retriever(CONTEXTS))
    assert not torch.equal(taught.matcher.pooler.weight, taught.retriever.pooler.weight)


def test_training_lowers_its_loss(make, tmp_path):
    learns.lowers_loss(make, tmp_path, learning_rate=0.003)


def test_it_overfits_ten_dialogues_and_comes_back_from_its_folder(taught, places, tmp_path):
    learns.comes_back(taught, lambda folder: zrigf.answerer(ENTRY | {"smoothing": 0.0}, folder, places), tmp_path)


def test_it_resumes_bit_for_bit(make, tmp_path):
    learns.resumes(make, tmp_path, learning_rate=0.003)


def test_it_answers_differently_for_other_pictures(make, monkeypatch):
    """One question, whose answer only the picture that was found tells."""
    system, shown, asked = make(images=1, smoothing=0.0), [0], [["what is it ?"]]
    monkeypatch.setattr(Retriever, "forward", lambda self, contexts: torch.tensor([shown] * len(contexts)))
    optimizer, truth = torch.optim.Adam(system.trained_parameters(), lr=0.003), {2: "the vase is red", 7: "hello there"}
    for _ in range(50):
        for shown[0], answer in truth.items():
            system.train().loss(asked, [answer]).backward()
        optimizer.step()
        optimizer.zero_grad()
    system.eval()
    for shown[0], answer in truth.items():
        assert system.answers(asked, beams=2, no_repeat_ngram=3, max_new_tokens=12) == [answer]


def test_preserve_pairs_each_text_with_its_own_pictures_in_the_order_of_the_logits():
    """The naive form: text by text, picture by picture."""
    texts, vectors = torch.randn(3, 5), torch.randn(3, 2, 5)
    places, scale, total = torch.tensor([[1, 2], [3, 4], [2, 5]]), torch.tensor(2.0), 0.0
    for b in range(3):
        for row in range(3):
            for k in range(2):
                chance = torch.sigmoid(scale * texts[b] @ vectors[row, k])
                own = places[row, k] in places[b]
                total -= math.log(chance if own else 1 - chance)
    assert zrigf.preserve(scale, texts, vectors, places).item() == pytest.approx(total, rel=1e-4)


def test_a_layer_that_begins_as_bart_hands_on_what_barts_own_would(make):
    """With half-open gates: 2 * 0.5 * h1, and nearly nothing else."""
    bart, length = make().bart.eval(), 4
    layer, new = bart.model.decoder.layers[0], Transfer(bart.config, "bart").eval()
    torch.nn.init.zeros_(new.text_gate.weight)
    torch.nn.init.zeros_(new.text_gate.bias)
    with torch.no_grad():
        new.join.weight.copy_(new.join.weight.round())  # without the noise
        x, text, vision = torch.randn(2, length, 32), torch.randn(2, 5, 32), torch.randn(2, 3, 32)
        reading = additive(torch.ones(2, 1, 1, 5).bool(), x.dtype)
        ours = new(layer, x, causal(length, x), text, reading, vision)
        theirs = layer(
            x,
            attention_mask=causal(length, x),
            encoder_hidden_states=text,
            encoder_attention_mask=reading.expand(2, 1, length, 5),
        )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_what_it_scores_is_what_it_says_token_by_token(make):
    """The naive form: the next token of each prefix, one after another."""
    system, words = make().eval(), make().words
    with torch.no_grad():
        memory, _ = system.read(CONTEXTS[:1])
        ids, total = [words.start, *words.encode(RESPONSES[:1])[0], words.end], 0.0
        for place in range(1, len(ids)):
            total -= system.step(torch.tensor([ids[:place]]), **memory).log_softmax(-1)[0, ids[place]].item()
        nll, tokens = system.nll(CONTEXTS[:1], RESPONSES[:1])
    assert nll.item() == pytest.approx(total, abs=1e-4) and tokens.item() == len(ids) - 1


def test_a_dialogue_is_scored_alike_alone_and_in_any_company(make):
    system = make().eval()
    contexts, responses = [["hello"], *CONTEXTS[:4], ["what is it ? " * 6]], ["yes", *RESPONSES[:4], "red and blue"]
    together, _ = system.score(contexts, responses, batch=6)
    alone = [system.score([turns], [said])[0][0] for turns, said in zip(contexts, responses, strict=True)]
    assert together == pytest.approx(alone, abs=1e-4)


def test_texts_longer_than_barts_positions_are_cut_and_not_refused(make):
    system = make().eval()
    nll, tokens = system.score([["hello " * 300]], ["red " * 300])
    assert math.isfinite(nll[0]) and tokens[0] == system.room
    assert len(system.generate([["hello " * 300]], max_new_tokens=300, beams=1)) == 1


def test_every_tuned_parameter_has_one_name_in_both_stages(paired, make):
    first = {name for name, value in paired[0].named_parameters() if value.requires_grad}
    second = set(learns.weights(make()))
    alone = {"t2v.weight", "head.weight", "head.bias", "matcher.vit.embeddings.mask_token"}
    assert first - second == alone and {name for name in second if name.startswith("matcher.")} < first


def test_a_product_of_another_pretraining_is_refused(taught, places, tmp_path):
    other = Places(places.backbones, pretrained=tmp_path / "other", shards=places.shards)
    for name in ("model.safetensors", "index.json", "names.json", "vectors.safetensors"):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_bytes((places.pretrained / name).read_bytes())
    files.write_json(tmp_path / "other" / "metrics.json", {})
    taught.save(tmp_path / "saved", trained={}, run=None)
    with pytest.raises(ValueError, match="new|changed"):
        zrigf.answerer(ENTRY, tmp_path / "saved", other)


def test_it_has_the_sizes_of_its_paper():
    """306 M of which 102 M are trained first, then some 658 M, all of them: from configurations, without memory."""
    from transformers import BartConfig, BartForConditionalGeneration, ViTConfig, ViTModel

    sides = {"layers": 12, "attention_heads": 16, "ffn_dim": 4096}
    shape = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in sides.items()}
    with torch.device("meta"):
        bart = BartForConditionalGeneration(BartConfig(d_model=1024, vocab_size=50265, **shape))
        matcher = Matcher(ViTModel(ViTConfig()), width=1024, heads=4, dropout=0.1)
        settings = {"longest": 128, "mask_pixels": 32, "mask_image": 0.4, "mask_shown": 0.2, "index": {"kind": "flat"}}
        pairing = Pairing(copy.deepcopy(bart.model.encoder), copy.deepcopy(matcher), None, None, weight=0.2, **settings)
        numbers = {"heads": 4, "dropout": 0.1, "weight": 0.1, "smoothing": 0.1, "join_start": "random"}
        system = zrigf.ZRIGF(bart, matcher, None, None, None, **numbers)
    trained = sum(value.numel() for value in pairing.parameters() if value.requires_grad)
    assert trained / 1e6 == pytest.approx(102.2, abs=0.1)
    assert sum(value.numel() for value in pairing.parameters()) / 1e6 == pytest.approx(305.9, abs=0.1)
    assert pairing.chosen == 20 and pairing.squares == 49
    assert sum(value.numel() for value in system.trained_parameters()) / 1e6 == pytest.approx(658, abs=0.5)
