"""How a fetch goes, live: the workers leave their counts in small files, the main process shows and judges them.

In: the folders of a run, one a list. Out: one bar with pictures by answers, their rate and the time that is left; and a
stop, with its sentence, where too few urls of a list give a picture.

Files, because they work alike for the processes of one machine and for those of a cluster that share its folder. The
file `go` in a run's folder says that the run goes on: without it (another run began, or this one was stopped) a worker
asks for nothing more and keeps nothing.
"""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from vikdf import files
from vikdf.corpora.download import parted

ENOUGH = 1000  # answers of a list in this run before its success rate is believed
EVERY = 1.0  # seconds between two looks
WAITING = 1 << 25  # bytes of pictures that wait to be written: img2dataset counts only the rows, a hundred


class Stopped(BaseException):
    """Not an Exception: img2dataset would take it for a shard that is worth another try."""


class Tally:
    """A worker's count of one shard's answers."""

    def __init__(self, run: Path, shard: int):
        self.go, self.path = run / "go", run / f"{shard}.counts"
        self.counts, self.told = Counter(), 0.0

    def goes_on(self) -> bool:
        return self.go.exists()

    def add(self, message: str | None) -> None:
        self.counts[parted(message or "ok")[0]] += 1
        if time.monotonic() > self.told + EVERY:
            self.tell()

    def tell(self) -> None:
        aside = self.path.with_suffix(".part")
        try:
            aside.write_text(json.dumps(self.counts))
            aside.replace(self.path)
        except FileNotFoundError:  # the run's folder is gone: so is its reader
            pass
        self.told = time.monotonic()


class Watch:
    """Looks at the runs of all lists while the block runs; `stopped` is the sentence of a stop, else empty."""

    def __init__(self, runs: dict[str, Path], total: int, label: str, min_success: float):
        self.runs, self.min_success, self.stopped = runs, min_success, ""
        self.bar = tqdm(total=total, desc=label, unit=" url", mininterval=EVERY, file=sys.stderr)
        self.over, self.thread = threading.Event(), threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()
        self.look()
        self.bar.close()

    def _watch(self) -> None:
        while not self.over.wait(EVERY):
            self.look()

    def look(self) -> None:
        counts = {name: read_counts(run) for name, run in self.runs.items()}
        every = sum(counts.values(), Counter())
        self.bar.set_postfix_str(f"{every['ok']} pictures, {share(every['ok'], every.total())}", refresh=False)
        self.bar.update(every.total() - self.bar.n)
        for name, said in counts.items():
            if not self.stopped and said.total() >= ENOUGH and said["ok"] < self.min_success * said.total():
                self.stopped = too_few(name, said, self.min_success) + "; what is whole is kept"
                for run in self.runs.values():
                    (run / "go").unlink(missing_ok=True)


def read_counts(run: Path) -> Counter:
    """The answers of a run so far by reason."""
    return sum((_counts(path) for path in sorted(run.glob("*.counts"))), Counter())


def _counts(path: Path) -> Counter:
    said = files.read_json(path)
    if not isinstance(said, dict) or not all(type(count) is int for count in said.values()):
        raise ValueError(f"{path} is damaged: run this step again")
    return Counter(said)


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def too_few(name: str, said: Counter, min_success: float) -> str:
    """The sentence of a stop: list, rate, reasons, what to change."""
    reasons = ", ".join(f"{reason} {n}" for reason, n in top(said, 4))
    return (
        f"{name}: {said['ok']} of {said.total()} urls gave a picture ({share(said['ok'], said.total())}), less than"
        f" sources.min_success = {min_success:g}; the others: {reasons}. See that this machine reaches the web and"
        " run this step again, or lower sources.min_success"
    )


def top(said: Counter, most: int) -> list[tuple[str, int]]:
    """The commonest failures first; equal ones by name."""
    failures = ((reason, n) for reason, n in said.items() if reason != "ok")
    return sorted(failures, key=lambda item: (-item[1], item[0]))[:most]


def writer_of(tally: Tally, kind: type, alive: Callable[[], None]) -> type:
    """img2dataset's writer of a shard to parquet, which also counts, holds few bytes, and closes only what is waited for."""

    class Counting(kind):
        waiting = 0

        def write(self, img_str, key, caption, meta):
            alive()
            tally.add(meta["error_message"])
            super().write(img_str, key, caption, meta)
            self.waiting += len(img_str or b"")
            if self.waiting > WAITING:
                self.buffered_parquet_writer.flush()
                self.waiting = 0

        def close(self):
            tally.tell()
            if not tally.goes_on():
                raise Stopped
            super().close()

    return Counting
