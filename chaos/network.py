"""Faults of what is outside: the hosts of the pictures fall silent, the tracking server is killed.

Used by chaos/faults.py. Nothing but 127.0.0.1 is asked.
"""

import contextlib
import os
import signal
import sqlite3
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from chaos import trees
from chaos.trial import CHEAP, Missed, Trial
from vikdf import tracking

TOLD = ("data/sources/failures.parquet", "data/sources/failures.txt")  # they tell which pass brought a picture
SILENT = (3.0, 6.0)  # seconds: longer than a host may be silent in the tiny preset
STARTS = 120  # seconds that the server may take before it answers
REPLAY = [sys.executable, "-m", "vikdf.cli", "track", "replay"]
SHOWN = """select name from runs join tags on tags.run_uuid = runs.run_uuid
    where tags.key = 'current' and tags.value = 'yes' and runs.status != 'RUNNING'"""


def silent_hosts(trial: Trial) -> str:
    """The world's web stops answering in the middle of the fetch, and goes on when every host has been given up once."""
    trial.tree.measure = {name: digest for name, digest in trial.tree.measure.items() if name not in TOLD}
    for _ in range(3):
        trial.tree.cut("sources", "", trial.draw)
        command = trial.tree.start(trees.snakemake(trial.tree.cores))
        while command.alive():
            if (web := _serving(command)) is not None:
                seconds = trial.draw.uniform(*SILENT)
                with contextlib.suppress(psutil.Error):
                    time.sleep(trial.draw.uniform(0, 0.5))
                    web.suspend()
                    time.sleep(seconds)
                    web.resume()
                    command.wait()
                    return f"the hosts of the pictures were silent for {seconds:.1f} s in the middle of the fetch"
            time.sleep(trees.LOOK)
    raise Missed


def _serving(command: trees.Command) -> psutil.Process | None:
    """The stage `sources`, of which the world's web is a thread, while its workers fetch from there."""
    for one in command.stages():
        with contextlib.suppress(psutil.Error):
            if "vikdf.sources" in one.cmdline():
                asked = [each for worker in one.children(recursive=True) for each in worker.net_connections("tcp")]
                if any(each.status == psutil.CONN_ESTABLISHED for each in asked):
                    return one
    return None


def tracking_server(trial: Trial) -> str:
    """A server that takes what the run tracks is killed; the run goes on, and `replay` sends the rest once it is back."""
    port, store, tree = trees.free_port(os.getpid()), trial.tree.folder / "server.db", trial.tree
    tree.env["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    with _server(store, port) as server:
        command = trial.moving(CHEAP)
        done, total = command.steps()
        server.signal(signal.SIGKILL)
        rc = command.wait()
    said = f"the tracking server was killed after {done} of {total} jobs"
    if rc != 0:
        raise trees.Lost(f"{said}, and the run ended with {rc}")
    with _server(store, port):
        for _ in range(2):  # the second time for doubles
            tree.call(REPLAY)
    with contextlib.closing(sqlite3.connect(store)) as opened:
        sent = Counter(name for (name,) in opened.execute(SHOWN))
    journals = Counter(tracking.read(path.parent)[0]["name"] for path in tree.folder.glob("state/**/journal.jsonl"))
    if sent != journals:
        raise trees.Lost(f"{said}, and after replay it had {sent - journals} too many and lacked {journals - sent}")
    return f"{said}; replay completed its store: {sent.total()} runs, none twice"


@contextlib.contextmanager
def _server(store: Path, port: int) -> Iterator[trees.Command]:
    """A real MLflow server on this machine, until the block ends or it is killed."""
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{store}", "--artifacts-destination", str(store.with_suffix(".files"))]
    command = trees.Command(words, store.parent, store.with_suffix(".txt"), {"MLFLOW_TRACKING_URI": ""})
    try:
        until = time.monotonic() + STARTS
        while time.monotonic() < until and command.alive() and not _answers(port):
            time.sleep(0.2)
        if not _answers(port):
            raise Missed
        yield command
    finally:
        command.signal(signal.SIGKILL)
        command.process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
        return True
    return False
