"""What a product was when it was made: compared as a stage reads it, so that no harmed byte is learned from.

In: what a stage reads and what it made. Out: state/seals/<path>.json with the sha256 of each file of the product, and digests of
what the path held before: to go back to an older product, as `dvc checkout` does, is no damage. A seal is made for what lies
in a tree (a folder with a Snakefile); what has none is not compared. Of shards the manifest alone is sealed: it names each
tar, and each sample is compared as it is read.

    with seals.guarded(values):   # the arguments of a stage's function, see vikdf/flags.py
        function(**values)
    seals.check(folder)           # a ValueError that names the harmed file
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vikdf import files

KEPT = Path("state", "seals")
MANIFEST = "manifest.json"
BEFORE = 50  # digests of what a path held before
_compared: set[Path] = set()  # by this process, and sound


@contextlib.contextmanager
def guarded(values: dict) -> Iterator[None]:
    """Compares what a stage reads; when it ended well, seals what it made. Arguments that begin with `output` are made."""
    made = [Path(value).absolute() for name, value in values.items() if name.startswith("output")]
    check(*_paths([value for name, value in values.items() if not name.startswith("output")]))
    done = len(files.made)
    yield
    seal(*(path for path in files.made[done:] if {path.absolute(), *path.absolute().parents} & {*made}))


def _paths(value) -> Iterator[Path | str]:
    """Whatever may be a path among a stage's arguments, those in JSON too."""
    if isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _paths(each)
    elif isinstance(value, Path | str):
        yield value


def check(*paths: Path | str) -> None:
    """Each of these, and what is sealed of it, is what it was when it was made; read by the main process alone, and once."""
    if int(os.environ.get("RANK", 0)):
        return
    for unit in dict.fromkeys(unit for path in paths if (unit := sealed(path))):
        if unit not in _compared and (wrong := harm(unit)):
            more = f" and {len(wrong) - 3} more files" if len(wrong) > 3 else ""
            raise ValueError(
                f"{'; '.join(f'{path} {how}' for path, how in wrong[:3])}{more}: `vikdf recover` takes away what is harmed and "
                f"makes it again; if you changed it on purpose, `vikdf verify --seal {unit}` and repeat"
            )
        _compared.add(unit)


def sealed(path: Path | str) -> Path | None:
    """The product that this is, or lies in; None where it has no seal."""
    where = inside(path)
    return next((each for each in (where, *where.parents) if os.path.isfile(kept(each))), None) if where else None


def inside(path: Path | str) -> Path | None:
    """The path as the tree names it."""
    where = Path(os.path.relpath(os.path.abspath(path)))
    return where if ".." not in where.parts and os.path.isfile("Snakefile") else None


def kept(unit: Path) -> Path:
    """Where its seal lies."""
    return KEPT / f"{unit}.json"


def units(folder: Path) -> list[Path]:
    """Every sealed product at or below a folder, or the one that it lies in."""
    where = inside(folder)
    if where is None:
        return []
    known = [path.relative_to(KEPT).with_suffix("") for path in sorted(KEPT.rglob("*.json"))]
    known = [unit for unit in known if not any(part.startswith(".") for part in unit.parts)]  # of a writer that died
    return [unit for unit in known if where in (unit, *unit.parents)] or [unit for unit in [sealed(where)] if unit]


def harm(unit: Path) -> list[tuple[Path, str]]:
    """(file, what became of it) of a sealed product."""
    told = files.read_checked(kept(unit))
    was, now = told["sha256"], _digests(unit, shards=[*told["sha256"]] == [MANIFEST])
    if files.digest(now) in (files.digest(was), *told["before"]):
        return []
    if not unit.exists():
        return [(unit, "is missing")]
    changed = {name: "has changed since it was made" for name in was if name in now and was[name] != now[name]}
    changed |= {name: "is missing" for name in was if name not in now}
    changed |= {name: "was not there when it was made" for name in now if name not in was}
    return [(unit if unit.is_file() else unit / name, how) for name, how in sorted(changed.items())]


def _digests(unit: Path, shards: bool) -> dict[str, str]:
    if not unit.is_dir():
        return {unit.name: files.sha256(unit)} if unit.is_file() else {}
    manifest = {MANIFEST: files.sha256(unit / MANIFEST)} if (unit / MANIFEST).is_file() else {}
    return manifest if shards else files.contents(unit) | manifest


def seal(*paths: Path) -> None:
    """Keeps what these products are now; what lies in a sealed folder is sealed with it."""
    there = [where for path in paths if (where := inside(path)) and where.exists()]
    above = {where: [each for each in where.parents if each in there or os.path.isfile(kept(each))] for where in there}
    for unit in dict.fromkeys(folders[-1] if folders else where for where, folders in above.items()):
        shards = all((unit / name).is_file() for name in (MANIFEST, "index.parquet"))
        now, old = _digests(unit, shards), _last(unit)
        before = [each for each in old if each != files.digest(now)]
        files.write_checked(kept(unit), {"sha256": now, "before": before[:BEFORE]})
        shutil.rmtree(KEPT / unit, ignore_errors=True)  # what lies in it is sealed with it from now on
        _compared.discard(unit)


def _last(unit: Path) -> list[str]:
    """Digests of what the path held so far; none where the seal itself is harmed."""
    try:
        told = files.read_checked(kept(unit))
        return [files.digest(told["sha256"]), *told["before"]]
    except (ValueError, OSError):
        return []


def forget(unit: Path) -> None:
    """Takes away a product's seal, and those of what lies in it."""
    kept(unit).unlink(missing_ok=True)
    shutil.rmtree(KEPT / unit, ignore_errors=True)
    _compared.discard(unit)
