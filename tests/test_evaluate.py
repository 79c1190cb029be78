"""evaluate: one system's answers in, SCORES out; the probe counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_workflow import commands, copied

from vikdf import params, schemas
from vikdf.evaluate import evaluate
from vikdf.probe import cloze_rank, items, measures, stated_values

HEAD = {"system": "vikdf", "data": "zero", "images": "none", "seed": 1, "tuned_params": 7, "cloze": [], "probe": ""}
COLORS = ["red", "blue", "green"]


def answer(number, hypothesis="i am fine.", reference="i am good.", task="reddit", **more):
    row = {"id": f"{task}-{number}", "task": task, "context": ["how are you?"], "nll": 3.0, "tokens": 4}
    return HEAD | row | {"hypothesis": hypothesis, "reference": reference} | more


def asked(number, reply, value, cloze=(), held_out=True):
    facts = {"noun": "vase", "held_out": held_out, "attribute": "color", "value": value, "choices": COLORS}
    facts["answers"] = [f"it is {color}." for color in COLORS]
    return answer(number, reply, f"it is {value}.", task="probe", probe=json.dumps(facts), cloze=list(cloze))


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory):
    """One MLflow store for all: a fresh one takes seconds. Of this file alone: the tiny runs look for their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
        yield


@pytest.fixture
def vectors(tmp_path):
    folder = tmp_path / "vectors"
    folder.mkdir()
    np.save(folder / "vectors.npy", np.eye(3, dtype=np.float32))
    (folder / "words.txt").write_text("i\nam\nfine\n")
    return folder


def run(tmp_path, vectors, rows):
    schemas.write(rows, tmp_path / "responses.parquet", schemas.RESPONSES)
    paths = {name: tmp_path / f"{name}.parquet" for name in ("responses", "output", "output_examples")}
    evaluate(**paths, vectors=vectors, encoder=[], state_root=tmp_path / "state", tokenizer="nltk")
    return schemas.read(tmp_path / "output.parquet", schemas.SCORES).to_pylist()


def test_every_task_has_its_metrics_and_every_score_its_signature(tmp_path, vectors):
    rows = run(tmp_path, vectors, [answer(0), answer(1, task="image_chat"), asked(0, "it is red.", "red", [1, 2, 3])])
    found = {task: {row["metric"] for row in rows if row["task"] == task} for task in ("reddit", "image_chat", "probe")}
    table1 = {"ppl", "bleu1", "rouge_l", "average", "extrema", "greedy", "dis1", "dis2", "ppl_per_word"}
    assert table1 <= found["reddit"] == found["image_chat"]
    assert {"color_accuracy_heldout", "color_cloze_rank_heldout"} <= found["probe"]
    assert all(row["signature"].startswith(row["metric"] + "|") for row in rows if row["task"] != "probe")
    assert all("|n:1" in row["signature"] for row in rows)


def test_two_evaluations_give_the_same_bytes(tmp_path, vectors):
    rows = [answer(number, f"answer {number}") for number in range(20)]
    run(tmp_path, vectors, rows)
    first = (tmp_path / "output.parquet").read_bytes()
    run(tmp_path, vectors, rows)
    assert (tmp_path / "output.parquet").read_bytes() == first


def test_the_probe_counts_as_by_hand(tmp_path):
    rows = [
        asked(0, "It is RED.", "red", [1.0, 2.0, 3.0]),  # right; rank 1
        asked(1, "it is blue.", "red", [2.0, 1.0, 3.0]),  # wrong; rank 2
        asked(2, "i do not know.", "red", [3.0, 1.0, 2.0]),  # states none; rank 3
        asked(3, "red or blue.", "blue", [1.0, 1.0, 2.0]),  # two values: stated, not right; shares ranks 1 and 2
        asked(4, "it is green.", "green", [1.0, 1.0, 0.5], held_out=False),
    ]
    found = {row["metric"]: (row["value"], row["n_test"]) for row in measures(items(rows, tmp_path))}
    assert found["color_stated_heldout"] == (0.75, 4)
    assert found["color_accuracy_heldout"] == (pytest.approx(1 / 3), 4)
    assert found["color_accuracy_all_heldout"] == (0.25, 4)
    assert found["color_cloze_accuracy_heldout"] == (0.25, 4)
    assert found["color_cloze_rank_heldout"] == ((1 + 2 + 3 + 1.5) / 4, 4)
    assert found["color_floor_heldout"] == (0.75, 4)  # always "red"
    assert found["color_cloze_rank_floor_heldout"] == ((3 * 1 + 2) / 4, 4)  # red 3, blue 1, green 0
    assert found["color_accuracy_seen"] == (1.0, 1)


def test_an_accuracy_among_no_replies_is_left_out_and_not_0(tmp_path):
    found = {row["metric"]: row["value"] for row in measures(items([asked(0, "who knows?", "red")], tmp_path))}
    assert "color_accuracy_heldout" not in found and found["color_accuracy_all_heldout"] == 0
    assert "color_cloze_rank_heldout" not in found


def test_values_are_found_as_whole_words_only():
    assert stated_values("a Red, covered thing", ["red", "cover"]) == {"red"}
    assert stated_values("in the kitchen.", ["kitchen", "beach"]) == {"kitchen"}


def test_equal_choices_share_the_mean_of_their_ranks():
    assert [cloze_rank([1, 1, 1], i) for i in range(3)] == [2, 2, 2]
    assert cloze_rank([2, 1, 2], 1) == 1


def test_an_empty_table_is_named(tmp_path, vectors):
    with pytest.raises(ValueError, match=r"responses.parquet has no rows: delete it and run"):
        run(tmp_path, vectors, [])


def test_answers_of_two_systems_in_one_table_are_refused(tmp_path, vectors):
    with pytest.raises(ValueError, match="several systems"):
        run(tmp_path, vectors, [answer(0), answer(1) | {"system": "llm_lora"}])


def test_cloze_values_that_do_not_match_the_choices_are_named(tmp_path):
    with pytest.raises(ValueError, match="row probe-0: 2 cloze values for 3 choices"):
        items([asked(0, "red", "red", [1.0, 2.0])], tmp_path / "x.parquet")


def test_answers_without_nll_have_no_perplexity(tmp_path, vectors):
    rows = run(tmp_path, vectors, [answer(0, nll=None, tokens=None)])
    assert {"bleu1"} <= {row["metric"] for row in rows} and "ppl" not in {row["metric"] for row in rows}


def test_an_encoder_is_named_in_params_and_given_as_a_folder_that_is_made_before(tmp_path):
    place = copied(tmp_path / "tree", "tiny")
    values = (place / "params.yaml").read_text()
    (place / "params.yaml").write_text(values.replace("  encoder: null ", "  encoder: bert "))
    assert all(
        "--encoder data/backbones/bert --output" in said for said in commands(place, "evaluate_all")["vikdf.evaluate"]
    )


def test_an_encoder_that_no_backbone_is_called_is_named():
    values = params.load(Path("params.yaml"))
    values["evaluate"]["encoder"] = "bret"
    with pytest.raises(ValueError, match="`evaluate.encoder` is bret, but `backbones.models` .*; did you mean `bert`"):
        params.check_names(values, Path("params.yaml"))
