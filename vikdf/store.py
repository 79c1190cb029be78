"""MLflow's side of a run: found there by what its journal says, or made; then it gets what it lacks, nothing twice.

In: a journal's lines (vikdf/tracking.py) and a store's address. Out: the run in that store, experiment `vikdf`.

    store.bring(folder, lines, "http://127.0.0.1:5000", seconds=12.5, also=[Path("params.yaml")])

A run is known by the moment at which it began and by its tag `journal`, the digest of the journal's first line: so neither
a reply that was lost nor a lost mlflow.json makes a second one, and a store that was made anew gets all again.
"""

import contextlib
import json
import math
import os
import posixpath
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vikdf import files

EXPERIMENT = "vikdf"
SENT = "mlflow.json"  # which run of which store, and the last step sent of each metric; harmed, the store is asked
TURN = Path("state/tracking.lock")  # jobs of one tree speak to a server in turn
PATIENCE = 300  # seconds to wait for that turn: a fresh store takes its maker a while
DENSE = 64  # this many first points of a curve are sent, then ever sparser ones: 100,000 points become 400
NAME, VALUE, TAG = 250, 5900, 7900  # characters: MLflow takes 250 of a name, 6,000 of a param and 8,000 of a tag
ABOUT = {"mlflow.note.content": "To compare, filter: `tags.stage = 'evaluate' and tags.current = 'yes'`, for example."}
TABLE = ".table.json"  # so ends a file {columns, data} that MLflow's UI shows, and compares between runs, as a table
# What a store that is away, full, broken or none at all lets MLflow raise, whose own and whose libraries' errors have no common
# name (of protobuf, alembic, requests ...): none of it ends the work, and each is told in a warning.
FAILED = Exception
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a dead server must not hold the training back
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


def bring(folder: Path, lines: list[dict], address: str, seconds: float, also: list[Path]) -> None:
    """Brings the run of a journal up to its lines; when it ended, it gets the files that they name, and `also`."""
    head, end = lines[0], next((line for line in lines if "end" in line), None)
    with opened(address) as (client, experiment):
        run = _found(client, experiment, head) or _made(client, experiment, head)
    known = {"store": masked(address), "journal": files.digest(head), "run": run.info.run_id}
    sent = sent_of(folder)
    if not known.items() <= sent.items():
        sent = known | {"last": None, "ended": False, "lines": 0}
    if run.info.lifecycle_stage == "deleted":  # by a person: so it stays
        files.write_checked(folder / SENT, sent | {"ended": True, "lines": len(lines)})
        return
    if sent["last"] is None:  # another try, or an answer that was lost: the store knows how far it came
        _describe(client, sent["run"], head)
        sent["last"] = _last(client, run)
    if not end and run.info.status != "RUNNING":
        client.update_run(sent["run"], status="RUNNING")
    for_good = end is not None and end["end"] == "FINISHED"  # what was stopped goes on, and has another end to come
    _send_points(client, sent, _points(lines, sent["last"], for_good))
    if end and not sent["ended"]:
        _send_end(client, sent, end, seconds if for_good else None)
    files.write_checked(folder / SENT, sent | {"ended": end is not None})
    if end and sent["lines"] < len(lines):
        _send_artifacts(client, sent["run"], [*also, *_named(lines[sent["lines"] :])])
        files.write_checked(folder / SENT, sent | {"ended": True, "lines": len(lines)})


def close(folder: Path, head: dict | None, address: str) -> None:
    """What was begun here and is begun anew: no longer the current run; one that did not end is shown as killed."""
    sent = sent_of(folder)
    (folder / SENT).unlink(missing_ok=True)
    here = sent.get("store", masked(address)) == masked(address)
    if not (sent or head) or not here and sent["ended"]:
        return
    with contextlib.suppress(FAILED):  # a store that is away, or has it no more: the new run will tell
        with opened(address if here else sent["store"]) as (client, experiment):
            found = client.get_run(sent["run"]) if sent else _found(client, experiment, head)
        if found:
            client.set_tag(found.info.run_id, "current", "no")
            if found.info.status == "RUNNING":
                client.set_terminated(found.info.run_id, "KILLED")


def sent_of(folder: Path) -> dict:
    """What is known of the folder's run in its store; nothing of a harmed file, or one of an older form: the store is asked."""
    try:
        return files.read_checked(folder / SENT)
    except (ValueError, FileNotFoundError):
        return {}


def masked(address: str) -> str:
    """An address, or a text with some, as it is shown and kept: without a password."""
    return re.sub(r"(\w[\w+]*://[^/:@\s]*):[^/\s]*@", r"\1:***@", address)


def runs(address: str) -> set[str]:
    """The ids of all runs that the store has, and of those that a person deleted there."""
    from mlflow.entities import ViewType

    found, token = set(), None
    with opened(address) as (client, experiment):
        while True:
            page = client.search_runs([experiment], run_view_type=ViewType.ALL, max_results=1000, page_token=token)
            found |= {run.info.run_id for run in page}
            token = page.token
            if not token:
                return found


def shown(index: int) -> bool:
    """Whether a curve's point of this index is sent: all at first, then every 2nd, 4th ..., always the same ones."""
    return index < DENSE or index % 2 ** math.ceil(math.log2((index + 1) / DENSE)) == 0


def name(text: str) -> str:
    """A name as MLflow takes it: itself where it may be; else what may stand of it, and its digest, so that two stay two."""
    if re.fullmatch(r"[\w\- :][/\w.\- :]*", text) and posixpath.normpath(text) == text and len(text) <= NAME:
        return text
    return re.sub(r"[^\w\- ]", "_", text)[: NAME - 10] + "-" + files.digest(text)[:8]


def printed(text: str, most: int) -> str:
    """A text that every database takes: no half of a character, no NUL, and not too long."""
    return text.encode(errors="replace").decode().replace("\0", "")[:most]


def _points(lines: list[dict], last: dict[str, int], for_good: bool) -> list[tuple[str, float, int, int]]:
    """(metric, value, time, step) to send; of a run that ended for good each metric's last point too."""
    curves: dict[str, dict[int, tuple]] = {}
    for line in lines:
        for metric, value in line.get("values", {}).items():
            curves.setdefault(name(metric), {})[line["step"]] = (name(metric), value, line["time"], line["step"])
    points = []
    for metric, curve in curves.items():
        for index, point in enumerate(curve.values()):
            wanted = shown(index) or (for_good and index == len(curve) - 1)
            if wanted and point[3] > last.get(metric, -1):
                points.append(point)
    return points


def _last(client, run) -> dict[str, int]:
    """The last step that the store has of each metric."""
    steps = {metric: client.get_metric_history(run.info.run_id, metric) for metric in run.data.metrics}
    return {metric: max(point.step for point in history) for metric, history in steps.items()}


def _named(lines: list[dict]) -> list[Path]:
    """The files that a journal names; one outside of this folder would be a stranger's wish, and is said instead."""
    paths = [Path(path) for path in dict.fromkeys(line["artifact"] for line in lines if "artifact" in line)]
    inside = [path for path in paths if path.resolve().is_relative_to(Path.cwd())]
    for path in set(paths) - set(inside):
        print(f"{path} is not in this folder: it is not sent to MLflow", file=sys.stderr)
    return inside


def _send_artifacts(client, run: str, paths: list[Path]) -> None:
    """Every file that is still there, under its name: a second one of that name takes the first one's place."""
    there = [path for path in paths if path.exists()]
    for path in there:
        client.log_artifact(run, str(path))
    if tables := [{"path": path.name, "type": "table"} for path in there if path.name.endswith(TABLE)]:
        client.set_tag(run, "mlflow.loggedArtifacts", json.dumps(tables))


def _send_end(client, sent: dict, end: dict, seconds: float | None) -> None:
    if seconds is not None:
        cost = {"seconds": seconds} | {key: end[key] for key in end if key.endswith("_mb")}
        _send_points(client, sent, [(f"cost/{key}", value, end["time"], 0) for key, value in cost.items()])
    client.set_tag(sent["run"], "device", printed(end.get("device", "unknown"), TAG))
    client.set_terminated(sent["run"], end["end"], end["time"])


def _send_points(client, sent: dict, points: list[tuple]) -> None:
    from mlflow.entities import Metric

    for first in range(0, len(points), 1000):  # the most that MLflow takes at once
        client.log_batch(sent["run"], metrics=[Metric(*point) for point in points[first : first + 1000]])
    sent["last"] |= {metric: step for metric, _, _, step in points}


def _found(client, experiment: str, head: dict):
    """The run of this journal, deleted or not; None where the store has none. Those of long ago have no tag."""
    from mlflow.entities import ViewType

    digest = files.digest(head)
    for run in client.search_runs([experiment], f"attributes.start_time = {head['time']}", ViewType.ALL):
        if run.info.run_name == printed(head["name"], NAME) and run.data.tags.get("journal", digest) == digest:
            return run
    return None


def _made(client, experiment: str, head: dict):
    tags = {name(key): printed(value, TAG) for key, value in head.get("tags", {}).items()}
    tags |= {"journal": files.digest(head)}
    return client.create_run(experiment, head["time"], tags, printed(head["name"], NAME))


def _describe(client, run: str, head: dict) -> None:
    """Its params and data; what is there already is left alone."""
    from mlflow.entities import Dataset, DatasetInput, Param

    params = [Param(name(key), printed(value, VALUE)) for key, value in head["params"].items()]
    for first in range(0, len(params), 100):  # the most that MLflow takes at once
        client.log_batch(run, params=params[first : first + 100])
    data = [
        Dataset(name(key), sha[:36], "local", json.dumps({"sha256": sha})) for key, sha in head.get("data", {}).items()
    ]
    if data:
        client.log_inputs(run, [DatasetInput(dataset) for dataset in data])


@contextlib.contextmanager
def opened(address: str) -> Iterator[tuple]:
    """MLflow's client and the experiment's id, in turn with other jobs: two that make a fresh store break it."""
    from mlflow import MlflowClient

    kind, _, rest = address.partition("://")
    if kind == "sqlite":
        place = Path(rest[1:])
        place.parent.mkdir(parents=True, exist_ok=True)
        turn, artifacts = place.with_suffix(".lock"), str(place.parent.resolve() / "mlruns")
    else:
        turn, artifacts = TURN, None
        turn.parent.mkdir(exist_ok=True)
        if kind.startswith("postgresql"):
            _knock(address)
    with in_turn(turn):
        client = MlflowClient(address)
        found = client.get_experiment_by_name(EXPERIMENT)
        yield client, found.experiment_id if found else client.create_experiment(EXPERIMENT, artifacts, ABOUT)


@contextlib.contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    """Waits for the others, but not for ever: one of them may hang."""
    held, until = contextlib.ExitStack(), time.monotonic() + PATIENCE
    while True:
        try:
            held.enter_context(files.alone(lock, str(lock)))
            break
        except ValueError:  # half a second has passed
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    with held:
        yield


def _knock(address: str) -> None:
    """One try at a database: MLflow itself would try a dead one for an hour."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(address, connect_args={"connect_timeout": 5})
    engine.connect().close()
    engine.dispose()
