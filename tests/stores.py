"""Stores for tests: what a sqlite file holds; real servers on 127.0.0.1 that are killed, `mlflow server` and PostgreSQL."""

import contextlib
import http.client
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def query(place: Path, text: str) -> list[tuple]:
    """What the store in mlflow.db answers."""
    with sqlite3.connect(place / "mlflow.db") as store:
        return store.execute(text).fetchall()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A program that listens on a port; `start` waits until it answers, `kill` is SIGKILL for all its processes."""

    def __init__(self, words: list[str], port: int, folder: Path, ready: str = "/health", **how):
        self.words, self.port, self.folder, self.ready, self.how = words, port, folder, ready, how

    def start(self) -> "Server":
        with open(self.folder / "server.log", "a") as log:
            said = {"stdout": log, "stderr": log, "cwd": self.folder, "start_new_session": True}
            self.process = subprocess.Popen(self.words, **said | self.how)
        until = time.monotonic() + 120
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < until, (self.folder / "server.log").read_text()
            time.sleep(0.1)
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return asked(self.port, self.ready)[0] == 200
        return False

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Door:
    """A port before a server that can be shut at once, as if the server had died: the quick form of killing it."""

    def __init__(self, inner: int):
        self.inner, self.port, self.lines = inner, free_port(), []

    def start(self) -> "Door":
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._open, args=(self.listener,), daemon=True).start()
        return self

    def _open(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # shut
            while True:
                outer, _ = listener.accept()
                pair = outer, socket.create_connection(("127.0.0.1", self.inner))
                self.lines += pair
                for one, other in (pair, pair[::-1]):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        for line in (self.listener, *self.lines):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()
        self.lines = []


def asked(port: int, path: str, method: str = "GET", body: bytes | None = None, tls: bool = False, **headers: str):
    """(status, headers, body) of one request to 127.0.0.1; `Host` may be any, and the certificate the test's own."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    if tls:
        context = ssl._create_unverified_context()
        line = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    try:
        line.request(method, path, body, headers)
        answer = line.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        line.close()


def mlflow_server(folder: Path, store: str, more: list[str] | None = None) -> Server:
    port = free_port()
    words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"]
    words += ["--port", str(port), "--workers", "1", "--artifacts-destination", str(folder / "artifacts")]
    words += more or []
    return Server(words, port, folder, env=os.environ | QUIET)


def postgres_folder() -> Path | None:
    """Where PostgreSQL's programs are: on the path, or where Debian puts them."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in reversed(places) if (place / "postgres").exists()), None)


class Postgres(Server):
    def database(self, name: str) -> str:
        """The address of a new, empty one."""
        import psycopg2

        line = psycopg2.connect(host="127.0.0.1", port=self.port, user="vikdf", dbname="postgres")
        line.autocommit = True
        line.cursor().execute(f"create database {name}")
        line.close()
        return f"postgresql://vikdf@127.0.0.1:{self.port}/{name}"

    def _answers(self) -> bool:
        import psycopg2

        with contextlib.suppress(psycopg2.OperationalError):
            psycopg2.connect(host="127.0.0.1", port=self.port, user="vikdf", dbname="postgres").close()
            return True
        return False


def person() -> dict:
    """PostgreSQL refuses to run as root: then it is Debian's user `postgres`, or nobody."""
    if os.geteuid():
        return {}
    names = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return {"user": names.get("postgres", names.get("nobody"))}


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A fresh database, in a folder of its own that a user who is not root can enter."""
    programs, port, who = postgres_folder(), free_port(), person()
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        if who:
            os.chown(folder, who["user"], -1)
        (data := folder / "data").mkdir()
        if who:
            os.chown(data, who["user"], -1)
        make = [
            programs / "initdb",
            "--pgdata",
            data,
            "--username",
            "vikdf",
            "--auth",
            "trust",
            "--no-sync",
            "--encoding=UTF8",
        ]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **who)
        words = [programs / "postgres", "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-k", folder]
        server = Postgres([str(word) for word in words], port, folder, **who)
        try:
            yield server.start()
        finally:
            server.kill()
