"""Tracking never decides: harmed files, second writers, dead runs, full disks, strange journals, stores made anew."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from stores import query

from vikdf import files, store, tracked, tracking

ROOT = Path(__file__).resolve().parent.parent
POINTS = "select key, value, step from metrics where key not like 'cost/%' order by key, step"


def logged(folder, steps=range(4), start=0, name="job"):
    with tracking.Run("pretrain", name, {"a": 1}, folder, start=start, data={"shards": "ab" * 32}) as run:
        for step in steps:
            run.log(step, {"loss": 1.0 / (step + 1), "tim": float(step)})


def killed(folder, steps=4) -> None:
    """A job that dies without a word, in a process of its own; what it logged was sent."""
    text = f"""
import os, signal
from vikdf import tracking
tracking.INTERVAL = 0
with tracking.Run("pretrain", "job", {{"a": 1}}, {str(folder)!r}) as run:
    for step in range({steps}):
        run.log(step, {{"loss": 1.0 / (step + 1), "tim": float(step)}})
    os.kill(os.getpid(), signal.SIGKILL)
"""
    said = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", text], env=said).returncode == -signal.SIGKILL


def replayed(place) -> int:
    return tracked.replay(place / "state", tracking.default_store())


def test_a_run_whose_id_was_lost_is_found_again_and_goes_on_without_double_points(place):
    killed(place / "state/a")
    (place / "state/a/mlflow.json").unlink()
    logged(place / "state/a", range(2, 6), start=2)
    assert query(place, "select name, status from runs") == [("job", "FINISHED")]
    expected = [("loss", 1.0 / (step + 1), step) for step in range(6)] + [
        ("tim", float(step), step) for step in range(6)
    ]
    assert query(place, POINTS) == expected


@pytest.mark.parametrize("moment", ["_describe", "_send_points", "_send_artifacts"])
def test_a_store_that_dies_after_it_made_the_run_gets_no_second_one(place, monkeypatch, moment, capsys):
    def away(*_):
        raise ConnectionError("no answer any more")

    with monkeypatch.context() as patch:
        patch.setattr(store, moment, away)
        logged(place / "state/a")
    assert capsys.readouterr().err.count("vikdf track replay") == 1
    assert (replayed(place), replayed(place)) == (1, 0)
    assert query(place, "select name, status from runs") == [("job", "FINISHED")]
    assert query(place, "select key, value from params") == [("a", "1")] and len(query(place, POINTS)) == 8
    assert query(place, "select count(*) from inputs") == [(1,)]


HARMED = [
    "",
    "{",
    '{"store":',
    '{"store": "x"}',
    "[]",
    "7",
    "null",
    '{"store": 1, "last": []}',
    "\0\0\0",
    "[" * 100_000,
]


@pytest.mark.parametrize("text", HARMED, ids=range(len(HARMED)))
def test_a_harmed_memory_of_what_was_sent_decides_nothing(place, text):
    logged(place / "state/a")
    (place / "state/a/mlflow.json").write_text(text)
    before = query(place, "select * from metrics")
    assert (replayed(place), replayed(place)) == (1, 0)
    assert query(place, "select * from metrics") == before and query(place, "select count(*) from runs") == [(1,)]
    logged(place / "state/a", name="anew")
    assert ("anew", "FINISHED") in query(place, "select name, status from runs")


def test_a_harmed_first_line_costs_no_point_and_the_work_goes_on(place, capsys):
    killed(place / "state/a")
    journal = place / "state/a" / tracking.JOURNAL
    journal.write_bytes(b"\xff" + journal.read_bytes()[1:])
    assert replayed(place) == 0 and "has no first line any more" in capsys.readouterr().err
    logged(place / "state/a", range(2, 6), start=2)
    assert sorted(query(place, "select name, status from runs")) == [("job", "FINISHED"), ("job", "KILLED")]
    assert [line["step"] for line in tracking.read(place / "state/a") if "step" in line] == list(range(6))


def test_a_second_writer_is_refused_with_a_sentence(place):
    text = f"from vikdf import tracking\ntracking.Run('x', 'second', {{}}, {str(place / 'state/a')!r}).__enter__()"
    with tracking.Run("x", "first", {}, place / "state/a"):
        said = os.environ | {"PYTHONPATH": str(ROOT)}
        second = subprocess.run([sys.executable, "-c", text], env=said, capture_output=True, text=True)
    assert second.stderr.splitlines()[-1].startswith("ValueError: ") and "by another process" in second.stderr
    assert query(place, "select name, status from runs") == [("first", "FINISHED")]


def test_replay_closes_the_dead_and_leaves_the_living_alone(place):
    killed(place / "state/dead")
    with tracking.Run("x", "alive", {}, place / "state/alive"):
        assert sorted(query(place, "select name, status from runs")) == [("alive", "RUNNING"), ("job", "RUNNING")]
        assert (replayed(place), replayed(place)) == (1, 0)
        assert sorted(query(place, "select name, status from runs")) == [("alive", "RUNNING"), ("job", "KILLED")]
    logged(place / "state/dead", range(4, 6), start=4)  # it was only stopped, and goes on
    assert sorted(query(place, "select name, status from runs")) == [("alive", "FINISHED"), ("job", "FINISHED")]
    assert len(query(place, POINTS)) == 12


def test_a_run_that_ends_while_a_replay_waits_for_its_lock_has_one_end(place, monkeypatch):
    killed(place / "state/a")
    alone = files.alone

    def late(path, *more, **how):
        if path.parent == place / "state/a":
            monkeypatch.setattr(files, "alone", alone)
            logged(place / "state/a", range(4, 6), start=4)
        return alone(path, *more, **how)

    monkeypatch.setattr(files, "alone", late)
    replayed(place)
    assert [line["end"] for line in tracking.read(place / "state/a") if "end" in line] == ["FINISHED"]
    assert query(place, "select name, status from runs") == [("job", "FINISHED")]


def test_a_job_that_goes_on_while_a_replay_sends_its_run_waits_and_ends_well(place, monkeypatch):
    killed(place / "state/a")
    job = threading.Thread(target=logged, args=(place / "state/a", range(4, 6), 4))
    bring, waited = store.bring, []

    def slow(*given):
        monkeypatch.setattr(store, "bring", bring)
        job.start()
        job.join(1)
        waited.append(job.is_alive())
        bring(*given)

    monkeypatch.setattr(store, "bring", slow)
    assert replayed(place) == 1
    job.join(60)
    assert waited == [True]
    assert query(place, "select name, status from runs") == [("job", "FINISHED")] and len(query(place, POINTS)) == 12


def test_a_replay_that_hangs_does_not_hold_a_job_up_for_good(place, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE", 0)
    with files.alone(place / "state/a" / tracking.SENDING, "a replay"):
        logged(place / "state/a")
    assert query(place, "select name, status from runs") == [("job", "FINISHED")]


def test_a_store_that_was_made_anew_gets_every_run_again(place, fresh_store):
    logged(place / "state/a")
    killed(place / "state/b")
    replayed(place)
    rows = [query(place, text) for text in (POINTS, "select key, value from params", "select name, status from runs")]
    shutil.copyfile(fresh_store, place / "mlflow.db")
    assert (replayed(place), replayed(place)) == (2, 0)
    assert [query(place, text) for text in (POINTS, "select key, value from params")] == rows[:2]
    assert sorted(query(place, "select name, status from runs")) == sorted(rows[2])


def test_a_run_that_a_person_deleted_stays_deleted(place):
    from mlflow import MlflowClient

    logged(place / "state/a")
    MlflowClient(tracking.default_store()).delete_run(store.sent_of(place / "state/a")["run"])
    (place / "state/a/mlflow.json").unlink()
    assert (replayed(place), replayed(place)) == (1, 0)
    assert query(place, "select lifecycle_stage from runs") == [("deleted",)]


LONG = {f"{'deep.' * 60}{end}": end for end in ("one", "two")}
ODD = {"a/../b": "up", "/root": "\0", "ü ä": "\ud800", "<script>": "x", "": "empty", ".": "dot", "a//b": "two"}


def test_names_and_values_that_mlflow_refuses_are_shortened_and_stay_apart(place, capsys):
    params = LONG | ODD | {"long": "x" * 9000}
    with tracking.Run("x", "n" * 400, params, place / "state/a", {"t" * 300: "v" * 9000}, data={"d" * 600: "a"}) as run:
        run.log(0, {name: 1.0 for name in (*LONG, *ODD)})
    assert capsys.readouterr().err == ""
    assert query(place, "select count(*) from params") == [(len(params) + 1,)]  # the tag is one, too
    assert query(place, "select count(*) from metrics where key not like 'cost/%'") == [(len(LONG) + len(ODD),)]


STRANGE = [
    "7", "[]", "null", '"x"', "{}", "{", '{"step": "x", "time": 1, "values": {}}', '{"step": 1, "time": 1, "values": 7}',
    '{"step": 1, "time": 1, "values": {"a": "b"}}', '{"step": 1e99, "time": 1, "values": {"a": 1.0}}', '{"end": "GONE", "time": 1}',
    f'{{"step": {10**30}, "time": 1, "values": {{"a": 1.0}}}}', '{"artifact": "\\u0000"}', '{"artifact": ["x"]}', '{"again": 1}',
    '{"stage": "x", "name": "y", "time": 1, "params": {}}', '{"step": -1, "time": 1, "values": {}}', "[" * 100_000, '{"step": 1',
    '{"artifact": "x", "time": "y"}', '{"artifact": "x", "step": "y"}',
    '{"artifact": "x", "values": 7}', '{"artifact": "x", "again": "y"}',
]  # fmt: skip


def test_lines_that_no_run_writes_are_left_out(place):
    logged(place / "state/a")
    journal = place / "state/a" / tracking.JOURNAL
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([lines[0], *STRANGE, *lines[1:]]) + "\n")
    assert tracking.read(place / "state/a") == [json.loads(line) for line in lines]
    (place / "state/a/mlflow.json").unlink()
    assert replayed(place) == 1 and len(query(place, POINTS)) == 8
    logged(place / "state/a", range(2, 6), start=2)  # a training goes on with it, too
    journal.write_text("\n".join(STRANGE))
    assert tracking.seconds(tracking.read(place / "state/a")) >= 0


def test_a_journal_that_the_store_refuses_does_not_hold_the_others_back(place, monkeypatch):
    for name in "abc":
        logged(place / "state" / name)
        (place / "state" / name / "mlflow.json").unlink()
    send = store.bring

    def bring(folder, *more):
        if folder.name == "a":
            raise ValueError("I do not like it")
        send(folder, *more)

    monkeypatch.setattr(store, "bring", bring)
    with pytest.raises(
        OSError, match=r"2 runs sent, but sqlite:.* did not take .*/a/journal.jsonl \(I do not like it\)"
    ):
        replayed(place)


def test_a_file_of_a_journal_from_elsewhere_is_not_sent(place, tmp_path_factory, capsys):
    secret = tmp_path_factory.mktemp("home") / "secret.txt"
    secret.write_text("mine")
    with tracking.Run("x", "y", {}, place / "state/a") as run:
        run.artifact(secret)
    assert "is not in this folder: it is not sent" in capsys.readouterr().err
    assert [path.name for path in (place / "mlruns").rglob("artifacts/*")] == ["params.yaml"]


def test_what_a_full_disk_does_not_take_of_the_journal_waits(place, capsys):
    with tracking.Run("x", "y", {}, place / "state/a") as run:
        sound, run.journal = run.journal, open("/dev/full", "ab", buffering=0)
        for step in range(3):
            run.log(step, {"loss": 1.0})
        run.journal.close()
        run.journal = sound  # there is room again
        run.log(3, {"loss": 1.0})
    assert capsys.readouterr().err.count("its lines wait") == 1
    assert [line["step"] for line in tracking.read(place / "state/a") if "step" in line] == [0, 1, 2, 3]


def test_a_store_that_another_job_never_lets_go_is_given_up(place, monkeypatch, capsys):
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    with files.alone(place / "mlflow.lock", "the store"):
        logged(place / "state/a")
    assert capsys.readouterr().err.count("vikdf track replay") == 1 and replayed(place) == 1


def test_a_file_that_is_no_store_any_more_costs_one_warning(place, capsys):
    (place / "mlflow.db").write_bytes(os.urandom(20_000))
    logged(place / "state/a")
    assert capsys.readouterr().err.count("vikdf track replay") == 1 and len(tracking.read(place / "state/a")) == 6
    with pytest.raises(OSError, match="does not answer"):
        replayed(place)


ANSWERS = [
    "hello",
    "{}",
    "[]",
    "7",
    '{"experiment": 7}',
    '{"experiment": {"experiment_id": []}}',
    '{"runs": "x"}',
    "\0",
]


@pytest.mark.parametrize("answer", [*ANSWERS, None], ids=[*map(str, range(len(ANSWERS))), "silence"])
def test_a_server_that_answers_nonsense_or_nothing_at_all_costs_one_warning(place, capsys, monkeypatch, answer):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if answer is None:
                over.wait(20)
            self.send_response(200)
            self.end_headers()
            self.wfile.write((answer or "").encode())

        do_POST = do_PATCH = do_GET

        def log_message(self, *_):
            pass

    over = threading.Event()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with tracking.Run("x", "y", {}, place / "state/a", store=address) as run:
            run.log(0, {"loss": 1.0})
        assert capsys.readouterr().err.count("vikdf track replay") == 1
        with pytest.raises(OSError, match="does not answer|did not take"):
            tracked.replay(place / "state", address)
        over.set()
        server.shutdown()
    assert replayed(place) == 1 and query(place, "select name, status from runs") == [("y", "FINISHED")]


def test_a_password_in_the_stores_address_is_neither_shown_nor_kept():
    assert (
        store.masked("postgresql+psycopg2://u:secret@127.0.0.1:5432/db")
        == "postgresql+psycopg2://u:***@127.0.0.1:5432/db"
    )
    said = "API request to http://anna:se@cret@host:9/api failed, see postgresql://u:secret@h/db"
    assert store.masked(said) == "API request to http://anna:***@host:9/api failed, see postgresql://u:***@h/db"
    for plain in ("sqlite:////a/b:c@d/mlflow.db", "http://127.0.0.1:5000", "https://anna@host/x"):
        assert store.masked(plain) == plain


def test_a_password_in_the_stores_address_is_in_no_warning_and_in_no_error(place, capsys):
    address = "http://anna:secret@127.0.0.1:9"
    with tracking.Run("x", "y", {}, place / "state/a", store=address) as run:
        run.log(0, {"loss": 1.0})
    with pytest.raises(OSError, match="does not answer") as told:
        tracked.replay(place / "state", address)
    said = capsys.readouterr().err
    assert "secret" not in said + str(told.value) and "anna:***@127.0.0.1:9" in said
