"""Files appear whole or not at all: written aside, flushed to disk, renamed. Digests say what a file or folder is."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to (a file or a folder); renames it to `path` when the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        yield aside
        _flush(aside)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(aside, path)
    finally:
        if aside.is_dir():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())


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
