"""tables: SCORES of several systems and seeds in, Table 1 and the probe's table out."""

import csv
import functools
import json

import pytest
import small_tables
from small_tables import METRICS, probed, scores, verdict

from vikdf import tracking


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "send", lambda folder, store: None)
    return functools.partial(small_tables.made, tmp_path)


def lines(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_columns_of_table_1_stand_in_the_promised_order(made):
    head = (made([scores("vikdf", "zero", 1, 1.0)]) / "table1.csv").read_text().splitlines()[0]
    promised = "task,system,data,images,tuned_params,ppl,bleu1,rouge_l,average,extrema,greedy,dis1,dis2,n_test,seeds"
    rest = "ppl_sd,bleu1_sd,rouge_l_sd,average_sd,extrema_sd,greedy_sd,dis1_sd,dis2_sd,ppl_per_word,ppl_per_word_sd"
    more = ["ead1", "ead2", "mean_length", "empty", "repeated", "rouge_l_f1", "similarity"]
    assert head == ",".join([promised, rest, *more, *(f"{name}_sd" for name in more)])


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


def test_every_form_of_the_table_prints_what_the_csv_rounds_to(made):
    folder = made([scores("vikdf", "zero", 1, 0.24496)])  # BLEU-1 is 1.24496, in the csv 1.2450
    printed = f"{float(lines(folder / 'table1.csv')[0]['bleu1']):.2f}"
    for name in ("table1.md", "table1.tex"):
        row = next(line for line in (folder / name).read_text().splitlines() if "vikdf" in line and "zero" in line)
        assert printed in row, name


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


def test_a_star_stands_where_significance_csv_says_so_and_nowhere_else(made):
    groups = [scores("vikdf", "zero", 1, 2.0), scores("llm_lora", "zero", 1, 1.0)]
    verdicts = [verdict("vikdf", "zero", "bleu1", significant="yes"), verdict("vikdf", "zero", "dis2")]
    text = (made(groups, verdicts=verdicts) / "table1.md").read_text()
    vikdf = next(line for line in text.splitlines() if line.startswith("| vikdf"))
    assert [cell for cell in vikdf.split(" | ") if "\\*" in cell] == ["**3.00**\\*"]


def test_a_dagger_marks_what_only_the_paper_s_test_calls_significant(made):
    groups = [
        scores(system, "zero", seed, at + seed) for system, at in (("vikdf", 2.0), ("llm_lora", 1.0)) for seed in (1, 2)
    ]
    verdicts = [verdict("vikdf", "zero", "bleu1", p_paper=0.01), verdict("vikdf", "zero", "rouge_l", p_paper=0.2)]
    text = (made(groups, verdicts=verdicts) / "table1.md").read_text()
    vikdf = next(line for line in text.splitlines() if line.startswith("| vikdf"))
    assert [cell for cell in vikdf.split(" | ") if "†" in cell] == ["**4.50**† ± 0.71"]


def test_with_one_seed_the_notes_say_what_a_star_does_not_say(made):
    one = (made([scores("vikdf", "zero", 1, 2.0)], "one") / "table1.md").read_text()
    two = (made([scores("vikdf", "zero", seed, 2.0) for seed in (1, 2)], "two") / "table1.md").read_text()
    said = "does not say that the method would win again when trained anew"
    assert said in one and said not in two


def test_the_interval_of_every_value_stands_below(made):
    groups = [scores("vikdf", "zero", seed, 2.0) for seed in (1, 2)]
    text = (made(groups) / "table1.md").read_text().split("## Intervals")[1]
    assert "| vikdf | zero | examples | 1.50 to 2.50 | 2.50 to 3.50 |" in text
    assert "| vikdf | zero | seeds | 0.50 to 3.50 |" in text


def test_a_system_that_tells_no_nll_has_no_ppl_and_the_notes_say_why(made):
    told = [row for row in scores("new", "zero", 1, 9.0) if row["metric"] not in ("ppl", "ppl_per_word")]
    folder = made([scores("vikdf", "zero", 1, 2.0), told])
    assert [row["ppl"] for row in lines(folder / "table1.csv")] == ["2.0000", ""]
    text = (folder / "table1.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| new"))
    assert row.split(" | ")[4:6] == ["-", "**10.00**"]
    assert "`new` is asked through an interface that tells answers alone" in text


def test_a_system_that_was_left_out_is_named_below_and_nowhere_else(made):
    why = "not set in the environment: OPENAI_API_KEY"
    folder = made([scores("vikdf", "zero", 1, 2.0)], left_out={"chatgpt": why})
    for name in ("table1.md", "table1.tex"):
        assert [line.count("chatgpt") for line in (folder / name).read_text().splitlines() if "chatgpt" in line] == [1]
    assert f"- Left out: `chatgpt`, {why}. No number stands in its place." in (folder / "table1.md").read_text()
    assert "chatgpt" not in (folder / "table1.csv").read_text()


def test_every_signature_stands_below_once(made):
    text = (made([scores("vikdf", "zero", 1, 2.0), scores("llm_lora", "zero", 1, 2.0)]) / "table1.md").read_text()
    assert text.count("- image_chat: `m|vectors:glove@abc|tok:nltk-3|n:500`") == 9


def test_new_metrics_stand_behind_the_promised_columns(made):
    more = scores("vikdf", "zero", 1, 5.0, names=("ead1", "mean_length"))
    row = lines(made([scores("vikdf", "zero", 1, 1.0), more]) / "table1.csv")[0]
    assert (row["ead1"], row["mean_length"], row["ead2"], row["similarity"]) == ("5.0000", "6.0000", "", "")


def test_statistics_of_other_answers_are_refused(made):
    def other(ranges):
        ranges[1]["value"] += 0.01

    with pytest.raises(
        ValueError, match=r"bleu1 of vikdf on image_chat, data zero is 2.0000 .* 2.0100 in .*intervals.csv"
    ):
        made([scores("vikdf", "zero", 1, 1.0)], spoil=other)


def test_a_row_that_the_statistics_do_not_know_is_named(made):
    with pytest.raises(
        ValueError, match=r"ppl of vikdf on image_chat, data zero is 1.0000 .* not there in .*intervals.csv"
    ):
        made([scores("vikdf", "zero", 1, 1.0)], spoil=lambda ranges: ranges.pop(0))


def test_a_system_without_perplexity_has_a_dash_and_no_mark(made):
    groups = [scores("vikdf", "zero", 1, 2.0), scores("llm_lora", "zero", 1, 1.0, names=METRICS[1:])]
    text = (made(groups) / "table1.md").read_text()
    assert next(line for line in text.splitlines() if line.startswith("| llm_lora")).split(" | ")[4] == "-"
    assert next(line for line in text.splitlines() if line.startswith("| vikdf")).split(" | ")[4] == "2.00"


def test_a_metric_that_some_seeds_lack_is_refused(made):
    groups = [scores("vikdf", "zero", 1, 2.0), scores("vikdf", "zero", 2, 1.0, names=METRICS)]
    with pytest.raises(ValueError, match="only 1 of 2 seeds have ppl_per_word"):
        made(groups)


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
