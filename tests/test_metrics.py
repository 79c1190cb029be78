"""The metrics one by one: what they say of clear cases, what they refuse, and what stands in their signatures.

Published values: test_metric_gold.py; equality with plain code: test_metric_equality.py; vectors: test_metric_vectors.py.
"""

import math

import numpy as np
import pytest

from vikdf.metrics import METRICS, Answers, score, similarity, vectors, words


def values(hypotheses, references, **more):
    columns = list(map(list, zip(*references, strict=True)))
    return {name: found.value for name, found in score(Answers(hypotheses, columns, **more)).items()}


def small_table():
    known = ["the", "cat", "dog", "runs", "red", "it", "n't", "."]
    matrix = np.random.default_rng(0).normal(size=(len(known), 7)).astype(np.float32)
    mean = matrix.mean(axis=0, dtype=np.float64)
    return vectors.Vectors("small", "0" * 64, {word: row for row, word in enumerate(known)}, matrix, mean)


def test_distinct_drops_case_punctuation_and_articles_before_it_counts():
    found = values(["The cat, a cat!", "An old CAT's"], [[""], [""]])
    # cat cat | old cat s: 3 of 5 words, 3 of 3 pairs (cat cat, old cat, cat s)
    assert (found["dis1"], found["dis2"]) == (pytest.approx(60), pytest.approx(100))


def test_an_empty_answer_scores_0_and_stops_nothing():
    found = values([""], [["i am fine"]], vectors=small_table())
    assert all(found[name] == pytest.approx(0, abs=1e-3) for name in found if name != "empty") and found["empty"] == 100


def test_words_without_a_vector_have_the_mean_vector():
    found = values(["zebra"], [["giraffe"]], vectors=small_table())
    assert [found[name] for name in ("average", "extrema", "greedy")] == pytest.approx([100] * 3)


def test_of_two_values_as_far_from_0_extrema_takes_the_negative_one():
    matrix = np.array([[1, 1], [-1, 1]], dtype=np.float32)
    table = vectors.Vectors("two", "0" * 64, {"up": 0, "down": 1}, matrix, matrix.mean(axis=0, dtype=np.float64))
    assert values(["up down"], [["down"]], vectors=table)["extrema"] == pytest.approx(100)


def test_perplexity_is_that_of_the_whole_corpus_per_token_and_per_word():
    nll, tokens = np.array([6.0, 3.0]), np.array([5, 2])
    found = values(["x", "y"], [["two words"], ["and three more"]], nll=nll, tokens=tokens)
    assert found["ppl"] == pytest.approx(math.exp(9 / 7))
    assert found["ppl_per_word"] == pytest.approx(math.exp(9 / 5))


def test_metrics_whose_input_is_missing_are_left_out():
    assert set(values(["x"], [["y"]])) == {name for name, metric in METRICS.items() if not metric.needs}


def test_a_signature_names_tokenizer_vectors_and_number():
    answers = Answers(["x"], [["y"]], vectors=small_table())
    text = score(answers)["greedy"].signature
    for part in ("greedy", "tok:nltk-", "case:lower", "vectors:small@000000000000", "answers:all", "n:1"):
        assert part in text.split("|") or part in text
    assert "beta:1.2" in score(answers)["rouge_l"].signature


def test_unequal_numbers_of_lines_and_unknown_tokenizers_are_a_sentence():
    with pytest.raises(ValueError, match="2 hypotheses but 1 references"):
        Answers(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="tokenizer 'moses' is unknown"):
        Answers(["a"], [["a"]], tokenizer="moses")


def test_the_scores_come_in_one_order_the_eight_first():
    names = "ppl bleu1 bleu2 bleu3 bleu4 rouge_l average extrema greedy dis1 dis2".split()
    beside = "ead1 ead2 mean_length empty repeated rouge_l_f1 ppl_per_word similarity".split()
    assert list(METRICS) == names + beside


def test_ead_says_the_size_of_its_vocabulary():
    found = score(Answers(["red red blue", "red"], [["red green blue", "the blue red"]]))
    # N = 2 of C = 4 words; V = 3 (red, green, blue): 2 / (3 (1 - (2/3)^4))
    assert found["ead1"].value == pytest.approx(100 * 2 / (3 * (1 - (2 / 3) ** 4)))
    assert "V:3-of-references" in found["ead1"].signature.split("|")
    alone = values(["", "red"], [[""], ["red"]])
    assert (alone["ead1"], alone["ead2"]) == (100, 0)


def test_empty_and_repeated_answers_are_shares_of_all():
    found = values(["Yes .", "yes  .", "no", "", " ", "so"], [["x"]] * 6)
    assert found["empty"] == pytest.approx(100 * 2 / 6)
    assert found["repeated"] == pytest.approx(100 * 2 / 6)
    assert found["mean_length"] == pytest.approx(6 / 6)


def test_the_papers_filter_is_a_figure_beside_with_its_count():
    answers = Answers(
        ["I'm sorry, no", "fine", "a Response", "ok"],
        [["a", "fine", "c", "ok"]],
        nll=np.array([1.0, 2, 3, 4]),
        tokens=np.array([1, 1, 1, 1]),
    )
    rest, dropped = answers.without(["i'm sorry", "response"])
    assert (rest.hypotheses, rest.references, rest.nll.tolist(), dropped) == (
        ["fine", "ok"],
        [["fine", "ok"]],
        [2, 4],
        2,
    )
    parts = score(rest)["bleu1"].signature.split("|")
    assert 'answers:without["i\'m sorry", "response"],dropped:2' in parts and "n:2" in parts
    assert "answers:all" in score(answers)["bleu1"].signature.split("|")
    with pytest.raises(ValueError, match="each of the 4 answers has one of"):
        answers.without([""])


@pytest.mark.parametrize(
    "nll, tokens, references, message",
    [
        ([1.0], [0], ["word"], "there are no response tokens"),
        ([1.0], [1], [" "], "there are no words in the references"),
        ([1e6], [1], ["word"], "the NLL is 1e.06 on average"),
        ([float("nan")], [1], ["word"], "the NLL is nan on average"),
    ],
)
def test_perplexities_that_cannot_be_told_are_a_sentence(nll, tokens, references, message):
    with pytest.raises(ValueError, match=message):
        score(Answers(["x"], [references], nll=np.array(nll), tokens=np.array(tokens)))


def test_every_signature_tells_tokenizer_or_normalisation_filter_and_number():
    answers = Answers(["x"], [["y"]], vectors=small_table(), nll=np.array([1.0]), tokens=np.array([1]))
    for name, found in score(answers).items():
        parts = dict(part.partition(":")[::2] for part in found.signature.split("|")[1:])
        assert {"answers", "n", "refs", "vikdf"} <= set(parts), name
        assert set(parts) & {"tok", "norm", "per"}, name
        assert ("case" in parts) == ("tok" in parts), name
        assert ("smooth" in parts) == name.startswith("bleu"), name


def test_progress_comes_on_the_standard_error_and_only_where_it_takes_long(monkeypatch, capsys):
    monkeypatch.setattr(words, "DELAY", 600)
    score(Answers(["x"], [["y"]]))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(words, "DELAY", 0)
    score(Answers(["x"], [["y"]]))
    told = capsys.readouterr()
    assert told.out == "" and "scores: " in told.err and "n-grams: " in told.err


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A small BERT with random weights, in Hugging Face's form."""
    import torch
    from transformers import BertConfig, BertModel

    from vikdf.backbones import bert, tokenizer

    folder = tmp_path_factory.mktemp("encoder")
    own = tokenizer.train(["the red cat runs", "a dog"], 300, bert.SPECIALS, "[CLS] $A [SEP]", sep_token="[SEP]")
    torch.manual_seed(0)
    BertModel(BertConfig(**bert.config(32, 1, len(own)), pad_token_id=own.pad_token_id)).eval().save_pretrained(folder)
    own.save_pretrained(folder)
    return folder


def test_similarity_equals_plain_code_text_by_text(encoder):
    import torch

    loaded = similarity.load(encoder)
    said = ["the red cat", "", "a dog runs", "dog " * 200]
    meant = [["the cat", "x", "a dog runs", "cat"], ["red", "y", "no", "dog dog"]]
    each = Answers(said, meant, encoder=loaded).each("similarity")

    def states(text):
        ids = loaded.tokenizer(text)["input_ids"]
        ids = ids if len(ids) <= 128 else ids[:127] + ids[-1:]
        with torch.inference_mode():
            return torch.nn.functional.normalize(loaded.model(torch.tensor([ids])).last_hidden_state[0, 1:-1], dim=-1)

    for i, text in enumerate(said):
        expected = [0.0]
        for column in meant if text else []:
            cosines = states(text) @ states(column[i]).T
            p, r = cosines.amax(1).mean(), cosines.amax(0).mean()
            expected.append(float(2 * p * r / (p + r)))
        assert each[i] == pytest.approx(max(expected), abs=1e-5), text
    assert each[2] == pytest.approx(1, abs=1e-5)


def test_similarity_is_scored_where_an_encoder_is_given_and_tells_what_was_cut(encoder):
    found = score(Answers(["dog " * 200, "cat"], [["dog", "cat"]], encoder=similarity.load(encoder)))["similarity"]
    parts = found.signature.split("|")
    assert "cut:1" in parts and any(part.startswith(f"encoder:{encoder.name}@") for part in parts)
    assert 0 <= found.value <= 100 + 1e-4


def test_folders_that_are_no_safe_encoder_are_a_sentence(encoder, tmp_path):
    import shutil

    with pytest.raises(ValueError, match="is no text encoder: expected config.json"):
        similarity.load(tmp_path)
    pickled = shutil.copytree(encoder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ValueError, match="is no text encoder: expected config.json, .*safetensors"):
        similarity.load(pickled)
    damaged = shutil.copytree(encoder, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="do not fit its config.json"):
        similarity.load(damaged)
