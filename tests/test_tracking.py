"""Tracking: the journal is the truth, MLflow gets it whole, once, and may be away; of scores it shows answers too."""

import json
import sqlite3

import pytest
from stores import query

from vikdf import files, schemas, shown, store, tracked, tracking


def test_a_run_reaches_mlflow_whole(place):
    (place / "table1.csv").write_text("task\n")
    params, data = {"batch": 4, "loss": {"tim": 0.5}, "long": "x" * 9000}, {"shards": "ab" * 32}
    with tracking.Run("pretrain", "pretrain-vikdf-all-s1", params, place / "state", {"seed": 1}, data=data) as run:
        for step in range(3):
            run.log(step, {"loss": 1.0 / (step + 1)})
        run.artifact(place / "table1.csv")
    assert query(place, "select name, status from runs") == [("pretrain-vikdf-all-s1", "FINISHED")]
    assert query(place, "select step, value from metrics where key = 'loss' order by step") == [
        (0, 1.0),
        (1, 0.5),
        (2, 1 / 3),
    ]
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
    assert tracked.replay(place / "state", tracking.default_store()) == 1
    assert tracked.replay(place / "state", tracking.default_store()) == 0
    assert query(place, "select count(*) from runs") == [(1,)]
    assert query(place, "select step, value from metrics where key = 'loss' order by step") == [(0, 2.0), (1, 1.0)]


def test_a_killed_run_goes_on_as_the_same_run_without_double_points(place):
    first = tracking.Run("pretrain", "killed", {}, place / "state").__enter__()
    for step in range(4):
        first.log(step, {"loss": float(step)})
    first._send()  # what the interval does; then the process dies: no end is written
    first.journal.write(b'{"step": 9, "va')
    first.held.close()
    with tracking.Run("pretrain", "killed", {}, place / "state", start=2) as again:
        for step in range(2, 6):
            again.log(step, {"loss": float(step)})
    assert query(place, "select name, status from runs") == [("killed", "FINISHED")]
    assert [row[0] for row in query(place, "select step from metrics where key = 'loss' order by step")] == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]
    steps = [line["step"] for line in tracking.read(place / "state") if "step" in line]
    assert steps == [0, 1, 2, 3, 4, 5]


def test_a_run_that_a_signal_stopped_is_shown_as_killed_and_ends_well_when_it_goes_on(place):
    (place / "curves.jsonl").write_text("{}\n")
    with pytest.raises(InterruptedError), tracking.Run("pretrain", "stopped", {}, place / "state") as run:
        run.log(0, {"loss": 2.0})
        run.log(1, {"loss": 1.5})
        raise InterruptedError("stopped by SIGTERM")
    assert query(place, "select status from runs") == [("KILLED",)]
    with tracking.Run("pretrain", "stopped", {}, place / "state", start=2) as again:
        again.log(2, {"loss": 1.0})
        again.artifact(place / "curves.jsonl")
    assert query(place, "select name, status from runs") == [("stopped", "FINISHED")]
    assert query(place, "select value from metrics where key = 'loss' order by step") == [(2.0,), (1.5,), (1.0,)]
    assert {path.name for path in (place / "mlruns").rglob("artifacts/*")} == {"params.yaml", "curves.jsonl"}


def test_the_time_between_a_stop_and_the_next_try_is_not_counted():
    lines = [{"stage": "pretrain", "time": 1000}, {"step": 1, "time": 3000, "values": {}}]
    lines += [{"again": 60_000, "stopped": 4000}, {"step": 2, "time": 61_000, "values": {}}]
    lines += [{"end": "FINISHED", "time": 62_000}, {"artifact": "report.html", "sha256": ""}]
    assert tracking.seconds(lines) == 3 + 2
    assert tracking.seconds(lines[:2]) == 2 and tracking.seconds([]) == 0


def test_the_end_of_the_journal_tells_memory_and_device_and_mlflow_shows_them(place):
    with tracking.Run("tables", "tables", {}, place / "state"):
        pass
    end = tracking.read(place / "state")[-1]
    assert 20 < end["peak_memory_mb"] < 100_000 and end["device"].startswith(("cpu: ", "cuda: "))
    shown = dict(query(place, "select key, value from metrics"))
    assert shown["cost/peak_memory_mb"] == end["peak_memory_mb"] and 0 <= shown["cost/seconds"] < 600
    assert ("device", end["device"]) in query(place, "select key, value from tags")


def test_what_tags_say_stands_among_the_params_too_where_runs_are_compared(place):
    tags = {"system": "vikdf", "seed": 1, "mlflow.note.content": "about"}
    with tracking.Run("finetune", "x", {"steps": 3}, place / "state", tags):
        pass
    assert dict(query(place, "select key, value from params")) == {"system": "vikdf", "seed": "1", "steps": "3"}


def test_an_ended_run_gets_more_files_each_once(place, capsys):
    with tracking.Run("tables", "tables", {}, place / "state"):
        pass
    report = place / "report.html"
    for text in ("first", "first", "second", "second"):
        report.write_text(text)
        tracked.add(place / "state", [report])
    assert [path.read_text() for path in (place / "mlruns").rglob("report.html")] == ["second"]
    assert sum("artifact" in line for line in tracking.read(place / "state")) == 2
    assert tracked.replay(place / "state", tracking.default_store()) == 0
    assert query(place, "select name, status from runs") == [("tables", "FINISHED")] and capsys.readouterr().err == ""


def test_files_for_an_ended_run_wait_for_a_store_that_is_away(place, capsys):
    (place / "wall").write_text("a file where the store's folder should be")
    (place / "report.html").write_text("page")
    away = f"sqlite:///{place}/wall/mlflow.db"
    with tracking.Run("tables", "tables", {}, place / "state", store=away):
        pass
    tracked.add(place / "state", [place / "report.html"], away)
    assert capsys.readouterr().err.count("vikdf track replay") == 2
    assert tracked.replay(place / "state", tracking.default_store()) == 1
    assert [path.read_text() for path in (place / "mlruns").rglob("report.html")] == ["page"]
    assert tracked.replay(place / "state", tracking.default_store()) == 0


def test_a_file_without_an_ended_run_is_named(place, capsys):
    (place / "report.html").write_text("page")
    tracked.add(place / "state", [place / "report.html"])
    assert "report.html: not in MLflow" in capsys.readouterr().err


def test_a_run_of_long_ago_without_its_tag_and_with_another_memory_of_what_was_sent_is_found_again(place):
    with tracking.Run("tables", "old", {"a": 1}, place / "state") as run:
        run.log(0, {"loss": 1.0})
    with sqlite3.connect(place / "mlflow.db") as old:
        old.execute("delete from tags where key = 'journal'")
    (place / "state/mlflow.json").write_text('{"store": "x", "run": "y", "last": {}, "ended": true}')
    before = query(place, "select * from metrics"), query(place, "select * from params")
    assert tracked.replay(place / "state", tracking.default_store()) == 1
    assert query(place, "select name, status from runs") == [("old", "FINISHED")]
    assert (query(place, "select * from metrics"), query(place, "select * from params")) == before


def test_a_run_begun_anew_closes_the_dead_one(place):
    tracking.Run("pretrain", "dead", {}, place / "state").__enter__()
    with tracking.Run("pretrain", "alive", {}, place / "state"):
        pass
    assert query(place, "select name, status from runs order by name") == [("alive", "FINISHED"), ("dead", "KILLED")]


def test_of_runs_that_were_done_again_the_last_one_is_the_current_one(place):
    for name in ("first", "second"):
        with tracking.Run("evaluate", name, {}, place / "state"):
            pass
    found = (
        "select name, value from runs join tags on tags.run_uuid = runs.run_uuid where key = 'current' order by name"
    )
    assert query(place, found) == [("first", "no"), ("second", "yes")]


def test_a_run_that_the_store_lost_does_not_hold_the_next_one_back(place, capsys):
    with tracking.Run("evaluate", "lost", {}, place / "state"):
        pass
    files.write_checked(place / "state/mlflow.json", store.sent_of(place / "state") | {"run": "0" * 32})
    with tracking.Run("evaluate", "next", {}, place / "state"):
        pass
    assert ("next", "FINISHED") in query(place, "select name, status from runs") and capsys.readouterr().err == ""


def test_a_run_that_fails_is_shown_as_failed(place):
    with pytest.raises(ValueError), tracking.Run("pretrain", "bad", {}, place / "state"):
        raise ValueError("no")
    assert query(place, "select status from runs") == [("FAILED",)]


def test_long_curves_are_thinned_to_at_most_500_points_and_short_ones_are_whole():
    assert all(store.shown(index) for index in range(store.DENSE))
    assert 200 < sum(map(store.shown, range(100_000))) <= 500


def test_the_journal_is_readable_line_by_line(place):
    with tracking.Run("pretrain", "x", {"a": 1}, place / "state") as run:
        run.log(3, {"loss": 1})
    lines = [json.loads(text) for text in (place / "state/journal.jsonl").read_text().splitlines()]
    assert lines[0]["params"] == {"a": "1"} and lines[1]["step"] == 3 and lines[-1]["end"] == "FINISHED"


HEAD = {"system": "vikdf", "data": "zero", "images": "none", "seed": 1, "tuned_params": 7, "n_test": 3}
SCORES = [
    HEAD | {"task": "reddit", "metric": "ppl", "value": 1.5, "signature": "ppl|n:3"},
    HEAD | {"task": "reddit", "metric": "bleu1", "value": 40.25, "signature": "bleu1|n:3"},
    HEAD | {"task": "probe", "metric": "color_accuracy_all_heldout", "value": 0.75, "signature": "accuracy_all|n:3"},
]
ODD = '<script>alert(1)</script> \U0001f600 \u2028 "quoted"'


def example(task: str, number: int, **values) -> dict:
    empty = dict.fromkeys(schemas.EXAMPLES.names)
    fixed = {"id": f"{task}-{number}", "task": task, "system": "vikdf", "data": "zero", "seed": 1}
    texts = {"context": ["hello.", "a desk?"], "reference": "it is blue.", "hypothesis": ODD, "nll": 1.23456789}
    return empty | fixed | texts | values


def tracked_run(place, examples: list[dict]) -> None:
    schemas.write(examples, place / "examples/vikdf-zero-s1.parquet", schemas.EXAMPLES)
    (place / "responses.parquet").write_bytes(b"answers")
    (place / "vikdf-zero-s1.parquet").write_bytes(b"scores")
    shown.track(
        scores=SCORES,
        inputs={"responses": place / "responses.parquet"},
        settings={"tokenizer": "nltk"},
        output=place / "vikdf-zero-s1.parquet",
        examples=place / "examples/vikdf-zero-s1.parquet",
        state_root=place / "state",
    )


@pytest.fixture
def run(place):
    probed = {"noun": "desk", "attribute": "color", "held_out": True, "stated": True, "right": False}
    rows = [example("reddit", number) for number in range(shown.ROWS + 50)]
    tracked_run(place, [*rows, *(example("probe", number, **probed) for number in range(3))])
    return place


def test_every_metric_and_its_signature_is_in_one_run_a_system_fraction_and_seed(run):
    assert query(run, "select name, status from runs") == [("evaluate-vikdf-zero-s1", "FINISHED")]
    values = dict(query(run, "select key, value from metrics where key not like 'cost/%'"))
    assert values == {f"{row['task']}/{row['metric']}": row["value"] for row in SCORES}
    params = dict(query(run, "select key, value from params"))
    signatures = {f"signature/{row['task']}/{row['metric']}": row["signature"] for row in SCORES}
    assert signatures.items() <= params.items() and params["tokenizer"] == "nltk"
    tags = dict(query(run, "select key, value from tags"))
    found = [tags[name] for name in ("stage", "task", "system", "fraction", "seed")]
    assert found == ["evaluate", "probe reddit", "vikdf", "zero", "1"] and tags["params_sha"]


def test_the_examples_are_there_whole_and_as_tables_that_mlflow_itself_reads(run):
    from mlflow import MlflowClient

    client = MlflowClient(tracking.default_store())
    (identity,) = query(run, "select run_uuid from runs")[0]
    experiment = client.get_run(identity).info.experiment_id
    answers = client.load_table(experiment, "answers.table.json", [identity])
    assert len(answers) == shown.ROWS and list(answers.columns) == shown.WRITTEN
    assert answers.hypothesis[0] == ODD and answers.context[0] == "hello.\na desk?" and answers.nll[0] == 1.2346
    assert len(client.load_table(experiment, "probe.table.json", [identity])) == 3
    whole = next((run / "mlruns").rglob("examples.parquet"))
    assert whole.read_bytes() == (run / "examples/vikdf-zero-s1.parquet").read_bytes()
    assert next((run / "mlruns").rglob("scores.parquet")).read_bytes() == b"scores"


def test_a_system_that_was_not_asked_about_looks_has_no_table_of_the_probe(tmp_path):
    schemas.write([example("reddit", 0)], tmp_path / "examples.parquet", schemas.EXAMPLES)
    made = shown.tables(tmp_path / "examples.parquet", tmp_path)
    assert [path.name for path in made] == ["answers.table.json"]
    assert json.loads(made[0].read_text())["data"][0][0] == "reddit-0"


def test_the_first_page_of_a_run_shows_the_metrics_of_table_1_by_task():
    lines = shown.note(SCORES).splitlines()
    assert lines[0].startswith("| task | ppl | bleu1 |") and lines[2].startswith("| reddit | 1.50 | 40.25 |  |")
    assert "color 0.75" in lines[4]
