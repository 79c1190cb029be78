"""Files appear whole or not at all: written aside, flushed to disk, renamed. Digests say what a file or folder is.

Locks die with their processes, so none is ever stale; JSON that decides anything carries its own digest.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

LOCK = ".lock"  # of a writer's hidden folder
LARGEST = 1 << 30  # bytes of a JSON file: the longest of ours names 12 million pictures
DEEPEST = 100  # lists in lists in lists: what walks through JSON or YAML calls itself once for each
OLD = ".old"  # in it: the folder that stood at the path, until the new one does
DIGEST = "digest"  # the key of checked JSON that tells the digest of the rest
LOOK = 0.05  # seconds: who only looks whether a lock is held has it that long, and ten times that is waited
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
made: list[Path] = []  # the files and folders that this process put in their places
_held: set[int] = set()  # open locks; a child of ours that is left behind must not keep them
os.register_at_fork(after_in_child=lambda: [os.close(_held.pop()) for _ in range(len(_held))])


@contextlib.contextmanager
def alone(path: Path, what: str, *, wait: str = "", shared: bool = False, folder: bool = False) -> Iterator[None]:
    """One process at a time, by a lock on `path`, a file or a `folder`: another one is refused, or says `wait` and waits.

    `shared`: any number together, but none beside one that is alone.
    """
    while not (opened := _taken(path, what, wait, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, folder)):
        pass
    _held.add(opened)
    try:
        if not shared and not folder:  # who it is; and when the work was last asked for, by the file's time
            os.truncate(opened, 0)
            os.write(opened, str(os.getpid()).encode())
        yield
    finally:
        if opened in _held:
            _held.remove(opened)
            os.close(opened)


def _taken(path: Path, what: str, wait: str, kind: int, folder: bool) -> int:
    """The open lock; 0 where the path was cleaned away before it was ours. A folder that is gone is never made a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        opened = os.open(path, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        if folder:
            said = f"{what} was finished or taken away by another process just now: repeat the command"
            raise ValueError(said) from None
        return 0
    with contextlib.ExitStack() as held:
        held.callback(os.close, opened)
        if not any(_lock(opened, kind | fcntl.LOCK_NB, path) or time.sleep(LOOK) for _ in range(10)):
            if not wait:
                who = holder(path) or "another process"
                raise ValueError(f"{what} is being worked on by {who}: wait until it ends, or stop it")
            print(wait, file=sys.stderr, flush=True)
            _lock(opened, kind, path)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(opened), os.stat(path)):
                held.pop_all()
                return opened
    return 0


def _lock(opened: int, how: int, path: Path) -> bool:
    """Takes a lock; False where another process has it."""
    try:
        fcntl.flock(opened, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        said = f"{path} lies on a file system without locks ({error.strerror}): two processes could spoil each other's work"
        raise ValueError(f"{said}. Put the project on a disk of this machine, or mount that one with locks") from None
    return True


def holder(path: Path) -> str:
    """Who has the lock of `alone`: nobody is "". It is taken for a moment, which others wait for."""
    try:
        opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except (FileNotFoundError, PermissionError):
        return ""
    try:
        if _lock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB, path):
            return ""
        number = b"" if path.is_dir() else os.read(opened, 20)
        return f"another process ({int(number)})" if number.isdigit() and _lives(int(number)) else "another process"
    finally:
        os.close(opened)


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:  # on another machine, or one that only reads
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to (a file or a folder); renames it to `path` when the block ends well.

    What is written lies in a hidden folder of this writer's, with a lock that dies with its process: what a killed writer
    left goes when the next one comes for the same path, and what a living one writes stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path)
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
        with contextlib.suppress(FileNotFoundError):
            lock = held.enter_context(open(folder / LOCK, "w"))
            if _lock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, folder) and (folder / LOCK).exists():
                return folder


def clear(path: Path) -> None:
    """Removes what writers of this path left, unless their processes, or children of them, live."""
    for folder in _hidden(path):
        try:
            with open(folder / LOCK, "r+") as lock:
                if not _lock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, folder):
                    continue
                if (folder / OLD).exists() and not path.exists():  # it was killed between two renames
                    os.replace(folder / OLD, path)
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:  # killed before it had a lock, or gone by now
            with contextlib.suppress(OSError):
                folder.rmdir()
        except OSError:  # another person's
            pass


def put(aside: Path, path: Path) -> None:
    """What was written aside takes the place of `path`; a file never that of a folder, which may hold anything.

    A folder that stood there is moved aside first, and goes only when the new one stands.
    """
    if path.is_dir() and not aside.is_dir():
        raise ValueError(f"{path} is a folder, expected the name of a file: name another, or move the folder away")
    for file in [*aside.rglob("*"), aside]:
        if file.exists():
            _flush(file)
    with contextlib.ExitStack() as held:
        if path.is_dir():
            folder = _claimed(path, held)
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            os.replace(path, folder / OLD)
        os.replace(aside, path)
        _flush(path.parent)
    made.append(path)


def _flush(path: Path) -> None:
    """To the disk, of a folder the names in it; some file systems flush no folder."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(opened)


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
        if (size := Path(path).stat().st_size) > LARGEST:
            raise ValueError(f"{size} bytes, expected at most {LARGEST}")
        return bounded(json.loads(Path(path).read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): delete it and run the step that makes it again, or copy the folder anew"
        ) from None


def bounded(value, most: float = math.inf):
    """The value, of JSON or YAML, unless it is too deep, or larger than `most` lists and sections, repeated ones counted again."""
    left, count = [(value, 1)], 0
    while left:
        each, depth = left.pop()
        count += 1
        if depth > DEEPEST or count > most:
            said = f"are nested more than {DEEPEST} deep" if depth > DEEPEST else f"are more than {most}"
            raise ValueError(f"its lists and sections {said}")
        inner = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        left += [(part, depth + 1) for part in inner if isinstance(part, dict | list)]
    return value


def write_checked(path: Path, value: dict) -> None:
    """JSON with its own digest in it: read_checked notices any change."""
    write_json(path, value | {DIGEST: digest(json.loads(json.dumps(value)))})


def read_checked(path: Path) -> dict:
    value = read_json(path)
    if not isinstance(value, dict) or value.pop(DIGEST, None) != digest(value):
        raise ValueError(f"{path} is damaged: it does not say what was written there")
    return value


def save_tensors(tensors: dict, path: Path, **about: str) -> None:
    """Tensors of torch, or arrays, as safetensors; a disk that is full is an OSError, as it is for other files."""
    if any(type(value).__module__ == "numpy" for value in tensors.values()):
        from safetensors.numpy import save_file
    else:
        from safetensors.torch import save_file
    with saving(path):
        save_file(tensors, path, metadata=about or None)


class saving:
    """Inside, what libraries written in Rust raise at a full disk becomes an OSError, as it is for other files.

    tokenizers has no class of its own for it, and raises a bare Exception.
    """

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, _) -> None:
        if kind is Exception or getattr(kind, "__name__", "") == "SafetensorError":
            raise OSError(f"{self.path} cannot be written ({error}): is the disk full?") from None


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
