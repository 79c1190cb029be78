"""Maria: the right picture, what it changes, the exact likelihood, the masks, training, and back from its folder."""

import itertools
import shutil
from dataclasses import replace

import learns
import maria_parts
import pytest
import torch

from vikdf import systems
from vikdf.baselines import maria as kind
from vikdf.baselines.parts import berts
from vikdf.baselines.parts.covers import KEPT, cover, put
from vikdf.baselines.parts.retriever import mismatch
from vikdf.baselines.parts.visual_bert import Generator, with_tags

CONTEXTS, RESPONSES = [["hello", "what colour is it ?"], ["the vase"]], ["it is red and green", "a beach"]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> systems.Places:
    root = tmp_path_factory.mktemp("maria")
    made = systems.Places(maria_parts.folders(root / "backbones"), shards=maria_parts.pictured(root))
    return replace(made, pretrained=maria_parts.learned(root, made))


@pytest.fixture
def system(places):
    return maria_parts.maria(places).eval()


def batch(rows: int = 2) -> dict:
    return {
        "contexts": CONTEXTS[:rows],
        "responses": RESPONSES[:rows],
        "lots": [3, 4][:rows],
        "keys": ["a", "b"][:rows],
    }


def test_the_retriever_learns_to_find_a_picture_of_the_colour_that_a_text_names(system, places):
    from vikdf.baselines.parts.index import rows_of
    from vikdf.samples import Shards

    shards = Shards(places.shards)
    found = system.retrieve([[f"the kettle is {name}"] for name in maria_parts.COLOURS])
    rows = [rows_of(shards, system.retriever.index.names)[place] for place in found]
    assert [shards[row]["captions"] for row in rows] == [[f"the kettle is {name}"] for name in maria_parts.COLOURS]


def test_a_picture_that_two_rows_show_stands_in_the_index_once(system):
    assert len(system.retriever.index) == 29 == len(system.concepts.classes)


def test_another_retrieved_picture_makes_another_likelihood_and_another_bias(system):
    before, _ = system.nll(CONTEXTS, RESPONSES)
    own = system.retrieve(CONTEXTS)
    other = [
        next(i for i in range(29) if not torch.equal(system.concepts.features[i], system.concepts.features[at]))
        for at in own
    ]
    system.retrieve = lambda contexts: other[: len(contexts)]
    after, _ = system.nll(CONTEXTS, RESPONSES)
    assert (before - after).abs().min() > 1e-4


def test_a_system_taught_to_say_what_its_picture_shows_answers_by_the_picture(places, tmp_path):
    system = maria_parts.maria(places)
    shown = {"a": 0, "b": 1}  # two pictures of different colours
    contexts, responses = [["what colour is a"], ["what colour is b"]] * 5, ["it is red", "it is green"] * 5
    system.retrieve = lambda asked: [shown[turns[-1][-1]] for turns in asked]
    system.prompts = lambda asked: [[system.words.start, system.words.end] for _ in asked]  # the picture alone is read
    taught = {"contexts": contexts, "responses": responses}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learns, "TEN", taught)
        learns.train(system, tmp_path, steps=80)
    told = {name: system.eval().generate([[f"what colour is {name}"]])[0] for name in shown}
    assert told == {"a": "it is red", "b": "it is green"}


def test_the_likelihood_in_one_pass_is_that_of_appending_masks_one_by_one(system):
    nll, tokens = system.nll(CONTEXTS, RESPONSES)
    memory = system.seen(CONTEXTS)
    bias, sums = system.generator.knowledge(memory, system.regions), []
    for row, ids in enumerate(system.words.encode(RESPONSES)):
        one, said, total = memory.pick([row]), [*ids, system.words.end], 0.0
        kept = {f"keys_{i}": keys for i, (keys, _) in enumerate(one.layers)}
        kept |= {f"values_{i}": values for i, (_, values) in enumerate(one.layers)}
        for place, token in enumerate(said):
            prefix = torch.tensor([[system.words.start, *said[:place]]])
            total -= system.next(prefix, real=one.real, bias=bias[row : row + 1], **kept).log_softmax(-1)[0, token]
        sums.append(total)
    torch.testing.assert_close(nll, torch.stack(sums), rtol=1e-5, atol=1e-4)
    assert tokens.tolist() == [len(ids) + 1 for ids in system.words.encode(RESPONSES)]


def test_the_likelihood_does_not_depend_on_the_company_in_a_batch(system):
    both, alone = (
        system.nll(CONTEXTS, RESPONSES)[0],
        [system.nll([c], [r])[0] for c, r in zip(CONTEXTS, RESPONSES, strict=True)],
    )
    torch.testing.assert_close(both, torch.cat(alone), rtol=1e-5, atol=1e-4)


def test_all_continuations_of_a_length_are_as_likely_together_as_they_must_be(system):
    memory = system.seen(CONTEXTS[:1])
    bias = system.generator.knowledge(memory, system.regions)
    kept = {
        f"{name}_{i}": pair[at] for i, pair in enumerate(memory.layers) for at, name in enumerate(("keys", "values"))
    }
    logits = system.next(torch.tensor([[system.words.start]]), real=memory.real, bias=bias, **kept)
    firsts = logits.softmax(-1)[0]
    texts = [
        row for row in range(system.words.size) if len(system.words.encode([system.words.decode([[row]])[0]])[0]) == 1
    ][:5]
    for token in texts:
        said = [system.words.decode([[token]])[0]]
        if system.words.encode(said)[0] == [token]:
            second = system.next(torch.tensor([[system.words.start, token]]), real=memory.real, bias=bias, **kept)
            expected = firsts[token].log() + second.log_softmax(-1)[0, system.words.end]
            torch.testing.assert_close(-system.nll(CONTEXTS[:1], said)[0][0], expected, rtol=1e-4, atol=1e-4)


def test_equal_contexts_are_read_once_and_answered_alike(system):
    nll, _ = system.nll([CONTEXTS[0], CONTEXTS[1], CONTEXTS[0]], [RESPONSES[0], RESPONSES[1], RESPONSES[0]])
    torch.testing.assert_close(nll[0], nll[2])
    torch.testing.assert_close(nll[:2], system.nll(CONTEXTS, RESPONSES)[0], rtol=1e-5, atol=1e-4)


def test_the_bias_is_the_mean_logit_of_the_own_tags_and_nothing_elsewhere(system):
    memory = system.seen(CONTEXTS)
    logits = system.generator.logits(system.generator.tag_states(memory, system.regions)).mean(1)  # [B, V]
    plain = torch.zeros_like(logits)
    tags = system.generator.tags
    plain[:, tags] = logits[:, tags]
    torch.testing.assert_close(system.generator.knowledge(memory, system.regions), plain, rtol=1e-5, atol=1e-5)


def test_tags_are_learned_in_the_order_that_fits_best(system):
    states = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(5))
    tags, hidden = [system.tags.tolist()], [{0: KEPT, 1: KEPT, 2: KEPT}]
    chances = system.generator.logits(states[0]).softmax(-1)
    best = max(itertools.permutations(tags[0]), key=lambda order: sum(chances[i, tag] for i, tag in enumerate(order)))
    naive = -sum(chances[i, tag].log() for i, tag in enumerate(best))
    torch.testing.assert_close(system.matched(states, tags, hidden), naive, rtol=1e-5, atol=1e-4)
    turned = system.matched(states, [tags[0][::-1]], hidden)
    torch.testing.assert_close(turned, naive, rtol=1e-5, atol=1e-4)


def test_the_objective_counts_what_it_hides_and_its_shares_add_up_over_micro_batches(system):
    counts = [system.counts(batch(1)), system.counts({name: part[1:] for name, part in batch().items()})]
    whole = {name: sum(count[name] for count in counts) for name in counts[0]}
    assert whole == system.counts(batch())
    together = system.shares(batch(), whole)[1]
    parts = [system.shares(part, whole)[1] for part in (batch(1), {name: part[1:] for name, part in batch().items()})]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(part[name] for part in parts), rtol=1e-5, atol=1e-5)


def test_what_is_hidden_depends_on_the_row_alone_and_keeps_its_share(system):
    drawn = {"share": 0.7, "least": 1, "salt": 0, "words": system.words}
    together = cover([9, 5], lots=[7, 8], **drawn)
    assert together == [cover([9], lots=[7], **drawn)[0], cover([5], lots=[8], **drawn)[0]]
    many = cover([5] * 2000, lots=list(range(2000)), **drawn)
    assert abs(sum(map(len, many)) / 10000 - 0.7) < 0.01
    kinds = [kind for row in many for kind in row.values()]
    assert abs(kinds.count(system.words.mask) / len(kinds) - 0.8) < 0.02
    assert abs(kinds.count(KEPT) / len(kinds) - 0.1) < 0.02
    assert put([1, 2, 3], {0: 9, 1: KEPT}) == [9, 2, 3]


@pytest.mark.parametrize("wrong, others", [("one", {0: [2], 1: [3], 2: [0], 3: [1]}), ("all", None)])
def test_a_hinge_is_that_of_each_pair_against_its_wrong_pictures(wrong, others):
    texts, pictures = torch.eye(4), torch.tensor([[1.0, 0, 0, 0], [0, 0.2, 0, 0], [0, 0, 0.9, 0], [0, 1.0, 0, 0]])
    others = others or {row: [other for other in range(4) if other != row] for row in range(4)}
    naive = [
        sum(max(0.0, 0.5 - (texts[row] @ pictures[row]).item() + (texts[row] @ pictures[one]).item()) for one in apart)
        / len(apart)
        for row, apart in others.items()
    ]
    torch.testing.assert_close(mismatch(texts, pictures, 0.5, wrong), torch.tensor(naive))


def test_a_tag_that_the_tokenizer_cuts_becomes_one_token_that_begins_as_its_pieces_mean(system, places):
    words, tags = with_tags(places.backbones / "bert", maria_parts.LABELS)
    assert [words.tokenizer.convert_ids_to_tokens(tag).strip("Ġ") for tag in tags] == maria_parts.LABELS
    assert words.encode(["see the old tree here"])[0].count(tags[2]) == 1
    plain, _ = with_tags(places.backbones / "bert", [])
    table = system.generator.bert.embeddings.word_embeddings.weight
    torch.testing.assert_close(table[tags[2]], table[plain.encode(["old tree"])[0]].mean(0))


def test_the_generator_begins_with_the_folders_head_and_without_one_at_random(system, places):
    from safetensors.torch import load_file

    saved = load_file(places.backbones / "unilm/model.safetensors")
    made = system.generator
    assert torch.equal(made.transform.dense.weight, saved["cls.predictions.transform.dense.weight"])
    assert torch.equal(made.decoder.bias[: len(saved["cls.predictions.bias"])], saved["cls.predictions.bias"])
    assert torch.equal(made.decoder.weight, made.bert.embeddings.word_embeddings.weight)
    assert made.decoder.weight is not made.bert.embeddings.word_embeddings.weight
    plain = kind.learner(maria_parts.ENTRY | {"generator": "bert"}, None, places, {}, 1).eval()
    assert not plain.generator.decoder.bias.any() and plain.nll(CONTEXTS, RESPONSES)[0].isfinite().all()


def test_a_bert_that_lacks_a_weight_of_its_body_is_one_sentence(places, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(places.backbones, tmp_path / "backbones") / "unilm"
    saved = load_file(folder / "model.safetensors")
    del saved["bert.encoder.layer.0.attention.self.query.weight"]
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="unilm lacks 1 weights .* copy it anew"):
        kind.learner(maria_parts.ENTRY, None, replace(places, backbones=tmp_path / "backbones"), {}, 1)


@pytest.mark.parametrize("name", ["bias", "transform.dense.weight"])
def test_a_head_with_a_hole_is_refused_and_not_left_out(places, tmp_path, name):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(places.backbones / "unilm", tmp_path / "unilm")
    saved = load_file(folder / "model.safetensors")
    del saved[f"cls.predictions.{name}"]
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="unilm lacks . weights .*, as cls.predictions.* copy it anew"):
        berts.load(folder)


def test_a_tokenizer_with_words_that_bert_lacks_begins_a_generator_with_the_others_bias(places, tmp_path):
    folder = shutil.copytree(places.backbones / "unilm", tmp_path / "unilm")
    words, _ = with_tags(folder, [])
    before = words.size
    words.tokenizer.add_tokens(["quokka", "okapi"])
    words.tokenizer.save_pretrained(folder)
    words, tags = with_tags(folder, maria_parts.LABELS)
    bias = Generator.begin(folder, words, tags, 8).decoder.bias.data
    assert torch.equal(bias[:before], berts.load(folder)[1].bias.data) and not bias[before:].any()


def test_a_context_too_long_keeps_what_was_said_last(system):
    row = system.prompts([["hello " * 100, "what colour ?"]])[0]
    assert len(row) == 32 and row[:-1][-3:] == system.words.encode(["what colour ?"])[0]


def test_a_response_longer_than_any_place_of_bert_is_scored_wholly(system):
    nll, tokens = system.nll([["hello"]], ["red " * 100])
    assert tokens.item() == len(system.words.encode(["red " * 100])[0]) + 1 > 64
    assert nll.isfinite().all()


def test_training_lowers_the_loss_and_teaches_ten_dialogues(places, tmp_path):
    learns.lowers_loss(lambda: maria_parts.maria(places), tmp_path)
    learns.overfits_ten_dialogues(lambda: maria_parts.maria(places), tmp_path, steps=350, learning_rate=0.005)


def test_training_goes_on_exactly_where_it_was_killed(places, tmp_path):
    learns.resumes(lambda: maria_parts.maria(places), tmp_path)


def test_a_saved_system_comes_back_and_nothing_of_the_retriever_is_tuned(system, places, tmp_path):
    again = learns.comes_back(system, lambda folder: kind.answerer(maria_parts.ENTRY, folder, places), tmp_path)
    assert {name.split(".")[0] for name, value in again.named_parameters() if value.requires_grad} == {"generator"}


def test_another_retriever_than_that_of_training_is_refused(system, places, tmp_path):
    system.save(tmp_path / "saved")
    other = maria_parts.learned(tmp_path, places, steps=2)
    with pytest.raises(ValueError, match="pretrained"):
        kind.answerer(maria_parts.ENTRY, tmp_path / "saved", replace(places, pretrained=other))


def test_names_of_what_both_stages_train_are_never_the_same(system, places):
    lesson = kind.pretrainer(maria_parts.ENTRY, places, 1)
    trained = [{name for name, value in part.named_parameters() if value.requires_grad} for part in (lesson, system)]
    assert not trained[0] & trained[1] and all(trained)


def test_too_few_regions_are_one_sentence(places, tmp_path):
    from vikdf.samples import Shards

    lesson = kind.pretrainer(maria_parts.ENTRY | {"regions": 9}, places, 1)
    with pytest.raises(ValueError, match="gives 4 regions a picture, but 9 are asked for"):
        lesson.write(tmp_path, Shards(places.shards))


def test_at_paper_size_the_generator_has_the_135_million_of_its_row_of_table_1():
    """BERT-base, 80 classes of DETR 256 wide; a retriever's heads, 8.4 M, are trained before."""
    from transformers import BertConfig, BertModel

    from vikdf.baselines.parts.retriever import head
    from vikdf.baselines.parts.visual_bert import Generator

    with torch.device("meta"):
        generator = Generator(BertModel(BertConfig(type_vocab_size=3), add_pooling_layer=False), [5], 256)
        heads = [head(4 * 768, 1024, 512, 0.2), head(2048, 1024, 512, 0.2)]
    counts = [sum(value.numel() for value in part.parameters()) / 1e6 for part in (generator, *heads)]
    assert 132 < counts[0] < 136 and round(sum(counts[1:]), 1) == 8.4
