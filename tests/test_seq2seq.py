"""Seq2Seq: it learns, reads with attention, scores what it would say, and has the paper's number of parameters."""

import learns
import pytest
import torch

from vikdf.baselines import seq2seq
from vikdf.model.words import Words
from vikdf.systems import Places

ENTRY = {"kind": "seq2seq", "tokenizer": "llm", "width": 48, "layers": 2, "dropout": 0.1, "context_tokens": 32}
CONTEXTS, RESPONSES = learns.TEN["contexts"], learns.TEN["responses"]


@pytest.fixture(scope="module")
def make(backbones):
    places = Places(backbones=backbones["llm"].parent)
    return lambda seed=1, **changed: seq2seq.learner(ENTRY | changed, None, places, {}, seed)


@pytest.fixture(scope="module")
def taught(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    return learns.overfits_ten_dialogues(lambda: make(dropout=0.0), folder, steps=150, learning_rate=0.01)


def test_training_lowers_its_loss(make, tmp_path):
    learns.lowers_loss(make, tmp_path)


def test_it_overfits_ten_dialogues_and_comes_back_from_its_folder(taught, tmp_path):
    learns.comes_back(taught, lambda folder: seq2seq.answerer(ENTRY, folder, None), tmp_path)


def test_it_resumes_bit_for_bit(make, tmp_path):
    learns.resumes(make, tmp_path)


def test_the_seed_decides_the_first_weights_and_leaves_other_random_numbers_alone(make):
    torch.manual_seed(5)
    first, drawn = learns.weights(make(1)), torch.rand(1)
    torch.manual_seed(5)
    assert drawn == torch.rand(1)
    assert learns.weights(make(1)) == first and learns.weights(make(2)) != first


def test_a_dialogue_is_scored_alike_alone_and_in_any_company(make):
    learns.scores_alike_in_any_company(make)


def test_what_it_scores_is_what_it_says_token_by_token(make):
    """The naive form: the next token of each prefix, one after another."""
    system, words = make().eval(), make().words
    memory, total = system.read(CONTEXTS[:1]), 0.0
    ids = [words.start, *words.encode(RESPONSES[:1])[0], words.end]
    for place in range(1, len(ids)):
        total -= system.step(torch.tensor([ids[:place]]), **memory).log_softmax(-1)[0, ids[place]].item()
    nll, tokens = system.nll(CONTEXTS[:1], RESPONSES[:1])
    assert nll.item() == pytest.approx(total, abs=1e-4) and tokens.item() == len(ids) - 1


def test_in_half_precision_it_scores_nearly_the_same_and_learns(make):
    system = make().eval()
    whole = learns.nll(system)
    with torch.autocast("cpu", torch.bfloat16):
        loss = system.loss(**learns.TEN)
    loss.backward()
    assert loss.item() == pytest.approx(whole, rel=0.01)
    assert all(value.grad is not None for value in system.parameters())


def test_no_state_of_the_decoder_sees_what_follows(make):
    system = make().eval()
    memory, ids = system.read(CONTEXTS[:1]), torch.randint(256, (1, 6))
    other = ids.clone()
    other[0, 4:] = 7
    ours, theirs = (system.decoder(system.embed(row), **memory) for row in (ids, other))
    assert torch.equal(ours[:, :4], theirs[:, :4]) and not torch.equal(ours[:, 4:], theirs[:, 4:])


def test_without_attention_the_taught_answers_are_lost(taught):
    """Its distinguishing part: with nothing found in what was read, the nouns are gone."""
    whole = learns.nll(taught)
    zero = taught.decoder.query.weight.detach().clone()
    try:
        taught.decoder.query.weight.data.zero_()  # it then finds the mean of all states
        assert learns.nll(taught) > whole + 0.05
    finally:
        taught.decoder.query.weight.data.copy_(zero)


def test_of_a_long_context_what_was_said_last_is_read(make):
    system = make(context_tokens=6)
    one, other = [["the red kettle " * 9, "on the tree"]], [["a vase " * 7, "yes ? " * 9, "on the tree"]]
    words = system.words
    assert system.prompts(one)[0][-4:] == [*words.encode(["on the tree"])[0], words.end]
    assert system.prompts(one)[0][3:] == system.prompts(other)[0][3:]
    assert system.lengths([["yes " * 50]]) == [8]


def test_a_control_token_in_a_text_is_read_as_its_characters(make):
    system = make()
    row = system.prompts([["hello <|end|> there"]])[0]
    assert row.count(system.words.end) == 1 and row[-1] == system.words.end


def test_a_dialogue_without_a_turn_is_an_error(make):
    with pytest.raises(ValueError, match="no turn to answer"):
        make().lengths([[]])


def test_a_harmed_folder_is_one_sentence(make, tmp_path):
    cases = [({"width": 50}, "does not fit config.json"), ({"width": "wide"}, "expected a value of type int")]
    cases += [({"width": 10**6}, "does not fit config.json"), ({"layers": 10**4}, "holds .* tensors")]
    learns.is_refused_where_harmed(make, lambda folder: seq2seq.answerer(ENTRY, folder, None), tmp_path, cases)


def test_weights_saved_in_half_precision_come_back_whole(make, tmp_path):
    from safetensors.torch import load_file, save_file

    make().save(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path)
    assert {value.dtype for value in seq2seq.answerer(ENTRY, tmp_path, None).parameters()} == {torch.float32}


def test_at_paper_size_it_has_the_papers_24_million_parameters():
    entry, architecture = learns.of_the_paper("seq2seq", "tokenizer")
    words = Words.__new__(Words)
    words.size = architecture["vocab_size"]
    with torch.device("meta"):
        system = seq2seq.Seq2Seq(words, **{name: entry[name] for name in seq2seq.NUMBERS})
    assert round(sum(value.numel() for value in system.parameters()) / 1e6) == 24


def test_its_entries_are_known_to_the_schema():
    learns.stands_in_every_preset("seq2seq")
