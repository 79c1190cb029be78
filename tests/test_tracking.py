"""Tracking: the journal is the truth, MLflow gets it whole, once, and may be away."""

import json
import sqlite3

import pytest

from vikdf import tracking


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").write_text("seeds: [1]\n")
    return tmp_path


def query(place, text):
    with sqlite3.connect(place / "mlflow.db") as store:
        return store.execute(text).fetchall()


def test_a_run_reaches_mlflow_whole(place):
    (place / "table1.csv").write_text("task\n")
    params, data = {"batch": 4, "loss": {"tim": 0.5}, "long": "x" * 9000}, {"shards": "ab" * 32}
    with tracking.Run("pretrain", "pretrain-vikdf-all-s1", params, place / "state", {"seed": 1}, data=data) as run:
        for step in range(3):
            run.log(step, {"loss": 1.0 / (step + 1)})
        run.artifact(place / "table1.csv")
    assert query(place, "select name, status from runs") == [("pretrain-vikdf-all-s1", "FINISHED")]
    assert query(place, "select step, value from metrics order by step") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert ("loss.tim", "0.5") in query(place, "select key, value from params")
    tags = dict(query(place, "select key, value from tags"))
    assert tags["stage"] == "pretrain" and tags["seed"] == "1" and tags["params_sha"]
    assert query(place, "select name, digest from datasets") == [("shards", ("ab" * 32)[:36])]
    artifacts = {path.name for path in (place / "mlruns").rglob("artifacts/*")}
    assert artifacts == {"params.yaml", "table1.csv"}


def test_a_store_that_is_away_never_stops_the_work_and_replay_sends_it_once(place, capsys):
    (place / "wall").write_text("a file where the store's folder should be")
    with tracking.Run("finetune", "away", {}, place / "state/a", store=f"sqlite:///{place}/wall/mlflow.db") as run:
        run.log(0, {"loss": 2.0})
        run.log(1, {"loss": 1.0})
    assert capsys.readouterr().err.count("vikdf track replay") == 1
    assert [line["values"]["loss"] for line in tracking.read(place / "state/a") if "values" in line] == [2.0, 1.0]
    assert tracking.replay(place / "state", tracking.default_store()) == 1
    assert tracking.replay(place / "state", tracking.default_store()) == 0
    assert query(place, "select count(*) from runs") == [(1,)]
    assert query(place, "select step, value from metrics order by step") == [(0, 2.0), (1, 1.0)]


def test_a_killed_run_goes_on_as_the_same_run_without_double_points(place):
    first = tracking.Run("pretrain", "killed", {}, place / "state")
    for step in range(4):
        first.log(step, {"loss": float(step)})
    first._send()  # what the interval does; then the process dies: no end is written
    first.journal.write('{"step": 9, "va')
    first.journal.close()
    with tracking.Run("pretrain", "killed", {}, place / "state", start=2) as again:
        for step in range(2, 6):
            again.log(step, {"loss": float(step)})
    assert query(place, "select name, status from runs") == [("killed", "FINISHED")]
    assert [row[0] for row in query(place, "select step from metrics order by step")] == [0, 1, 2, 3, 4, 5]
    steps = [line["step"] for line in tracking.read(place / "state") if "step" in line]
    assert steps == [0, 1, 2, 3, 4, 5]


def test_a_run_begun_anew_closes_the_dead_one(place):
    tracking.Run("pretrain", "dead", {}, place / "state").__enter__()
    with tracking.Run("pretrain", "alive", {}, place / "state"):
        pass
    assert query(place, "select name, status from runs order by name") == [("alive", "FINISHED"), ("dead", "KILLED")]


def test_a_run_that_fails_is_shown_as_failed(place):
    with pytest.raises(ValueError), tracking.Run("pretrain", "bad", {}, place / "state"):
        raise ValueError("no")
    assert query(place, "select status from runs") == [("FAILED",)]


def test_long_curves_are_thinned_to_at_most_500_points_and_short_ones_are_whole():
    assert all(tracking.shown(index) for index in range(tracking.DENSE))
    assert 200 < sum(map(tracking.shown, range(100_000))) <= 500


def test_the_journal_is_readable_line_by_line(place):
    with tracking.Run("pretrain", "x", {"a": 1}, place / "state") as run:
        run.log(3, {"loss": 1})
    lines = [json.loads(text) for text in (place / "state/journal.jsonl").read_text().splitlines()]
    assert lines[0]["params"] == {"a": "1"} and lines[1]["step"] == 3 and lines[-1]["end"] == "FINISHED"
