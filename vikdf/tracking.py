"""One run of one job: a journal on disk is the truth, MLflow is fed from it and may fail without harm.

In: what a job logs. Out: <folder>/journal.jsonl, flushed line by line; the same in MLflow, experiment `vikdf`.

    with tracking.Run("pretrain", "pretrain-vikdf-all-s1", params=settings, folder=state) as run:
        run.log(step, {"loss": 1.5, "tim": 0.3})
        run.artifact(output / "curves.jsonl")

The store is $MLFLOW_TRACKING_URI, or else mlflow.db in the current folder, with artifacts in mlruns/ beside it. A store
that does not answer costs one warning; `vikdf track replay` sends later what is missing, and nothing twice. A job that
was killed and goes on in the same folder from step n opens its old run again: pass `start=n`.
"""

import fcntl
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from vikdf import files

EXPERIMENT = "vikdf"
JOURNAL = "journal.jsonl"
SENT = "mlflow.json"  # the run's id, its store, and the last step that was sent of each metric
PARAMS = Path("params.yaml")  # every run keeps the file that decided it
INTERVAL = 60  # seconds between two sendings while a job runs: a person watches, the job does not wait
DENSE = 64  # this many first points of a curve are sent, then ever sparser ones: 100,000 points become 400
LONGEST = 5900  # MLflow takes values of at most 6,000 characters
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a dead server must not hold the training back
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


class Run:
    """Journal first, MLflow at intervals. A context manager: the way a job leaves it becomes the run's status."""

    def __init__(
        self,
        stage: str,
        name: str,
        params: dict,
        folder: Path,
        tags: dict[str, str] | None = None,
        store: str | None = None,
        data: dict[str, str] | None = None,
        start: int = 0,
    ):
        """`data` names each input with its digest; `start` is the first step that this try logs."""
        self.folder, self.store = Path(folder), store or default_store()
        self.broken, self.next = False, time.monotonic() + INTERVAL
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / JOURNAL
        kept = [line for line in read(self.folder) if start and line.get("step", -1) < start and "end" not in line]
        if not kept:
            close_dead(self.folder)
        head = {"stage": stage, "name": name, "params": flat(params), "data": data or {}, "time": _now()}
        head["tags"] = {"stage": stage} | _origin() | {key: str(value) for key, value in (tags or {}).items()}
        with files.whole(path) as aside:
            aside.write_text("".join(json.dumps(line) + "\n" for line in kept or [head]))
        self.journal = open(path, "a", buffering=1)  # one line, one write

    def __enter__(self) -> "Run":
        self._send()
        return self

    def log(self, step: int, values: dict[str, float]) -> None:
        values = {name: float(value) for name, value in values.items()}
        self._write({"step": int(step), "time": _now(), "values": values})
        if time.monotonic() >= self.next:
            self._send()

    def artifact(self, path: Path) -> None:
        """A file that goes into MLflow as it is at the end of the run."""
        self._write({"artifact": str(path)})

    def __exit__(self, kind, error, trace) -> None:
        status = {None: "FINISHED", KeyboardInterrupt: "KILLED"}.get(kind, "FAILED")
        self._write({"end": status, "time": _now()})
        self.journal.close()
        self._send()

    def _write(self, line: dict) -> None:
        self.journal.write(json.dumps(line) + "\n")

    def _send(self) -> None:
        if self.broken:
            return
        try:
            send(self.folder, self.store)
        except _failures() as error:
            self.broken = True
            _warn(error, self.folder)
        self.next = time.monotonic() + INTERVAL


def read(folder: Path) -> list[dict]:
    """The journal's lines; one that a kill cut short is left out."""
    path, lines = Path(folder) / JOURNAL, []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def send(folder: Path, store: str) -> None:
    """Brings the folder's MLflow run up to its journal: what was sent before is not sent again."""
    lines = read(folder)
    head, end = lines[0], next((line for line in lines if "end" in line), None)
    client, experiment = _client(store)
    sent = _sent(folder)
    if sent.get("store") != store:
        sent = {"store": store, "run": _open(client, experiment, head), "last": {}, "ended": False}
        files.write_json(folder / SENT, sent)
    elif not sent["ended"] and client.get_run(sent["run"]).info.status != "RUNNING":
        client.update_run(sent["run"], status="RUNNING")
    _send_points(client, sent, _points(lines, sent["last"], final=end is not None))
    files.write_json(folder / SENT, sent)
    if end and not sent["ended"]:
        for path in [PARAMS, *dict.fromkeys(Path(line["artifact"]) for line in lines if "artifact" in line)]:
            if path.exists():
                client.log_artifact(sent["run"], str(path))
        client.set_terminated(sent["run"], end["end"], end["time"])
        files.write_json(folder / SENT, sent | {"ended": True})


def replay(folder: Path, store: str) -> int:
    """Sends all journals below `folder` that the store does not have whole; returns how many were sent."""
    waiting = [path.parent for path in sorted(folder.rglob(JOURNAL)) if _behind(path.parent, store)]
    for run in waiting:
        send(run, store)
    return len(waiting)


def close_dead(folder: Path) -> None:
    """A run that was begun here and will not go on is shown as killed, not as running for ever."""
    sent = _sent(folder)
    (folder / SENT).unlink(missing_ok=True)
    if sent and not sent["ended"]:
        try:
            _client(sent["store"])[0].set_terminated(sent["run"], "KILLED")
        except _failures() as error:
            _warn(error, folder)


def default_store() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').resolve()}"


def flat(values: dict, prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow shows them: dotted names, short text."""
    found = {}
    for key, value in values.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)[:LONGEST]}
        found |= inner
    return found


def shown(index: int) -> bool:
    """Whether a curve's point of this index is sent: all at first, then every 2nd, 4th ..., always the same ones."""
    return index < DENSE or index % 2 ** math.ceil(math.log2((index + 1) / DENSE)) == 0


def _points(lines: list[dict], last: dict[str, int], final: bool) -> list[tuple[str, float, int, int]]:
    """(metric, value, time, step) to send; with `final` each metric's last point too."""
    curves: dict[str, dict[int, tuple]] = {}
    for line in lines:
        for name, value in line.get("values", {}).items():
            curves.setdefault(name, {})[line["step"]] = (name, value, line["time"], line["step"])
    points = []
    for name, curve in curves.items():
        for index, point in enumerate(curve.values()):
            wanted = shown(index) or (final and index == len(curve) - 1)
            if wanted and point[3] > last.get(name, -1):
                points.append(point)
    return points


def _send_points(client, sent: dict, points: list[tuple]) -> None:
    from mlflow.entities import Metric

    for first in range(0, len(points), 1000):  # the most that MLflow takes at once
        client.log_batch(sent["run"], metrics=[Metric(*point) for point in points[first : first + 1000]])
    sent["last"] |= {name: step for name, _, _, step in points}


def _open(client, experiment: str, head: dict) -> str:
    from mlflow.entities import Dataset, DatasetInput, Param

    run = client.create_run(experiment, start_time=head["time"], tags=head["tags"], run_name=head["name"]).info.run_id
    params = [Param(name, value) for name, value in head["params"].items()]
    for first in range(0, len(params), 100):
        client.log_batch(run, params=params[first : first + 100])
    data = [Dataset(name, sha[:36], "local", json.dumps({"sha256": sha})) for name, sha in head["data"].items()]
    if data:
        client.log_inputs(run, [DatasetInput(dataset) for dataset in data])
    return run


def _client(store: str):
    """MLflow's client and the experiment's id. Jobs wait for each other here: two that make a fresh store break it."""
    from mlflow import MlflowClient

    kind, _, address = store.partition("://")
    if kind == "sqlite":
        place = Path(address[1:])
        place.parent.mkdir(parents=True, exist_ok=True)
        lock, artifacts = place.with_suffix(".lock"), str(place.parent.resolve() / "mlruns")
    else:
        lock, artifacts = Path("state/tracking.lock"), None
        lock.parent.mkdir(exist_ok=True)
        if kind.startswith("postgresql"):
            _knock(store)
    with open(lock, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        client = MlflowClient(store)
        found = client.get_experiment_by_name(EXPERIMENT)
        return client, found.experiment_id if found else client.create_experiment(EXPERIMENT, artifacts)


def _knock(store: str) -> None:
    """One try at a database: MLflow itself would try a dead one for an hour."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(store)
    engine.connect().close()
    engine.dispose()


def _failures() -> tuple:
    """What a missing, full or broken store raises."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, ImportError  # the last: a database without its driver


def _sent(folder: Path) -> dict:
    return files.read_json(folder / SENT) if (folder / SENT).exists() else {}


def _behind(folder: Path, store: str) -> bool:
    sent = _sent(folder)
    return sent.get("store") != store or not sent["ended"]


def _origin() -> dict[str, str]:
    """What decided the run: the params file (runs of one file share the tag) and the commit."""
    tags = {"params_sha": files.digest(yaml.safe_load(PARAMS.read_text()))[:12]} if PARAMS.exists() else {}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    return tags | ({"mlflow.source.git.commit": commit.stdout.strip()} if commit.returncode == 0 else {})


def _warn(error: BaseException, folder: Path) -> None:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    print(
        f"MLflow did not take this run ({reason}): the work goes on, its curves are in {folder / JOURNAL}; "
        "send them later with `vikdf track replay`",
        file=sys.stderr,
    )


def _now() -> int:
    return int(time.time() * 1000)
