"""evidence: paired t-intervals over seeds, calculated by hand here."""

import csv

import pytest

from vikdf import schemas, tracking
from vikdf.evidence import METRICS, evidence
from vikdf.statistics.seeds import t_interval

FIXED = {"images": "none", "tuned_params": 1, "n_test": 500, "signature": "s", "data": "zero"}
CONTRASTS = {"vision": {"a": "vikdf", "b": "llm_lora", "question": "Is it vision?"}}


def scores(system, seed, value, metrics=METRICS):
    head = FIXED | {"system": system, "seed": seed}
    return [head | {"task": task, "metric": name, "value": value} for task, name in metrics]


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "send", lambda folder, store: None)

    def make(groups, output="results", seeds=(1, 2, 3)):
        for number, rows in enumerate(groups):
            schemas.write(rows, tmp_path / f"{number}.parquet", schemas.SCORES)
        paths = [tmp_path / f"{number}.parquet" for number in range(len(groups))]
        arguments = {"seeds": list(seeds), "contrasts": CONTRASTS, "confidence": 0.95}
        evidence(scores=paths, output=tmp_path / output, state_root=tmp_path / "state", **arguments)
        return tmp_path / output

    return make


def lines(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def groups(a=(0.5, 0.7, 0.9), b=(0.1, 0.2, 0.6)):
    pairs = [("vikdf", a), ("llm_lora", b)]
    return [scores(system, seed, value) for system, values in pairs for seed, value in enumerate(values, 1)]


def test_the_interval_is_the_one_calculated_by_hand():
    # mean 2, standard deviation 1, t(0.975; 2) = 4.302653: 2 -+ 4.302653 / sqrt(3)
    assert t_interval([1.0, 2.0, 3.0], 0.95) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert t_interval([1.0], 0.95) == (None, None)


def test_a_contrast_is_paired_by_seed(made):
    row = next(row for row in lines(made(groups()) / "evidence.csv") if row["contrast"])
    # differences 0.4 0.5 0.3: mean 0.4, standard deviation 0.1, half 4.302653 * 0.1 / sqrt(3) = 0.248414
    assert (row["contrast"], row["a"], row["b"]) == ("vision", "vikdf", "llm_lora")
    assert (row["mean_a"], row["mean_b"]) == ("0.7000", "0.3000")
    assert (row["difference"], row["low"], row["high"], row["seeds"]) == ("0.4000", "0.1516", "0.6484", "3")
    assert (row["excludes_zero"], row["favours"]) == ("yes", "vikdf")


def test_where_lower_is_better_the_lower_side_is_favoured(made):
    favours = {row["metric"]: row["favours"] for row in lines(made(groups()) / "evidence.csv") if row["contrast"]}
    assert favours["ppl"] == favours["place_cloze_rank_heldout"] == "llm_lora"
    assert favours["bleu1"] == favours["place_cloze_accuracy_heldout"] == "vikdf"


def test_an_interval_with_zero_favours_neither(made):
    row = next(row for row in lines(made(groups(a=(0.1, 0.9, 0.3))) / "evidence.csv") if row["contrast"])
    assert (row["excludes_zero"], row["favours"]) == ("no", "neither")


def test_each_systems_own_mean_and_each_value_are_there(made):
    folder = made(groups())
    own = [row for row in lines(folder / "evidence.csv") if not row["contrast"]]
    assert {row["a"] for row in own} == {"vikdf", "llm_lora"} and len(own) == 2 * len(METRICS)
    values = lines(folder / "evidence_seeds.csv")
    assert len(values) == 2 * 3 * len(METRICS)
    assert {row["value"] for row in values if row["system"] == "vikdf"} == {"0.5000", "0.7000", "0.9000"}


def test_a_seed_in_which_nothing_is_stated_is_not_counted(made):
    few = [(task, name) for task, name in METRICS if name != "color_accuracy_heldout"]
    rows = lines(made(groups()[:-1] + [scores("llm_lora", 3, 0.6, few)]) / "evidence.csv")
    counts = {row["metric"]: row["seeds"] for row in rows if row["contrast"]}
    assert counts["color_accuracy_heldout"] == "2" and counts["color_accuracy_all_heldout"] == "3"


def test_a_missing_seed_or_system_is_named(made):
    with pytest.raises(ValueError, match="no zero-data scores of llm_lora seed 4, vikdf seed 4"):
        made(groups(), seeds=(1, 2, 3, 4))
    with pytest.raises(ValueError, match="contrast vision: no scores of 'llm_lora'; there are: vikdf"):
        made(groups()[:3])


def test_the_plot_and_the_page_are_the_same_bytes_twice(made):
    one, two = made(groups(), "one"), made(groups(), "two")
    for name in ("evidence.svg", "evidence.md", "evidence.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert "vision" in (one / "evidence.svg").read_text() and "Is it vision?" in (one / "evidence.md").read_text()
