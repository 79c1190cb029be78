"""BART: it begins as the folder says, learns, scores what it would say, and has the paper's number of parameters."""

from pathlib import Path

import learns
import pytest
import torch

from vikdf import files
from vikdf.baselines import bart
from vikdf.systems import Places

ENTRY = {"kind": "bart", "bart": "bart"}
CONTEXTS, RESPONSES = learns.TEN["contexts"], learns.TEN["responses"]


def write_bart(folder: Path, **changed) -> Path:
    """A random BART with the tokens of the tests."""
    from checkpoints import tokenizer

    from vikdf.backbones import bart as trainer

    words = tokenizer(trainer.SPECIALS, "<s> $A </s>")
    torch.manual_seed(0)
    model = trainer.make_model(words, width=32, layers=2)
    model.config.update(changed)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_bart(tmp_path_factory.mktemp("bart") / "bart").parent


@pytest.fixture(scope="module")
def make(root):
    return lambda: bart.learner(ENTRY, None, Places(backbones=root), {}, 1)


@pytest.fixture(scope="module")
def taught(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    return learns.overfits_ten_dialogues(make, folder, steps=120, learning_rate=0.003)


def test_training_lowers_its_loss(make, tmp_path):
    learns.lowers_loss(make, tmp_path, learning_rate=0.003)


def test_it_overfits_ten_dialogues_and_comes_back_from_its_folder(taught, tmp_path):
    again = learns.comes_back(taught, lambda folder: bart.answerer(ENTRY, folder, None), tmp_path)
    assert again.model.lm_head.weight is again.model.model.encoder.embed_tokens.weight


def test_it_resumes_bit_for_bit(make, tmp_path):
    learns.resumes(make, tmp_path, learning_rate=0.003)


def test_it_begins_with_the_folders_weights_and_trains_each_once(make, root):
    from safetensors.torch import load_file

    saved, ours = load_file(root / "bart" / "model.safetensors"), dict(make().named_parameters())
    assert all(torch.equal(value, saved[name.removeprefix("model.")]) for name, value in ours.items())
    assert all(value.requires_grad for value in ours.values())
    assert sum(value.numel() for value in ours.values()) == sum(value.numel() for value in saved.values()) - len(
        saved["final_logits_bias"][0]
    )


def test_a_dialogue_is_scored_alike_alone_and_in_any_company(make):
    learns.scores_alike_in_any_company(make)


def test_its_nll_is_that_of_transformers_own_forward_without_the_start(make):
    """The naive form: labels `<s> response </s>`, as BART was pretrained, less what `<s>` costs."""
    system, words = make().eval(), make().words
    given = torch.tensor(system.prompts(CONTEXTS[:1]))
    labels = torch.tensor([[words.start, *words.encode(RESPONSES[:1])[0], words.end]])
    with torch.no_grad():
        logits = system.model(given, labels=labels).logits.log_softmax(-1)[0]
        nll, tokens = system.nll(CONTEXTS[:1], RESPONSES[:1])
    naive = -sum(logits[place, labels[0, place]].item() for place in range(1, labels.shape[1]))
    assert nll.item() == pytest.approx(naive, abs=1e-4) and tokens.item() == labels.shape[1] - 1


def test_the_last_turn_and_the_one_before_it_are_both_read(taught):
    """Its answers change with either turn: the noun stands in one, what is asked in the other."""
    said = taught.generate(
        [["hello , there is a vase", "where is it ?"], ["hello , there is a vase", "what colour is it ?"]]
    )
    other = taught.generate([["hello , there is a tree", "what colour is it ?"]])
    assert said == ["yes , on the beach", "the vase is blue"] and other == ["the tree is green"]


def test_what_a_checkpoint_says_of_decoding_is_dropped(make, root, tmp_path):
    told = write_bart(tmp_path / "bart")
    generation = files.read_json(told / "generation_config.json")
    changed = {"num_beams": 4, "min_length": 9, "length_penalty": 9.0, "forced_bos_token_id": 3}
    files.write_json(told / "generation_config.json", generation | changed)
    system = bart.learner(ENTRY, None, Places(backbones=tmp_path), {}, 1).eval()
    assert system.generate(CONTEXTS, max_new_tokens=5) == make().eval().generate(CONTEXTS, max_new_tokens=5)


def test_a_text_longer_than_its_positions_is_read_at_its_end_and_told_up_to_there(make):
    system = make().eval()
    long = "red blue " * 200
    nll, tokens = system.score([[long, "where is it ?"]], [long])
    assert system.lengths([[long, "where is it ?"]]) == [256] and tokens == [255]
    assert (
        system.prompts([[long, "where is it ?"]])[0][1:] == system.prompts([["hello " + long, "where is it ?"]])[0][1:]
    )


def test_an_answer_longer_than_its_positions_is_refused_before_it_begins(make):
    with pytest.raises(ValueError, match="max_new_tokens is 300: this BART has room for 254; lower it"):
        make().eval().generate(CONTEXTS[:1], max_new_tokens=300)


def test_a_harmed_folder_is_one_sentence(make, tmp_path):
    cases = [({"d_model": 64}, "does not fit config.json"), ({"encoder_layers": "two"}, "describes no model")]
    cases += [({"d_model": 10**6}, "does not fit config.json"), ({"decoder_layers": 10**4}, "holds .* tensors")]
    cases += [({"pad_token_id": 10**9}, "describes no model: Padding_idx must be within")]
    learns.is_refused_where_harmed(make, lambda folder: bart.answerer(ENTRY, folder, None), tmp_path, cases)


def test_a_backbone_that_pads_with_a_token_it_has_not_is_one_sentence(tmp_path):
    path = write_bart(tmp_path / "bart") / "config.json"
    files.write_json(path, files.read_json(path) | {"pad_token_id": 10**9})
    with pytest.raises(ValueError, match="do not fit its config.json: Padding_idx must be within"):
        bart.learner(ENTRY, None, Places(backbones=tmp_path), {}, 1)


def test_at_paper_size_it_has_the_papers_406_million_parameters():
    from transformers import AutoConfig, BartForConditionalGeneration

    _, architecture = learns.of_the_paper("bart", "bart")
    with torch.device("meta"):
        model = BartForConditionalGeneration(AutoConfig.for_model(**architecture))
    assert round(sum(value.numel() for value in model.parameters()) / 1e6) == 406


def test_its_entries_are_known_to_the_schema():
    learns.stands_in_every_preset("bart")
