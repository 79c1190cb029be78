"""The budget of tuning: each try by its validation NLL, and a sentence where a system's rows are made with another rate."""

import csv

import pytest

from vikdf import files
from vikdf.means import read_csv
from vikdf.tuning import tuning


@pytest.fixture
def listed(tmp_path, capsys):
    """listed({(system, rate): NLL}, rates): the rows of tuning.csv, and what was said."""

    def call(nlls: dict, rates: dict) -> tuple[list[dict], str]:
        tried = [tmp_path / f"{system}-lr{rate}-s1" for system, rate in nlls]
        for folder, value in zip(tried, nlls.values(), strict=True):
            folder.mkdir()
            files.write_json(folder / "metrics.json", {"steps": 8, "best_step": 4, "validation_nll": value, "rows": 3})
        tuning(tried=tried, rates=rates, output=tmp_path / "tuning.csv")
        with open(tmp_path / "tuning.csv", newline="") as stream:
            return [*csv.DictReader(stream)], capsys.readouterr().err

    return call


def test_each_try_stands_with_its_nll_and_the_lowest_of_its_system_and_the_used_one_are_marked(listed):
    nlls = {("vikdf", 3e-05): 2.0, ("vikdf", 0.001): 1.5, ("llm_lora", 3e-05): 1.0, ("llm_lora", 0.001): 1.2}
    rows, said = listed(nlls, {"vikdf": 0.001, "llm_lora": 3e-05})
    assert {(row["system"], float(row["learning_rate"])): float(row["validation_nll"]) for row in rows} == nlls
    assert [row["lowest"] for row in rows] == [row["used"] for row in rows] == ["no", "yes", "yes", "no"]
    assert said == ""


@pytest.mark.parametrize("used", [0.003, 0.1], ids=["another try", "a rate that was not tried"])
def test_a_system_that_is_not_given_its_best_rate_is_named(listed, used):
    _, said = listed({("bart", 0.001): 1.0, ("bart", 0.003): 1.1}, {"bart": used})
    assert f"bart: 0.001 has the lowest validation NLL (1.0000), but its rows are made with {used:g}" in said


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="vikdf-zero-s1 is no try: expected a folder named"):
        tuning(tried=[tmp_path / "vikdf-zero-s1"], rates={}, output=tmp_path / "tuning.csv")


def test_the_table_is_read_back_as_it_was_written(listed, tmp_path):
    rows, _ = listed({("vikdf", 3e-05): 2.0, ("vikdf", 0.001): 1.5}, {"vikdf": 3e-05})
    read = read_csv(tmp_path / "tuning.csv")
    assert [(row["lowest"], row["used"]) for row in read] == [("no", "yes"), ("yes", "no")]
    assert [row["learning_rate"] for row in read] == [3e-05, 0.001] and len(rows) == 2
