"""One run of one job: a journal on disk is the truth, MLflow is fed from it and may fail without harm.

In: what a job logs. Out: <folder>/journal.jsonl, flushed line by line; the same in MLflow, experiment `vikdf`.

    with tracking.Run("pretrain", "pretrain-vikdf-all-s1", params=settings, folder=state) as run:
        run.log(step, {"loss": 1.5, "tim": 0.3})
        run.artifact(output / "curves.jsonl")

The store is $MLFLOW_TRACKING_URI, or else mlflow.db in the current folder, with artifacts in mlruns/ beside it. A store
that does not answer costs one warning; `vikdf track replay` sends later what is missing, and nothing twice. A job that
was killed and goes on in the same folder from step n opens its old run again: pass `start=n`. The journal's last
line tells how much memory the job (its last try) took at most and on what it ran. Files for an ended run: vikdf/tracked.py.
"""

import contextlib
import fcntl
import json
import math
import os
import platform
import re
import resource
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
ASKED = "asked.json"  # by which names finished work was asked for, and when last (vikdf/state.py)
INTERVAL = 60  # seconds between two sendings while a job runs: a person watches, the job does not wait
DENSE = 64  # this many first points of a curve are sent, then ever sparser ones: 100,000 points become 400
LONGEST = 5900  # MLflow takes values of at most 6,000 characters
ABOUT = {"mlflow.note.content": "To compare, filter: `tags.stage = 'evaluate' and tags.current = 'yes'`, for example."}
TABLE = ".table.json"  # so ends a file {columns, data} that MLflow's UI shows, and compares between runs, as a table
LOADED = int(time.time() * 1000)  # when this process began, near enough
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
        began: int = 0,
    ):
        """`data` names each input with its digest; `start`: the first step of this try; `began`: when, if not now.

        Tags are params too: MLflow lines up params when runs are compared, and not tags.
        """
        self.folder, self.store = Path(folder), store or default_store()
        self.broken, self.next = False, time.monotonic() + INTERVAL
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / JOURNAL
        old = read(self.folder)
        kept = [line for line in old if start and line.get("step", -1) < start and "end" not in line]
        if kept:  # what ended, stopped by a signal, has another end to come
            kept.append({"again": _now(), "stopped": max(line.get("time", 0) for line in old)})
            if sent := sent_of(self.folder):
                files.write_json(self.folder / SENT, sent | {"ended": False, "lines": 0})
        else:
            close_dead(self.folder, self.store)
        told = {key: str(value) for key, value in (tags or {}).items()}
        shown_too = {key: value for key, value in told.items() if not key.startswith("mlflow.")} | params
        head = {"stage": stage, "name": name, "time": began or _now(), "params": flat(shown_too), "data": data or {}}
        head["tags"] = {"stage": stage, "current": "yes", "mlflow.source.name": f"vikdf.{stage}"} | _origin() | told
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
        status = {None: "FINISHED", KeyboardInterrupt: "KILLED", InterruptedError: "KILLED"}.get(kind, "FAILED")
        self._write({"end": status, "time": _now()} | _used())
        self.journal.close()
        self._send()

    def _write(self, line: dict) -> None:
        self.journal.write(json.dumps(line) + "\n")

    def _send(self) -> None:
        self.broken = self.broken or not try_send(self.folder, self.store)
        self.next = time.monotonic() + INTERVAL


def seconds(lines: list[dict]) -> float:
    """How long a journal's job ran: what lies between a stop and the next try is left out."""
    spent, times = 0, []
    for line in lines:
        if "again" in line:
            spent, times = spent + line["stopped"] - times[0], [line["again"]]
        times += [line["time"]] if "time" in line else []
    return (spent + times[-1] - times[0]) / 1000 if times else 0.0


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
    client, experiment = client_of(store)
    sent = sent_of(folder)
    if sent.get("store") != store:
        sent = {"store": store, "run": _open(client, experiment, head), "last": {}, "ended": False}
        files.write_json(folder / SENT, sent)
    elif not sent["ended"] and client.get_run(sent["run"]).info.status != "RUNNING":
        client.update_run(sent["run"], status="RUNNING")
    _send_points(client, sent, _points(lines, sent["last"], final=end is not None))
    files.write_json(folder / SENT, sent)
    if end and sent.get("lines", 0) < len(lines):
        _send_artifacts(client, sent["run"], [{"artifact": str(PARAMS)}, *lines[sent.get("lines", 0) :]])
        if not sent["ended"]:
            cost = {"seconds": seconds(lines)} | {name: end[name] for name in end if name.endswith("_mb")}
            _send_points(client, sent, [(f"cost/{name}", value, end["time"], 0) for name, value in cost.items()])
            client.set_tag(sent["run"], "device", end.get("device", "unknown"))
            client.set_terminated(sent["run"], end["end"], end["time"])
        files.write_json(folder / SENT, sent | {"ended": True, "lines": len(lines)})


def try_send(folder: Path, store: str) -> bool:
    """Sends; a store that does not take it costs one warning."""
    try:
        send(folder, store)
    except _failures() as error:
        _warn(error, folder)
        return False
    return True


def close_dead(folder: Path, store: str) -> None:
    """What was begun here and is begun anew: no longer the current run; one that did not end is shown as killed."""
    sent = sent_of(folder)
    (folder / SENT).unlink(missing_ok=True)
    if sent and (sent["store"] == store or not sent["ended"]):
        with contextlib.suppress(*_failures()):  # a store that is away, or has it no more: the new run will tell
            client = client_of(sent["store"])[0]
            client.set_tag(sent["run"], "current", "no")
            if not sent["ended"]:
                client.set_terminated(sent["run"], "KILLED")


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


def _send_artifacts(client, run: str, lines: list[dict]) -> None:
    """Every file that is still there, under its name: a second one of that name takes the first one's place."""
    paths = [Path(path) for path in dict.fromkeys(line["artifact"] for line in lines if "artifact" in line)]
    there = [path for path in paths if path.exists()]
    for path in there:
        client.log_artifact(run, str(path))
    if tables := [{"path": path.name, "type": "table"} for path in there if path.name.endswith(TABLE)]:
        client.set_tag(run, "mlflow.loggedArtifacts", json.dumps(tables))


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


def client_of(store: str):
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
        return client, found.experiment_id if found else client.create_experiment(EXPERIMENT, artifacts, ABOUT)


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


def sent_of(folder: Path) -> dict:
    return files.read_json(folder / SENT) if (folder / SENT).exists() else {}


def _used() -> dict:
    """The most memory that this process had so far, and on what it ran."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    used = {"peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)}
    torch = sys.modules.get("torch")  # a job that did not load it used no GPU
    if torch is None or not torch.cuda.is_initialized():
        return used | {"device": f"cpu: {_processor()}"}
    peak = max(torch.cuda.max_memory_allocated(gpu) for gpu in range(torch.cuda.device_count()))
    return used | {"gpu_memory_mb": round(peak / 1e6), "device": f"cuda: {torch.cuda.get_device_name()}"}


def _processor() -> str:
    info = Path("/proc/cpuinfo")  # of Linux; elsewhere Python's own word
    named = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return named[1] if named else platform.processor() or platform.machine()


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
