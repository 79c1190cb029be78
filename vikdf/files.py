"""Files appear whole or not at all: written aside, flushed to disk, renamed. Digests say what a file or folder is."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

LOCK = ".lock"  # of a writer's hidden folder


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to (a file or a folder); renames it to `path` when the block ends well.

    What is written lies in a hidden folder of this writer's, with a lock that dies with its process: what a killed writer
    left goes when the next one comes for the same path, and what a living one writes stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in _hidden(path):
        _clear(left)
    with contextlib.ExitStack() as held:
        folder = _claimed(path, held)
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder / path.name
        put(folder / path.name, path)


def _hidden(path: Path) -> list[Path]:
    """The folders of writers of this path, dead or alive."""
    named = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part")
    return [path.parent / name for name in os.listdir(path.parent) if named.fullmatch(name)]


def _claimed(path: Path, held: contextlib.ExitStack) -> Path:
    """A folder of our own, locked; another one where someone took it for a dead writer's before it was locked."""
    while True:
        folder = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
        folder.mkdir()
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            lock = held.enter_context(open(folder / LOCK, "w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (folder / LOCK).exists():
                return folder


def _clear(folder: Path) -> None:
    """Removes a writer's folder unless its process, or a child of it, lives."""
    try:
        with open(folder / LOCK, "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except FileNotFoundError:  # killed before it had a lock, or gone by now
        with contextlib.suppress(OSError):
            folder.rmdir()
    except OSError:  # locked, or another person's
        pass


def put(aside: Path, path: Path) -> None:
    """What was written aside takes the place of `path`; a file never that of a folder, which may hold anything."""
    if path.is_dir() and not aside.is_dir():
        raise ValueError(f"{path} is a folder, expected the name of a file: name another, or move the folder away")
    _flush(aside)
    if path.is_dir():
        shutil.rmtree(path)
    os.replace(aside, path)


def _flush(path: Path) -> None:
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())


def check_name(name: str, where: str, taken: tuple[str, ...] = ()) -> None:
    """Raises a ValueError for a name that files and members of tars cannot begin with, and for one that is taken.

    No dot: webdataset cuts a member's name there. Not long: a tar's header has room for 100 characters.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,59}", str(name)):
        said = "expected letters from a to z, digits, underscores and dashes, at most 60 of them"
        raise ValueError(f"{where} has the name {name!r}: files are called so, {said}")
    if name.lower() in taken:
        raise ValueError(f"{where} has the name {name!r}, which the reports use themselves: give it another one")


def named(paths: list[Path]) -> dict[str, dict]:
    """The part of a manifest that names files: file -> size and sha256."""
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths}


def write_json(path: Path, value) -> None:
    with whole(path) as aside:
        aside.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path):
    try:
        return json.loads(Path(path).read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): delete it and run the step that makes it again, or copy the folder anew"
        ) from None


def contents(folder: Path) -> dict[str, str]:
    """File -> sha256 of a model's folder as it was made: without the manifest and Snakemake's time stamp, which came later."""
    inside = [path for path in _inside(folder) if path.name not in ("manifest.json", ".snakemake_timestamp")]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in inside}


def _inside(folder: Path) -> list[Path]:
    """Every file below a folder. A link to another folder would not be entered, and what it holds not be noticed."""
    found = sorted(Path(folder).rglob("*"))
    if linked := [path for path in found if path.is_symlink() and path.is_dir()]:
        raise ValueError(f"{linked[0]} is a link to a folder: put the folder itself there, so that its files are known")
    return [path for path in found if path.is_file()]


def sha256(path: Path) -> str:
    """The sha256 of a file; of a folder, that of its sorted names and the sha256 of each file in it."""
    path = Path(path)
    if path.is_dir():
        return digest([[file.relative_to(path).as_posix(), sha256(file)] for file in _inside(path)])
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value) -> str:
    """The sha256 of any JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
