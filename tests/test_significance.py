"""significance and `vikdf compare`: who is compared with whom, every cell against the statistics, stars, errors, same bytes."""

import csv
import json
import re

import numpy as np
import pytest
from drawn import answers, question, questions
from scipy.stats import ttest_1samp

from vikdf import cli, schemas
from vikdf.marks import told_apart
from vikdf.significance import INTERVALS, PAIRS, SIGNIFICANCE, significance
from vikdf.statistics.corpus import SUBSAMPLED, TESTED
from vikdf.statistics.notes import below_table
from vikdf.statistics.permutation import holm
from vikdf.statistics.seeds import one_sample

SETTINGS = {"permutations": 199, "resamples": 200, "confidence": 0.95, "alpha": 0.05, "seed": 1}
SYSTEMS, CONTROLS = {"vikdf": "ours", "llm_lora": "theirs"}, {"random": "a control", "fresh": "another one"}
ROWS = [("vikdf", "zero"), ("vikdf", "full"), ("llm_lora", "zero"), ("random", "zero"), ("fresh", "zero")]


def shares(random, level, size):
    return {
        name: np.clip(random.normal(level, 0.1, size), 0, 1) for name in ("rouge_l", "average", "extrema", "greedy")
    }


@pytest.fixture
def made(tmp_path):
    """Five rows of 60 examples, vikdf-full better in ROUGE-L by a lot; of `seeds` seeds."""

    def make(seeds=1, output="results", levels=(), **settings):
        random = np.random.default_rng(1)
        levels = {("vikdf", "full"): 0.7, ("llm_lora", "zero"): 0.4} | dict(levels)
        paths = []
        for system, data in ROWS:
            for seed in range(1, seeds + 1):
                head = {"system": system, "data": data, "seed": seed}
                rows = answers(
                    random, 60, task="image_chat", **head, **shares(random, levels.get((system, data), 0.5), 60)
                )
                paths.append(tmp_path / f"{system}-{data}-s{seed}.parquet")
                schemas.write(rows, paths[-1], schemas.EXAMPLES)
        given = {"systems": SYSTEMS, "controls": CONTROLS, "statistics": SETTINGS | settings}
        significance(examples=paths, output=tmp_path / output, **given)
        return tmp_path / output

    return make


def lines(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def of(rows, **wanted):
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def test_the_columns_are_the_ones_that_tables_and_pages_read(made):
    folder = made()
    heads = {name: list(lines(folder / f"{name}.csv")[0]) for name in ("significance", "intervals", "pairs")}
    assert heads == {"significance": SIGNIFICANCE, "intervals": INTERVALS, "pairs": PAIRS}


def test_each_row_is_tested_against_the_best_row_of_another_system_of_its_block(made):
    rows = lines(made() / "significance.csv")
    assert len(rows) == len(ROWS) * len(TESTED)
    others = {(row["system"], row["data"]): (row["other"], row["other_data"]) for row in of(rows, metric="rouge_l")}
    assert others["vikdf", "zero"] == others["vikdf", "full"] == ("llm_lora", "zero")  # never its own other fraction
    assert others["llm_lora", "zero"] == ("vikdf", "full")
    assert (others["random", "zero"], others["fresh", "zero"]) == (("fresh", "zero"), ("random", "zero"))
    assert {row["block"] for row in rows if row["system"] in CONTROLS} == {"controls"}


def test_for_perplexity_the_best_other_is_the_lowest_and_better_is_lower(made):
    rows = of(lines(made() / "significance.csv"), metric="ppl")
    values = {(row["system"], row["data"]): float(row["value"]) for row in rows}
    (row,) = of(rows, system="llm_lora")
    assert float(row["other_value"]) == min(values["vikdf", "zero"], values["vikdf", "full"])
    assert [row["better"] == "yes" for row in rows] == [float(row["value"]) < float(row["other_value"]) for row in rows]


def test_a_large_difference_is_significant_and_no_difference_is_not(made):
    rows = lines(made() / "significance.csv")
    (best,) = of(rows, system="vikdf", data="full", metric="rouge_l")
    assert best["significant"] == best["better"] == "yes" and best["p"] == "0.0050"
    assert float(best["low"]) > 0 and best["t_low"] == best["p_paper"] == "" and best["seeds"] == "1"
    (worst,) = of(rows, system="llm_lora", metric="rouge_l")
    assert (worst["better"], worst["significant"], worst["p"]) == ("no", "no", "0.0050")
    assert of(rows, system="random", significant="yes") == []


def test_with_several_seeds_the_t_interval_must_leave_out_0_as_well(made):
    rows = lines(made(seeds=3) / "significance.csv")
    (best,) = of(rows, system="vikdf", data="full", metric="rouge_l")
    assert best["significant"] == "yes" and float(best["t_low"]) > 0 and best["seeds"] == "3"
    for row in rows:
        apart = row["t_low"] and (float(row["t_low"]) > 0 or float(row["t_high"]) < 0)
        small = row["p_holm"] and float(row["p_holm"]) < 0.05
        assert (row["significant"] == "yes") == bool(apart and small and row["better"] == "yes")


def test_dis_n_needs_its_subsampling_interval_too():
    line = {"metric": "dis2", "p_holm": 0.001, "low": -0.1, "high": 2.0, "t_low": None, "t_high": None}
    assert not told_apart(line, 0.05) and told_apart(line | {"low": 0.1}, 0.05)
    assert told_apart(line | {"metric": "bleu1"}, 0.05) and not told_apart(line | {"low": 0.1, "p_holm": 0.05}, 0.05)


def test_p_holm_corrects_over_the_metrics_of_a_row(made):
    rows = lines(made() / "significance.csv")
    for system, data in ROWS:
        group = of(rows, system=system, data=data)
        corrected = holm([float(row["p"]) for row in group])
        assert [float(row["p_holm"]) for row in group] == pytest.approx(corrected, abs=1e-3)


def test_the_papers_t_test_takes_the_other_mean_for_exact(made):
    assert one_sample([1.0, 2.0, 4.0], 3.5) == pytest.approx(ttest_1samp([1, 2, 4], 3.5).pvalue)
    # t = (7/3 - 3.5) / (1.527525 / sqrt(3)) = -1.322876; with 2 degrees of freedom p = 1 - |t| / sqrt(2 + t^2)
    assert one_sample([1.0, 2.0, 4.0], 3.5) == pytest.approx(0.316870, abs=1e-6)
    assert one_sample([1.0], 3.5) is None and one_sample([2.0, 2.0], 3.5) is None
    assert lines(made(seeds=2) / "significance.csv")[0]["p_paper"] != ""


def test_pairs_are_every_two_rows_once_and_intervals_every_row(made):
    folder = made()
    pairs, own = lines(folder / "pairs.csv"), lines(folder / "intervals.csv")
    assert len(pairs) == 10 * len(TESTED) and {row["metric"] for row in pairs} == set(TESTED)
    assert (pairs[0]["a"], pairs[0]["a_data"], pairs[0]["b"], pairs[0]["b_data"]) == ("vikdf", "full", "vikdf", "zero")
    assert {row["method"] for row in own if row["metric"] in SUBSAMPLED} == {"subsampling"}
    assert {row["method"] for row in own if row["metric"] not in SUBSAMPLED} == {"bootstrap"}
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in of(own, metric="rouge_l"))
    names = {row["metric"] for row in own}
    assert {"bleu4", "rouge_l_f1", "ead2", "mean_length", "empty"} <= names and "similarity" not in names


def test_the_probe_has_intervals_over_nouns_and_pairs(tmp_path):
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path, right in zip(paths, (1, 3), strict=True):
        rows = [question(n, f"n{n % 12}", n % 4 < right, held_out=n % 12 < 9) for n in range(48)]
        schemas.write(questions(rows, system=path.stem), path, schemas.EXAMPLES)
    significance(examples=paths, output=tmp_path, systems={"a": ""}, controls={}, statistics=SETTINGS)
    own, pairs = lines(tmp_path / "intervals.csv"), lines(tmp_path / "pairs.csv")
    counts = {row["metric"]: (row["task"], row["method"], row["n"]) for row in own}
    assert counts["color_accuracy_all_heldout"] == ("probe", "nouns", "9")
    assert counts["color_cloze_rank_seen"] == ("probe", "nouns", "3")
    (one,) = of(pairs, metric="color_accuracy_all_heldout")
    assert (one["a"], one["b"]) == ("a", "b") and float(one["difference"]) < 0
    assert lines(tmp_path / "significance.csv") == []


def test_a_system_without_nll_and_one_without_others_have_empty_cells(tmp_path):
    random = np.random.default_rng(2)
    silent = answers(random, 20, system="llm_lora", nll=[None] * 20, tokens=[None] * 20)
    schemas.write(silent, tmp_path / "a.parquet", schemas.EXAMPLES)
    schemas.write(answers(random, 20), tmp_path / "b.parquet", schemas.EXAMPLES)
    schemas.write(answers(random, 20, system="fresh"), tmp_path / "c.parquet", schemas.EXAMPLES)
    paths = [tmp_path / f"{name}.parquet" for name in "abc"]
    significance(examples=paths, output=tmp_path, systems=SYSTEMS, controls=CONTROLS, statistics=SETTINGS)
    rows = lines(tmp_path / "significance.csv")
    (none,) = of(rows, system="llm_lora", metric="ppl")
    assert (none["value"], none["other"], none["p"], none["significant"]) == ("", "", "", "no")
    (alone,) = of(rows, system="vikdf", metric="ppl")
    assert alone["value"] and (alone["other"], alone["p_holm"], alone["better"]) == ("", "", "no")
    assert {row["other"] for row in of(rows, system="fresh")} == {""}


def test_the_same_inputs_give_the_same_bytes(made):
    one, two = made(output="one"), made(output="two")
    for name in ("significance.csv", "intervals.csv", "pairs.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_row_that_comes_twice_is_named(tmp_path):
    for name in "ab":
        schemas.write(answers(np.random.default_rng(3), 5), tmp_path / f"{name}.parquet", schemas.EXAMPLES)
    given = {"systems": SYSTEMS, "controls": CONTROLS, "statistics": SETTINGS}
    with pytest.raises(ValueError, match=r"b.parquet and .*a.parquet both hold reddit, vikdf, zero, 1: leave one"):
        significance(examples=[tmp_path / "a.parquet", tmp_path / "b.parquet"], output=tmp_path, **given)


def test_the_notes_say_what_one_seed_does_not_say():
    assert any("trained anew" in said for said in below_table(1, SETTINGS))
    assert not any("trained anew" in said for said in below_table(3, SETTINGS))
    assert all(any("picked on the same answers" in said for said in below_table(n, SETTINGS)) for n in (1, 3))


def compared(capsys, *words):
    cli.main(["compare", *map(str, words), "--permutations", "199", "--resamples", "100"])
    return capsys.readouterr().out


def test_compare_says_of_any_two_systems_what_the_table_says(made, capsys, tmp_path):
    pairs = of(lines(made() / "pairs.csv"), a="vikdf", a_data="full", b="llm_lora")
    files = ["--a", tmp_path / "vikdf-full-s1.parquet", "--b", tmp_path / "llm_lora-zero-s1.parquet"]
    found = {row["metric"]: row for row in json.loads(compared(capsys, *files, "--json"))}
    assert list(found) == TESTED and (found["ppl"]["a"], found["ppl"]["b"]) == ("vikdf", "llm_lora")
    for row in pairs:
        assert f"{found[row['metric']]['difference']:.4f}" == row["difference"]
        assert (f"{found[row['metric']]['p']:.4f}", f"{found[row['metric']]['p_holm']:.4f}") == (
            row["p"],
            row["p_holm"],
        )
    assert (found["rouge_l"]["better"], found["rouge_l"]["significant"]) == ("a", "yes")
    page = compared(capsys, *files)
    assert "image_chat: a = vikdf (full), b = llm_lora (zero); 60 examples, seeds: 1" in page and "One seed" in page


def test_systems_that_were_scored_with_other_tools_are_not_compared(tmp_path, capsys):
    random, paths = np.random.default_rng(4), {}
    for system, tools in (
        ("vikdf", "tok:nltk-3.9|vectors:one@a1|refs:1"),
        ("fresh", "tok:nltk-3.9|vectors:two@b2|refs:1"),
    ):
        paths[system] = tmp_path / f"{system}.parquet"
        table = answers(random, 20, system=system, scored_with=[tools] * 20)
        schemas.write(table, paths[system], schemas.EXAMPLES)
    said = "vikdf (zero) (seed 1) was scored with vectors:one@a1, but {}fresh (zero) (seed 1) with vectors:two@b2: score both again"
    with pytest.raises(ValueError, match=re.escape(said.format(""))):
        significance(
            examples=list(paths.values()), output=tmp_path, systems=SYSTEMS, controls=CONTROLS, statistics=SETTINGS
        )
    assert not (tmp_path / "significance.csv").exists()
    with pytest.raises(SystemExit):
        cli.main(["compare", "--a", str(paths["vikdf"]), "--b", str(paths["fresh"])])
    told = capsys.readouterr().err
    assert said.format("b: ") in told and told.count("\n") == 1


def test_compare_names_what_cannot_be_compared(made, capsys, tmp_path):
    made(seeds=2)
    one, two = tmp_path / "vikdf-zero-s1.parquet", tmp_path / "llm_lora-zero-s2.parquet"
    for words, said in (
        (["--a", one, "--b", two], "image_chat: a: vikdf (zero) has seed 1 but b: llm_lora (zero) has seed 2"),
        (["--a", one, "--b", two, "--task", "reddit"], "no task reddit is in the tables of both"),
        (["--a", one, two, "--b", two], "--a holds vikdf (zero) and llm_lora (zero) for task image_chat"),
        (["--a", one, "--b", tmp_path / "none.parquet"], "none.parquet is missing"),
        (["--a", one, "--b", two, "--alpha", "5"], "--alpha is 5: expected a number between 0 and 1"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["compare", *map(str, words)])
        assert said in capsys.readouterr().err
