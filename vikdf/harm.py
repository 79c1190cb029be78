"""What is kept of work, in state/ and in MLflow's own store: is it as it was written? Used by vikdf.verify.

In: a folder of work, an answer, a journal, mlflow.db. Out: a Harm for each file that is not, with what mends it.
What a process works on is left alone.
"""

import contextlib
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vikdf import files, seals, state, store, tracking

STAMP = ".snakemake_timestamp"  # which Snakemake puts into a folder that a job made
CHANGED = "has changed since it was made"
CURE = "`vikdf recover` takes away what is harmed and makes it again; what came from elsewhere: copy it anew"


@dataclass(frozen=True)
class Harm:
    """A file, what is wrong with it, what mends it (None: it is not ours to touch), and the cure that a person is told."""

    path: Path
    how: str
    mend: Callable[[], str] | None = None
    cure: str = CURE


def taken(*paths: Path) -> str:
    """Takes away what is harmed, with its seal: the next run makes it again."""
    there = [path for path in paths if path.exists()]
    for path in paths:
        if unit := seals.sealed(path):
            seals.forget(unit)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return f"taken away: {', '.join(map(str, there))}" if there else f"forgotten: {', '.join(map(str, paths))}"


def works(folder: Path) -> list[Path]:
    """The folders of work below one: what vikdf/state.py and vikdf/features.py keep."""
    return sorted({path.parent for name in ("work.json", "product.json") for path in folder.rglob(name)})


def of_work(folder: Path) -> Iterator[Harm]:
    """Finished work has its product, whole; of what is half done each checkpoint and piece is whole."""
    if who := files.holder(folder / "lock"):
        print(f"{folder} is being worked on by {who}: not looked at", file=sys.stderr)
        return
    for name in (*state.WORK, "product.json"):
        yield from of_json(folder / name)
    if folder.parent.name == "features":
        yield from _of_features(folder)
        return
    kept, product = folder / "product.json", folder / "product"
    if kept.exists() and not [*of_json(kept)]:
        if not product.is_dir() or files.read_checked(kept)["sha256"] != files.sha256(product):
            what = CHANGED if product.is_dir() else "is missing"
            yield Harm(product, what, partial(_copied_back, product, kept))
    for path in sorted((folder / "checkpoints").glob("*")):
        yield from _of_checkpoint(path)


def _copied_back(product: Path, kept: Path) -> str:
    """From where the stage copied it to, if that is whole: what took days is not done again. Else it is taken away."""
    told = files.read_checked(kept)["sha256"]
    for unit in seals.units(Path()):
        inside = sorted(path for path in unit.rglob("*") if path.is_file() and path.name != STAMP)
        if files.digest([[path.relative_to(unit).as_posix(), files.sha256(path)] for path in inside]) == told:
            with files.whole(product) as aside:
                shutil.copytree(unit, aside, ignore=shutil.ignore_patterns(STAMP))
            return f"copied back from {unit}"
    return taken(product, kept)


def _of_features(folder: Path) -> Iterator[Harm]:
    from vikdf.features import sound

    yield from of_json(folder / "encoder.json")
    for piece in sorted(folder.glob("*/[0-9a-f]*")):
        if sound(piece) is None:
            yield Harm(piece, CHANGED, partial(taken, piece, folder / "product.json"))


def _of_checkpoint(path: Path) -> Iterator[Harm]:
    """Of training a folder with state.json; of caption a table whose name tells its digest; of others JSON."""
    digest = re.fullmatch(r"\d+-([0-9a-f]{16})\.parquet", path.name)
    if digest and files.sha256(path)[:16] != digest[1]:
        yield Harm(path, CHANGED, partial(taken, path))
    elif path.suffix == ".json":
        yield from of_json(path)
    elif path.name.isdigit() and (path / "state.json").exists():
        if harmed := [*of_json(path / "state.json", path)]:
            yield from harmed
            return
        for name, told in files.read_checked(path / "state.json")["sha256"].items():
            if not (path / name).exists() or files.sha256(path / name) != told:
                yield Harm(path / name, CHANGED, partial(taken, path))


def of_json(path: Path, *gone: Path) -> Iterator[Harm]:
    """JSON that carries its own digest says what was written; `gone`: what goes where it does not, if not the file alone."""
    with contextlib.suppress(FileNotFoundError):
        try:
            files.read_checked(path)
        except ValueError as error:
            yield Harm(path, how(error, path), partial(taken, *(gone or [path])))


def how(error: ValueError, path: Path) -> str:
    """What a sentence says of a path, without the path."""
    return str(error).removeprefix(f"{path} ")


def answers(folder: Path) -> list[Path]:
    """Kept answers of endpoints."""
    return sorted(path for path in folder.glob("**/answers/*/*/*.json"))


def of_journal(path: Path) -> Iterator[Harm]:
    """Its first line tells of which run it is. Other lines may be cut by a kill, and are left out by all who read it.

    Half-done work writes a new first line above its points when it goes on; a finished one would never write them again.
    """
    if files.holder(path.with_name(tracking.LOCK)):
        return
    yield from of_json(path.with_name(store.SENT))
    lines, work = tracking.read(path.parent), {each.name for each in path.parent.glob("*.json")}
    goes_on = "product.json" not in work and work & {*state.WORK} and any("step" in line for line in lines)
    if not goes_on and "stage" not in (lines or [{}])[0]:
        yield Harm(path, "no longer tells of which run it is", partial(_aside, path, "its points stay in there"))


def of_store(path: Path) -> Iterator[Harm]:
    """SQLite's own check of MLflow's database: whatever is in it is in the journals too."""
    if not path.is_file():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=5)) as opened:
            said = opened.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.DatabaseError as error:
        said = str(error)
    if said not in ("ok", "database is locked"):
        again = "`vikdf track replay` makes it anew from the journals"
        yield Harm(path, f"is damaged ({said.splitlines()[0]})", partial(_aside, path, again))


def _aside(path: Path, then: str) -> str:
    os.replace(path, f"{path}.harmed")
    for kind in ("journal", "wal", "shm"):
        Path(f"{path}-{kind}").unlink(missing_ok=True)
    return f"moved aside: {path} is {path}.harmed now, {then}"
