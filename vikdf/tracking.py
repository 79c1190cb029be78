"""One run of one job: a journal on disk is the truth, MLflow is fed from it and may fail without harm.

In: what a job logs. Out: <folder>/journal.jsonl, flushed line by line; the same in MLflow, experiment `vikdf`.

    with tracking.Run("pretrain", "pretrain-vikdf-all-s1", params=settings, folder=state) as run:
        run.log(step, {"loss": 1.5, "tim": 0.3})
        run.artifact(output / "curves.jsonl")

The store is $MLFLOW_TRACKING_URI, or else mlflow.db in the current folder, with artifacts in mlruns/ beside it. A store
that does not answer costs one warning and is asked again later; `vikdf track replay` sends what is missing, and nothing
twice. A job that was killed and goes on in the same folder from step n opens its old run again: pass `start=n`. The
journal's last line tells how much memory the job (its last try) took at most and on what it ran. MLflow's side is
vikdf/store.py; files for an ended run: vikdf/tracked.py.
"""

import contextlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import yaml

from vikdf import files, store

JOURNAL = "journal.jsonl"
LOCK = "journal.lock"  # held by the one process that writes
PARAMS = Path("params.yaml")  # every run keeps the file that decided it
SENDING = "sending.lock"  # held by the same process, and else by a replay for the moments in which it sends
ASKED = "asked.json"  # by which names finished work was asked for, and when last (vikdf/state.py)
KINDS = {"stage", "values", "again", "end", "artifact"}  # each line has one of these keys, and no other of them
INTERVAL = 60  # seconds between two sendings while a job runs: a person watches, the job does not wait
AWAY = 600  # seconds until a store that did not answer is asked again
LOADED = int(time.time() * 1000)  # when this process began, near enough


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
        self.folder, self.address, self.start = Path(folder), store or default_store(), start
        told = {key: str(value) for key, value in (tags or {}).items()}
        shown_too = {key: value for key, value in told.items() if not key.startswith("mlflow.")} | params
        self.head = {"stage": stage, "name": name, "time": began or _now(), "params": flat(shown_too)}
        self.head["data"] = data or {}
        self.head["tags"] = {"stage": stage, "current": "yes", "mlflow.source.name": f"vikdf.{stage}"}
        self.head["tags"] |= _origin() | told
        self.unwritten, self.broken, self.next = b"", False, 0.0

    def __enter__(self) -> "Run":
        with contextlib.ExitStack() as held:
            held.enter_context(files.alone(self.folder / LOCK, f"{self.folder / JOURNAL}"))
            with contextlib.suppress(ValueError):  # a replay that hangs holds no work up for good
                held.enter_context(store.in_turn(self.folder / SENDING))
            lines = self._kept(read(self.folder)) or [self.head]
            with files.whole(self.folder / JOURNAL) as aside:
                aside.write_text("".join(json.dumps(line) + "\n" for line in lines))
            self.journal = held.enter_context(open(self.folder / JOURNAL, "ab", buffering=0))  # one line, one write
            self.held = held.pop_all()
        self._send()
        return self

    def _kept(self, old: list[dict]) -> list[dict]:
        """What stays of an earlier try: all before the step from which this one goes on, and a line that says so."""
        kept = [line for line in old if self.start and line.get("step", -1) < self.start and "end" not in line]
        times = [line["time"] for line in old if "time" in line]
        begun = old[0] if old and "stage" in old[0] else None
        if kept and not begun and times:  # the first line was harmed: the points are worth keeping, in another run
            kept = [self.head | {"time": min(times)}, *kept]
        if not kept or not begun:
            store.close(self.folder, begun, self.address)
        elif sent := store.sent_of(self.folder):
            files.write_checked(self.folder / store.SENT, sent | {"ended": False, "lines": 0, "last": None})
        return [*kept, {"again": _now(), "stopped": max(times)}] if kept and times else []

    def log(self, step: int, values: dict[str, float]) -> None:
        values = {name: float(value) for name, value in values.items()}
        self._write({"step": int(step), "time": _now(), "values": values})
        if time.monotonic() >= self.next:
            self._send()

    def artifact(self, path: Path) -> None:
        """A file that goes into MLflow as it is at the end of the run."""
        self._write({"artifact": str(path)})

    def __exit__(self, kind, error, trace) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | InterruptedError)
        status = "FINISHED" if kind is None else "KILLED" if stopped else "FAILED"
        self._write({"end": status, "time": _now()} | _used())
        with self.held:
            if not self.broken or time.monotonic() >= self.next:
                self._send()

    def _write(self, line: dict) -> None:
        """Appends a line; what a full disk does not take waits for the next one: what stops is the checkpoint, not this."""
        said, self.unwritten = bool(self.unwritten), self.unwritten + json.dumps(line).encode() + b"\n"
        try:
            while self.unwritten:
                self.unwritten = self.unwritten[self.journal.write(self.unwritten) :]
        except OSError as error:
            if not said:
                print(f"{self.folder / JOURNAL} cannot be written ({error.strerror}): its lines wait", file=sys.stderr)

    def _send(self) -> None:
        self.broken = not try_send(self.folder, self.address, quiet=self.broken)
        self.next = time.monotonic() + (AWAY if self.broken else INTERVAL)


def seconds(lines: list[dict]) -> float:
    """How long a journal's job ran: what lies between a stop and the next try is left out."""
    spent, times = 0, []
    for line in lines:
        if "again" in line:
            spent, times = spent + (line["stopped"] - times[0] if times else 0), [line["again"]]
        times += [line["time"]] if "time" in line else []
    return (spent + times[-1] - times[0]) / 1000 if times else 0.0


def read(folder: Path) -> list[dict]:
    """The journal's lines; one that a kill cut short, or that no run writes, is left out."""
    path, lines = Path(folder) / JOURNAL, []
    for text in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            lines += [line] if _sound(line) and not (lines and "stage" in line) else []
    return lines


def append(folder: Path, lines: list[dict]) -> None:
    """Adds lines to the journal of an ended run; one that a kill cut short stays a line of its own."""
    path = Path(folder) / JOURNAL
    cut = not path.read_bytes().endswith(b"\n")
    with open(path, "ab", buffering=0) as journal:
        journal.write(b"\n" * cut + b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def asked(folder: Path) -> dict[str, int]:
    """The names that work was asked for by, and when last; a harmed file tells nothing."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        said = files.read_json(Path(folder) / ASKED)
        return {name: when for name, when in said.items() if _counts(when)} if isinstance(said, dict) else {}
    return {}


def _sound(line) -> bool:
    """Whether a run writes such a line: what a bad disk or a stranger wrote is never sent."""
    if not isinstance(line, dict) or len(KINDS & line.keys()) != 1:
        return False
    if not _counts(*(line[key] for key in ("step", "time") if key in line)):
        return False
    match line:
        case {"stage": str(), "name": str(), "time": int(when), "params": dict()}:
            told = [line["params"], line.get("tags", {}), line.get("data", {})]
            texts = all(
                isinstance(part, dict) and all(isinstance(text, str) for text in part.values()) for part in told
            )
            return texts and _counts(when)
        case {"step": int(step), "time": int(when), "values": dict(values)}:
            return _counts(step, when) and all(isinstance(value, float) for value in values.values())
        case {"again": int(again), "stopped": int(stopped)}:
            return _counts(again, stopped)
        case {"end": "FINISHED" | "FAILED" | "KILLED", "time": int(when)}:
            used = {key: value for key, value in line.items() if key.endswith("_mb")}
            return _counts(when, *used.values()) and isinstance(line.get("device", ""), str)
        case {"artifact": str(path)}:
            return "\0" not in path
    return False


def _counts(*values) -> bool:
    return all(isinstance(value, int) and 0 <= value < 2**53 for value in values)


def send(folder: Path, address: str) -> None:
    """Brings the folder's MLflow run up to its journal: what was sent before is not sent again."""
    lines = read(folder)
    store.bring(folder, lines, address, seconds(lines), [PARAMS])


def try_send(folder: Path, address: str, quiet: bool = False) -> bool:
    """Sends; a store that does not take it costs one warning."""
    try:
        send(folder, address)
    except store.FAILED as error:
        if not quiet:
            _warn(error, folder)
        return False
    return True


def default_store() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').resolve()}"


def flat(values: dict, prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow shows them: dotted names, short text."""
    found = {}
    for key, value in values.items():
        inner = (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)[: store.VALUE]}
        )
        found |= inner
    return found


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


def reason(error: BaseException) -> str:
    """An error's first line, or its name; MLflow's own tell the address whole."""
    return store.masked(str(error).splitlines()[0]) if str(error) else type(error).__name__


def _warn(error: BaseException, folder: Path) -> None:
    print(
        f"MLflow did not take this run ({reason(error)}): the work goes on, its curves are in {folder / JOURNAL}; "
        "send them later with `vikdf track replay`",
        file=sys.stderr,
    )


def _now() -> int:
    return int(time.time() * 1000)
