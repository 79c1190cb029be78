"""tables: SCORES of several systems and seeds in, Table 1 and the probe's table out."""

import csv
import json

import pytest

from vikdf import schemas, tracking
from vikdf.tables import METRICS, tables

FIXED = {"images": "none", "tuned_params": 12345, "n_test": 500, "signature": "m|vectors:glove@abc|tok:nltk-3|n:500"}
SYSTEMS, CONTROLS = {"vikdf": "the setting", "llm_lora": "text only"}, {"random": "no knowledge"}


def scores(system, data, seed, value, task="image_chat", names=(*METRICS, "ppl_per_word")):
    head = FIXED | {"task": task, "system": system, "data": data, "seed": seed}
    return [head | {"metric": name, "value": value + place} for place, name in enumerate(names)]


def probed(system, seed, value):
    names = ["color_accuracy_heldout", "color_accuracy_all_heldout", "color_floor_heldout", "place_cloze_rank_seen"]
    return scores(system, "zero", seed, value, "probe", names)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Writes the tables of these groups of scores; gives the folder."""
    monkeypatch.setattr(tracking, "send", lambda folder, store: None)

    def make(groups, output="results"):
        paths = []
        for number, rows in enumerate(groups):
            paths.append(tmp_path / f"{number}.parquet")
            schemas.write(rows, paths[-1], schemas.SCORES)
        tables(
            scores=paths,
            output=tmp_path / output,
            state_root=tmp_path / "state",
            systems=SYSTEMS,
            controls=CONTROLS,
            decoding={"beams": 3},
        )
        return tmp_path / output

    return make


def lines(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_columns_of_table_1_stand_in_the_promised_order(made):
    head = (made([scores("vikdf", "zero", 1, 1.0)]) / "table1.csv").read_text().splitlines()[0]
    promised = "task,system,data,images,tuned_params,ppl,bleu1,rouge_l,average,extrema,greedy,dis1,dis2,n_test,seeds"
    rest = "ppl_sd,bleu1_sd,rouge_l_sd,average_sd,extrema_sd,greedy_sd,dis1_sd,dis2_sd,ppl_per_word,ppl_per_word_sd"
    assert head == f"{promised},{rest}"


def test_rows_stand_by_task_then_system_then_share_of_data(made):
    groups = [scores("random", "zero", 1, 1.0), scores("llm_lora", "full", 1, 1.0), scores("new", "full", 1, 1.0)]
    groups += [scores("vikdf", data, 1, 1.0) for data in ("zero", "eighth", "full", "quarter")]
    groups += [scores("llm_lora", "full", 1, 1.0, task="reddit")]
    order = [(row["task"], row["system"], row["data"]) for row in lines(made(groups) / "table1.csv")]
    vikdf = [("image_chat", "vikdf", data) for data in ("full", "quarter", "eighth", "zero")]
    rest = [("image_chat", "llm_lora", "full"), ("image_chat", "new", "full"), ("image_chat", "random", "zero")]
    assert order == [("reddit", "llm_lora", "full"), *vikdf, *rest]


def test_means_and_spread_are_those_over_seeds(made):
    groups = [scores("vikdf", "zero", seed, value) for seed, value in ((1, 1.0), (2, 2.0), (3, 6.0))]
    row = lines(made(groups) / "table1.csv")[0]
    assert (row["ppl"], row["ppl_sd"], row["seeds"], row["n_test"]) == ("3.0000", "2.6458", "3", "500")
    assert row["ppl_per_word"] == "11.0000"


def test_one_seed_has_no_spread(made):
    assert lines(made([scores("vikdf", "zero", 1, 1.0)]) / "table1.csv")[0]["bleu1_sd"] == ""


def test_the_order_of_the_files_changes_no_byte(made):
    groups = [scores(system, "zero", seed, seed + 0.5) for system in ("vikdf", "random") for seed in (1, 2)]
    one, two = made(groups, "one"), made(groups[::-1], "two")
    for name in ("table1.csv", "table1.md", "probe.csv", "metrics.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_the_probe_has_a_row_for_each_attribute_and_kind_of_noun(made):
    rows = lines(made([probed("vikdf", 1, 0.2), probed("vikdf", 2, 0.4)]) / "probe.csv")
    assert [(row["attribute"], row["nouns"]) for row in rows] == [("color", "heldout"), ("place", "seen")]
    assert (rows[0]["accuracy"], rows[0]["accuracy_sd"], rows[0]["floor"]) == ("0.3000", "0.1414", "2.3000")
    assert rows[0]["cloze_rank"] == "" and rows[1]["cloze_rank"] == "3.3000"


def test_best_is_bold_second_italic_and_controls_stand_apart(made):
    groups = [scores("vikdf", "zero", 1, 2.0), scores("llm_lora", "zero", 1, 1.0), scores("random", "zero", 1, 0.0)]
    text = (made(groups) / "table1.md").read_text()
    main, controls = text.split("## Image-Chat: controls")
    vikdf = next(line for line in main.splitlines() if line.startswith("| vikdf"))
    assert vikdf.split(" | ")[4:6] == ["*2.00*", "**3.00**"]  # PPL: lower is better
    assert "random" not in main and "| random" in controls
    for note in ("`vikdf`: the setting", "`random`: no knowledge", "beams 3", "glove@abc", "image_chat 500"):
        assert note in text


def test_metrics_json_is_flat_numbers(made):
    found = json.loads((made([scores("vikdf", "zero", 1, 2.0), probed("vikdf", 1, 0.25)]) / "metrics.json").read_text())
    assert found["image_chat/vikdf/zero/bleu1"] == 3.0
    assert found["probe/vikdf/zero/color_accuracy_all_heldout"] == 1.25
    assert all(isinstance(value, float) for value in found.values())


def test_the_same_scores_twice_are_named(made):
    with pytest.raises(ValueError, match=r"1.parquet and .*0.parquet both hold image_chat, vikdf, zero, 1, ppl"):
        made([scores("vikdf", "zero", 1, 1.0), scores("vikdf", "zero", 1, 2.0)])


def test_seeds_that_differ_in_their_number_of_tests_are_refused(made):
    other = [row | {"n_test": 400} for row in scores("vikdf", "zero", 2, 1.0)]
    with pytest.raises(ValueError, match="vikdf on image_chat, data zero: seeds differ"):
        made([scores("vikdf", "zero", 1, 1.0), other])
