"""ablations and queries: SCORES of the ablated systems in, Table 3 and Figure 7 out."""

import csv

import pytest

from vikdf import schemas, tracking
from vikdf.ablations import MEASURES, ablations
from vikdf.queries import queries

FIXED = {"images": "none", "n_test": 500, "signature": "s"}
ROWS = {"VIKDF": "vikdf", "-TIM": "no_tim", "-BVIF": "no_bvif"}
ALL = list(MEASURES.values())
POINTS = {"queries_16": 16, "vikdf": 8, "queries_4": 4}


def scores(system, seed, value, tuned_params=1000, measures=ALL):
    """Each measure one higher than the one before it."""
    head = FIXED | {"system": system, "seed": seed, "tuned_params": tuned_params}
    data = {
        "reddit": "full",
        "image_chat": "zero",
        "probe": "zero",
    }  # as `generate` names what a zero-data system was tuned on
    return [
        head | {"task": task, "data": data[task], "metric": name, "value": value + i}
        for i, (task, name) in enumerate(measures)
    ]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """make(function, what it makes, groups of scores): calls it and gives the folder of its products."""
    monkeypatch.setattr(tracking, "send", lambda folder, store: None)

    def call(function, wanted, groups, seeds=(1,), output="results"):
        paths = [tmp_path / f"{number}.parquet" for number in range(len(groups))]
        for rows, path in zip(groups, paths, strict=True):
            schemas.write(rows, path, schemas.SCORES)
        name = {ablations: "table3", queries: "figure7"}[function]
        arguments = {"scores": paths, "output": tmp_path / output, "state_root": tmp_path / "state"}
        function(**arguments, seeds=list(seeds), **{name: wanted})
        return tmp_path / output

    return call


def lines(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def groups(named, **settings):
    return [scores(system, 1, float(i), **settings) for i, system in enumerate(sorted(named))]


def test_table_3_has_the_rows_in_the_order_of_the_params_and_the_values_of_each_task(make):
    rows = lines(make(ablations, ROWS, groups(ROWS.values())) / "table3.csv")
    assert [(row["method"], row["system"]) for row in rows] == list(ROWS.items())
    assert list(rows[0])[:11] == ["method", "system", "tuned_params", *MEASURES]
    vikdf = rows[0]  # the third of the sorted names: 2, and one more each measure
    assert (vikdf["reddit_ppl"], vikdf["reddit_bleu1"], vikdf["reddit_rouge_l"]) == ("2.0000", "3.0000", "4.0000")
    assert (vikdf["image_chat_bleu1"], vikdf["color_heldout"], vikdf["place_heldout"]) == ("6.0000", "8.0000", "9.0000")


def test_values_are_means_over_the_seeds_with_their_spread(make):
    made = [scores("vikdf", seed, value) for seed, value in ((1, 1.0), (2, 2.0), (3, 6.0))]
    row = lines(make(ablations, {"VIKDF": "vikdf"}, made, seeds=(1, 2, 3)) / "table3.csv")[0]
    assert (row["reddit_ppl"], row["reddit_ppl_sd"], row["seeds"]) == ("3.0000", "2.6458", "3")


def test_other_fractions_and_seeds_that_were_not_asked_for_are_left_out(make):
    full = [row | {"data": "full", "value": 99.0} for row in scores("vikdf", 1, 1.0) if row["task"] == "image_chat"]
    made = [scores("vikdf", 1, 1.0), full, scores("vikdf", 2, 99.0)]
    row = lines(make(ablations, {"VIKDF": "vikdf"}, made) / "table3.csv")[0]
    assert (row["image_chat_ppl"], row["image_chat_ppl_sd"], row["seeds"]) == ("4.0000", "", "1")


@pytest.mark.parametrize(
    ("function", "wanted"), [(ablations, ROWS), (queries, {"vikdf": 8, "no_tim": 4, "no_bvif": 2})]
)
def test_a_system_or_a_seed_that_is_missing_is_named_with_the_command_that_makes_it(make, function, wanted):
    with pytest.raises(ValueError, match="no zero-data scores of vikdf seed 1: .* run `snakemake --cores all .*csv`"):
        make(function, wanted, groups(["no_tim", "no_bvif"]))
    with pytest.raises(ValueError, match="no zero-data scores of vikdf seed 2"):
        make(function, wanted, groups(["vikdf", "no_tim", "no_bvif"]), seeds=(1, 2))


def test_a_metric_of_the_dialogues_that_is_missing_is_named(make):
    rows = [row for row in scores("vikdf", 1, 1.0) if row["task"] != "reddit"]
    with pytest.raises(ValueError, match="no zero-data reddit_ppl, reddit_bleu1, reddit_rouge_l of vikdf seed 1"):
        make(ablations, {"VIKDF": "vikdf"}, [rows])


def test_seeds_with_other_numbers_of_tuned_parameters_are_refused(make):
    made = [scores("vikdf", 1, 1.0), scores("vikdf", 2, 1.0, tuned_params=1001)]
    with pytest.raises(ValueError, match="vikdf was tuned with 1,000 and 1,001 parameters: expected one number"):
        make(ablations, {"VIKDF": "vikdf"}, made, seeds=(1, 2))


def test_without_a_probe_its_columns_are_empty_and_left_out_of_page_and_plot(make):
    dialogues = [measure for measure in MEASURES.values() if measure[0] != "probe"]
    folder = make(ablations, ROWS, groups(ROWS.values(), measures=dialogues))
    assert lines(folder / "table3.csv")[0]["color_heldout"] == ""
    assert "| colour" not in (folder / "table3.md").read_text()
    folder = make(queries, POINTS, groups(POINTS, measures=dialogues))
    assert "held-out" not in (folder / "figure7.svg").read_text()


def test_the_page_says_when_there_is_only_one_seed(make):
    text = (make(ablations, ROWS, groups(ROWS.values())) / "table3.md").read_text()
    assert "of one seed there is no spread" in text and "| -TIM | 1,000 |" in text and "±" not in text
    both = [scores(system, seed, float(seed)) for system in ROWS.values() for seed in (1, 2)]
    text = (make(ablations, ROWS, both, seeds=(1, 2)) / "table3.md").read_text()
    assert "| VIKDF | 1,000 | 1.50 ± 0.71 |" in text


def test_figure_7_stands_in_the_order_of_the_number_of_queries_with_what_each_tunes(make):
    made = [scores(system, 1, float(number), tuned_params=1000 + number) for system, number in POINTS.items()]
    rows = lines(make(queries, POINTS, made) / "figure7.csv")
    found = [(row["queries"], row["system"], row["tuned_params"], row["reddit_ppl"]) for row in rows]
    assert found == [
        ("4", "queries_4", "1004", "4.0000"),
        ("8", "vikdf", "1008", "8.0000"),
        ("16", "queries_16", "1016", "16.0000"),
    ]


def test_two_points_with_the_same_number_of_queries_are_refused(make):
    with pytest.raises(ValueError, match="queries_8 and vikdf have the same number of queries"):
        make(queries, {"queries_8": 8, "vikdf": 8}, groups(["queries_8", "vikdf"]))


def test_page_table_and_plot_are_the_same_bytes_twice_whatever_the_order_of_the_files(make):
    made = [scores(system, seed, float(seed)) for system in POINTS for seed in (1, 2)]
    one, two = (make(queries, POINTS, part, (1, 2), name) for part, name in ((made, "one"), (made[::-1], "two")))
    for name in ("figure7.csv", "figure7.svg"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    made = [scores(system, seed, float(seed)) for system in ROWS.values() for seed in (1, 2)]
    one, two = (make(ablations, ROWS, part, (1, 2), name) for part, name in ((made, "one"), (made[::-1], "two")))
    for name in ("table3.csv", "table3.md"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_several_seeds_give_the_points_of_figure_7_their_bars(make):
    one = make(queries, POINTS, groups(POINTS)) / "figure7.svg"
    without = one.read_text()
    both = [scores(system, seed, float(seed)) for system in POINTS for seed in (1, 2)]
    withal = (make(queries, POINTS, both, seeds=(1, 2)) / "figure7.svg").read_text()
    assert "one seed" in without and "LineCollection" not in without
    assert "2 seeds, bars: one standard deviation" in withal and "LineCollection" in withal
