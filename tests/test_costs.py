"""cost.csv: what the journals say of each run, and nothing twice."""

import csv
import json
from pathlib import Path

import pytest

from vikdf import costs, files, tracking

TRAINED = {"training.micro_batch": "4", "training.accumulate": "2", "training.processes": "1"}


def lines(name="finetune-vikdf-zero-s1", began=0, params=TRAINED, ended=True, steps=5) -> list[dict]:
    """A job of a second a step."""
    head = {"stage": name.split("-")[0], "name": name, "params": params, "time": began}
    made = [head, *({"step": n, "time": began + 1000 * n, "values": {"nll": 1.0}} for n in range(1, steps + 1))]
    end = {"end": "FINISHED", "time": began + 1000 * steps, "peak_memory_mb": 900, "device": "a CPU"}
    return [*made, end] if ended else made


def journal(folder: Path, written: list[dict]) -> None:
    folder.mkdir(parents=True)
    (folder / tracking.JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in written))


def table(root: Path) -> list[dict]:
    costs.costs(state_root=root, output=root / "cost.csv")
    return list(csv.DictReader((root / "cost.csv").open()))


def test_a_run_has_its_time_steps_and_memory():
    row = costs.cost(lines())
    assert (row["seconds"], row["steps"], row["peak_memory_mb"], row["device"]) == (5, 5, 900, "a CPU")
    assert row["rows_per_second"] == 5 * 4 * 2 / 5 and row["status"] == "FINISHED"


def test_of_answers_the_rate_counts_what_was_answered_and_not_the_batches():
    written = lines("generate-vikdf-zero-s1", params={"batch": "64"})
    for line, answered in zip(written[1:-1], (10, 20, 30, 40, 50), strict=True):
        line["values"] = {"answered": answered}
    assert (costs.cost(written)["rows_per_second"], costs.cost(written)["steps"]) == (50 / 5, None)


def test_the_points_of_a_figure_are_no_steps():
    assert costs.cost(lines("figure7", params={"points.vikdf": "8"}))["steps"] is None


def test_the_pause_of_a_run_that_went_on_is_not_counted():
    first, rest = lines()[:3], lines(began=1_000_000)[3:]
    again = {"again": 1_002_000, "stopped": 2000}
    row = costs.cost([*first, again, *rest])
    assert (row["seconds"], row["stretches"], row["steps"]) == (2 + 3, 2, 5)


def test_a_real_journal_that_was_stopped_and_went_on_gives_two_stretches(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "send", lambda folder, store: None)
    clock = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(tracking, "_now", lambda: next(clock))
    for start in (0, 2):
        with (
            pytest.raises(KeyboardInterrupt),
            tracking.Run("finetune", "finetune-a-s1", TRAINED, tmp_path, start=start) as run,
        ):
            run.log(start + 1, {"nll": 1.0})
            raise KeyboardInterrupt
        next(clock), next(clock)  # nobody is at work
    row = costs.cost(tracking.read(tmp_path))
    assert (row["stretches"], row["steps"], row["status"]) == (2, 3, "KILLED")
    assert row["seconds"] < (tracking.read(tmp_path)[-1]["time"] - tracking.read(tmp_path)[0]["time"]) / 1000


def test_a_run_that_never_ended_says_so():
    row = costs.cost(lines(ended=False))
    assert (row["status"], row["seconds"], row["peak_memory_mb"]) == ("UNFINISHED", 5, None)


def test_a_backbone_counts_the_steps_and_rows_of_its_settings():
    row = costs.cost(lines("backbones-bert-all-s1", params={"steps": "10", "batch": "3"}, steps=0) + [{"time": 2000}])
    assert (row["steps"], row["rows_per_second"]) == (10, 15)


def test_of_runs_with_one_name_the_newest_counts_and_the_others_are_told(tmp_path, capsys):
    journal(tmp_path / "finetune/a", lines(began=9000, steps=2))
    journal(tmp_path / "finetune/b", lines(began=0, steps=7))
    assert [row["steps"] for row in table(tmp_path)] == ["2"]
    assert "1 older runs of the same names" in capsys.readouterr().err


def test_stages_and_runs_stand_in_the_order_in_which_they_began(tmp_path):
    names = ["pretrain-vikdf-s1", "finetune-vikdf-zero-s1", "pretrain-shuffled-s1", "evaluate-vikdf-zero-s1"]
    for place, name in enumerate(names):
        journal(tmp_path / name.split("-")[0] / str(9 - place), lines(name, began=place * 100))
    assert [row["run"] for row in table(tmp_path)] == [names[0], names[2], names[1], names[3]]


def test_without_journals_the_table_has_its_head_alone(tmp_path):
    assert table(tmp_path) == [] and (tmp_path / "cost.csv").read_text().startswith("stage,run,seconds,")


def test_a_journal_that_a_kill_left_without_its_first_line_is_no_run(tmp_path):
    journal(tmp_path / "finetune/a", lines()[1:])
    (tmp_path / "finetune/b").mkdir()
    (tmp_path / "finetune/b" / tracking.JOURNAL).write_text('{"stage": "fine')
    assert table(tmp_path) == []


def test_of_the_names_that_work_was_asked_for_by_the_last_in_time_is_its_row(tmp_path):
    journal(tmp_path / "finetune/a", lines("finetune-b"))
    files.write_json(tmp_path / "finetune/a" / tracking.ASKED, {"finetune-z": 1000, "finetune-a": 2000})
    assert [row["run"] for row in table(tmp_path)] == ["finetune-a"]


@pytest.mark.parametrize("harmed", ['{"finetune-z": "soon"}', "[[1, 2]]", "7", "null", "{", '{"finetune-z": -1}', ""])
def test_harmed_names_tell_nothing_and_the_journals_own_serves(tmp_path, harmed):
    journal(tmp_path / "finetune/a", lines("finetune-b"))
    (tmp_path / "finetune/a" / tracking.ASKED).write_text(harmed)
    assert tracking.asked(tmp_path / "finetune/a") == {}
    assert [row["run"] for row in table(tmp_path)] == ["finetune-b"]


def test_a_try_of_another_learning_rate_has_no_row_and_one_that_a_row_was_made_of_is_that_row(tmp_path, capsys):
    journal(tmp_path / "finetune/row", lines(began=9000, steps=7))
    for place, name in enumerate(["finetune-vikdf-lr2e-05-s1", "finetune-vikdf-lr0.001-s1"]):
        journal(tmp_path / name, lines(name, began=place, steps=2 + place))
    assert [(row["run"], row["steps"]) for row in table(tmp_path)] == [("finetune-vikdf-zero-s1", "7")]
    asked = {"finetune-vikdf-zero-s1": 20_000, "finetune-vikdf-lr0.001-s1": 30_000}
    (tmp_path / "finetune-vikdf-lr0.001-s1" / tracking.ASKED).write_text(json.dumps(asked))
    assert [(row["run"], row["steps"]) for row in table(tmp_path)] == [("finetune-vikdf-zero-s1", "3")]
    assert "1 older runs of the same names" in capsys.readouterr().err
