"""EXAMPLES: one row an answer; what is summed or averaged over any rows of it is their score."""

import math

import numpy as np
import pytest
from test_evaluate import HEAD, answer, asked, store, vectors  # noqa: F401 - fixtures

from vikdf import examples, probe, schemas
from vikdf.evaluate import answers_of, evaluate, written
from vikdf.metrics import bleu
from vikdf.metrics import vectors as word_vectors

WORDS = "i am fine good you are very not 🙂 a the ? . it's".split()


def talks(count: int, task: str = "reddit") -> list[dict]:
    """Answers of random words, some of them empty."""
    draw = np.random.default_rng(3)
    texts = [" ".join(draw.choice(WORDS, draw.integers(0, 9))) for _ in range(2 * count)]
    rows = zip(texts[::2], texts[1::2], draw.uniform(1, 9, count).tolist(), strict=True)
    return [answer(i, own, f"{other} ok", task, nll=nll, tokens=1 + i % 5) for i, (own, other, nll) in enumerate(rows)]


def table(tmp_path, folder, rows, name="examples", encoder=()):
    schemas.write(rows, tmp_path / "responses.parquet", schemas.RESPONSES)
    paths = {each: tmp_path / f"{each}.parquet" for each in ("responses", "output")}
    paths |= {"output_examples": tmp_path / f"{name}.parquet", "state_root": tmp_path / "state"}
    evaluate(**paths, vectors=folder, encoder=list(encoder), tokenizer="nltk")
    return schemas.read(paths["output_examples"], schemas.EXAMPLES).to_pylist()


@pytest.mark.parametrize("part", [slice(None), slice(5, 40), slice(0, None, 7)], ids=["all", "some", "every 7th"])
def test_the_scores_of_any_rows_are_reckoned_from_what_these_rows_hold(part, tmp_path, vectors):  # noqa: F811
    rows = talks(60)
    found = table(tmp_path, vectors, rows)[part]
    wanted = written(answers_of(rows[part], word_vectors.load(vectors), "nltk"))
    wanted = {each["metric"]: each["value"] for each in wanted}

    def column(name):
        return np.array([row[name] for row in found])

    counts = bleu.Counts(*(column(name) for name in ("correct", "guess", "hypothesis_words", "reference_words")))
    for order in range(1, 5):
        assert bleu.bleu(counts, order) == pytest.approx(wanted[f"bleu{order}"], abs=1e-9)
    for name in ("rouge_l", "rouge_l_f1", "average", "extrema", "greedy"):
        assert 100 * column(name).mean() == pytest.approx(wanted[name], abs=1e-6)
    assert math.exp(column("nll").sum() / column("tokens").sum()) == pytest.approx(wanted["ppl"])
    assert math.exp(column("nll").sum() / column("words").sum()) == pytest.approx(wanted["ppl_per_word"])


def test_similarity_stands_in_both_tables_where_an_encoder_is_given(tmp_path, vectors, backbones):  # noqa: F811
    found = table(tmp_path, vectors, talks(8), encoder=[backbones["bert"]])
    scores = schemas.read(tmp_path / "output.parquet", schemas.SCORES).to_pylist()
    wanted = {row["metric"]: row for row in scores}["similarity"]
    assert 100 * np.mean([row["similarity"] for row in found]) == pytest.approx(wanted["value"], abs=1e-6)
    assert "|encoder:bert@" in wanted["signature"]


def test_each_answer_is_a_row_in_the_order_of_the_answers(tmp_path, vectors):  # noqa: F811
    rows = [*talks(3), asked(0, "red", "red", [1, 2, 3]), *talks(2, "image_chat")]
    found = table(tmp_path, vectors, rows)
    for task in ("reddit", "image_chat", "probe"):
        kept = [{name: row[name] for name in examples.HEAD} for row in found if row["task"] == task]
        assert kept == [{name: row[name] for name in examples.HEAD} for row in rows if row["task"] == task]
    assert len(found) == len(rows)


def test_each_row_tells_with_what_it_was_scored_but_for_the_probes(tmp_path, vectors):  # noqa: F811
    found = table(tmp_path, vectors, [*talks(2), asked(0, "red", "red", [1, 2, 3])])
    told = {row["task"]: row["scored_with"] for row in found}
    assert told["reddit"].startswith("tok:nltk-") and "|case:lower|vectors:" in told["reddit"]
    assert told["reddit"].endswith("|unknown:mean|refs:1") and told["probe"] is None


def test_a_row_of_the_probe_tells_what_was_asked_and_what_was_found_and_no_scores(tmp_path, vectors):  # noqa: F811
    row = table(tmp_path, vectors, [asked(0, "it is blue.", "red", [2.0, 1.0, 2.0], held_out=False)])[0]
    facts = {"noun": "vase", "attribute": "color", "held_out": False, "stated": True, "right": False, "cloze_rank": 2.5}
    assert {name: row[name] for name in facts} == facts
    assert [row[name] for name in ("correct", "guess", "rouge_l", "average", "similarity")] == [None] * 5


def test_the_shares_of_the_probe_are_means_over_its_rows(tmp_path, vectors):  # noqa: F811
    replies = ["it is red.", "blue or red", "who knows?", "green", "RED!"]
    asks = [asked(i, reply, "red", [i % 3, 1.0, 2.0]) for i, reply in enumerate(replies)]
    found = table(tmp_path, vectors, asks)
    wanted = {row["metric"]: row["value"] for row in probe.measures(probe.items(asks, tmp_path))}
    stated = [row["right"] for row in found if row["stated"]]
    assert np.mean([row["stated"] for row in found]) == wanted["color_stated_heldout"]
    assert np.mean(stated) == wanted["color_accuracy_heldout"]
    assert np.mean([row["right"] for row in found]) == wanted["color_accuracy_all_heldout"]
    assert np.mean([row["cloze_rank"] for row in found]) == wanted["color_cloze_rank_heldout"]
    assert np.mean([row["cloze_rank"] == 1 for row in found]) == wanted["color_cloze_accuracy_heldout"]


def test_what_a_system_does_not_tell_is_null_and_the_row_is_there(tmp_path, vectors):  # noqa: F811
    found = table(tmp_path, vectors, [answer(0, nll=None, tokens=None), answer(1)])
    assert [row["nll"] for row in found] == [None, 3.0] and [row["tokens"] for row in found] == [None, 4]


def test_two_evaluations_give_the_same_bytes(tmp_path, vectors):  # noqa: F811
    for name in ("one", "two"):
        table(tmp_path, vectors, [*talks(40), asked(0, "red", "red")], name)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_the_columns_of_the_head_are_columns_of_both_tables():
    assert set(examples.HEAD) <= {*schemas.RESPONSES.names} & {*schemas.EXAMPLES.names} and "seed" in HEAD
