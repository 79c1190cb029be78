"""`vikdf verify`: is every product, and all that is kept of work, as it was made? `--mend` takes away what is harmed.

In: manifests, seals (vikdf/seals.py), and work in state/. Out: a line for each harmed file, and the cure; exit status 1.
Every file is read once. What a process works on is left alone; what is not of our making is named, and never taken away.
"""

import argparse
import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vikdf import files, seals, tracking, turns
from vikdf.flags import printable
from vikdf.harm import CHANGED, Harm, answers, how, of_journal, of_json, of_store, of_work, taken, works

ALL = ("data", "results", "state")
STORE = Path("mlflow.db")
MORE = """
A manifest, which a step writes last, and a seal, which state/ keeps of each product, say what it was when it was made.
Every file is read once: products, manifests, and in state/ finished work, checkpoints, features, answers and journals.
Exit status 1 if one is missing or was changed; each line names it. Nothing is mended unless you say so.

--mend takes away what is harmed, with its seal, and nothing else: the next run makes it again. `vikdf recover` does both.
--seal keeps products as they are now, after a change that you made on purpose.

examples
  vikdf verify                 data/, results/, state/ and MLflow's own store
  vikdf verify data/shards     the shards alone, and which samples a harmed tar costs
  vikdf verify --mend          take away what is harmed
  vikdf verify --seal results/finetune/vikdf-zero-s1
"""


def _harm(path: Path, what: str, target: Path) -> Harm:
    """Of what is sealed, and so of our making, `--mend` takes away the product; else a person is told what to make again."""
    if seals.sealed(path):
        return Harm(path, what, partial(taken, *_product(path)))
    return Harm(path, what, cure=f"rm -r {target} and run `snakemake --cores all {target}`, or copy the folder anew")


def manifests(folder: Path) -> list[Path]:
    """Those of products: kept work has digests of its own, and a hidden folder is being written."""
    kept = ("product.json", "encoder.json")
    found = [path for path in folder.rglob(seals.MANIFEST) if not re.search(r"(^|/)\.[^./]", path.as_posix())]
    return sorted(path for path in found if not any((each / name).exists() for each in path.parents for name in kept))


def of_manifest(manifest: Path) -> Iterator[Harm]:
    """Every file that a manifest names is there with the sha256 that the manifest gives; of what is sealed, the seal tells."""
    sealed = _seal(manifest)
    if sealed and (sealed != [seals.MANIFEST] or seals.harm(seals.sealed(manifest))):
        return
    try:
        said = _told(manifest)
        shards = "index.parquet" in said.get("files", {})
        yield from _of_shards(manifest) if shards else _of_files(manifest, said)
    except ValueError as error:  # the manifest itself is harmed, or the index; the others are looked at all the same
        index = manifest.with_name("index.parquet")
        path = index if str(error).startswith(f"{index} ") else manifest
        yield _harm(path, how(error, path), path)


def _seal(path: Path) -> list[str]:
    """The files that a path's seal tells of; none where it has no sound one."""
    unit = seals.sealed(path)
    return [*files.read_checked(seals.kept(unit))["sha256"]] if unit and not [*of_json(seals.kept(unit))] else []


def _of_files(manifest: Path, said: dict) -> Iterator[Harm]:
    for name, digest in sorted(_digests(said).items()):
        path = manifest.parent / name
        if not _seal(path) and not path.exists():
            yield _harm(path, "is missing", manifest)
        elif not _seal(path) and files.sha256(path) != digest:
            yield _harm(path, CHANGED, manifest)
    whole = isinstance(said.get("sha256"), str)  # a model: one folder, one digest
    if whole and files.digest([*files.contents(manifest.parent).items()]) != said["sha256"]:
        yield _harm(manifest.parent, CHANGED, manifest.parent)


def _told(manifest: Path) -> dict:
    """What a manifest says; a ValueError for one that names nothing: it would be true whatever became of the files."""
    said = files.read_json(manifest)
    cure = "delete it and run the step that makes it again, or copy the folder anew"
    if not isinstance(said, dict):
        raise ValueError(f"{manifest} is no manifest, expected an object that names files: {cure}")
    for name, kinds in {"files": dict, "sha256": (dict, str)}.items():
        if name in said and not isinstance(said[name], kinds):
            raise ValueError(f"{manifest} is no manifest, its `{name}` is {json.dumps(said[name])[:40]}: {cure}")
    if not isinstance(said.get("sha256"), str) and not _digests(said):
        raise ValueError(f"{manifest} is no manifest, it names no file with its sha256: {cure}")
    return said


def _digests(manifest: dict) -> dict[str, str]:
    """File -> sha256 of a manifest: {"sha256": {file: ...}}, or entries {"sha256": ...} by file or by table, in groups or not."""
    found = dict(manifest["sha256"]) if isinstance(manifest.get("sha256"), dict) else {}
    for group in (manifest, *manifest.values()):
        for name, entry in group.items() if isinstance(group, dict) else []:
            if isinstance(entry, dict) and isinstance(entry.get("sha256"), str):
                found[name if "." in name else f"{name}.parquet"] = entry["sha256"]
    return found


def _of_shards(manifest: Path) -> Iterator[Harm]:
    from vikdf import samples

    found = samples.harm(manifest.parent)
    alone = {each.path.name for each in found} == {"index.parquet"}
    for each in found:
        what = str(each).removeprefix(f"{each.path} ")
        if seals.sealed(manifest):
            yield Harm(each.path, what, partial(taken, each.path, manifest))
        else:
            yield Harm(each.path, what, cure=samples.cure(manifest.parent, alone))


def _product(path: Path) -> tuple[Path, ...]:
    """What goes with a harmed file, so that its step makes it again: the sealed folder; else the manifest, which says complete."""
    unit, manifest = seals.sealed(path), path.with_name(seals.MANIFEST)
    if unit and unit.is_dir() and not (unit / "index.parquet").exists():
        return (unit,)
    return (path, manifest) if manifest.exists() and manifest != path else (path,)


def of_seal(unit: Path) -> Iterator[Harm]:
    """A product is what its seal says; where the seal is the harmed one, the product is sealed anew as it stands."""
    kept = seals.kept(unit)
    if harmed := [*of_json(kept)]:
        yield Harm(kept, harmed[0].how, partial(_sealed, unit))
    else:
        for path, what in seals.harm(unit):
            yield Harm(path, what, partial(taken, *_product(path)))


def _sealed(*paths: Path) -> str:
    for unit in paths:
        seals.seal(unit) if unit.exists() else seals.forget(unit)
    return f"sealed as it is now: {', '.join(map(str, paths)) or 'nothing, since no step made anything here'}"


LOOKS = {  # what tells what a file should be: where it lies below a folder, and what it finds harmed
    "manifests": (manifests, of_manifest),
    "seals": (seals.units, of_seal),
    "pieces of work": (works, of_work),
    "answers": (answers, of_json),
    "journals": (lambda folder: sorted(folder.rglob(tracking.JOURNAL)), of_journal),
}


def look(folders: list[Path]) -> tuple[Counter, list[Harm]]:
    """How much was looked at, by kind; what is harmed, each file once."""
    counts, found = Counter(), {}
    for folder in folders:
        for kind, (there, harms) in LOOKS.items():
            for each in there(folder):
                counts[kind] += 1
                for harm in harms(each):
                    found.setdefault(harm.path.absolute(), harm)
    return counts, [*found.values()]


def mend(found: list[Harm]) -> list[Harm]:
    """Takes away what is harmed, a line each; gives back what is not ours to touch."""
    done = set()
    for harm in found:
        if harm.mend and (said := harm.mend()) not in done:
            done.add(said)
            print(printable(f"{harm.path} {harm.how}: {said}"))
    return [harm for harm in found if not harm.mend]


def everything() -> tuple[Counter, list[Harm]]:
    """All that a tree keeps."""
    counts, found = look([path for path in map(Path, ALL) if path.is_dir()])
    return counts, [*found, *of_store(STORE)]


def verify(folders: list[Path], mending: bool = False) -> None:
    """Names what is harmed below these folders, or mends it; none: all that a tree keeps."""
    for folder in folders:
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "is missing"
            raise ValueError(f"{folder} {what}: expected a folder that was made or copied before")
    with contextlib.ExitStack() as held:
        if mending:  # what a run is making now is half made: from the look to the deed nobody else works here
            held.enter_context(files.alone(turns.LOCK, str(Path.cwd())))
            turns.wait()
        counts, found = look(folders) if folders else everything()
        where = ", ".join(map(str, folders or ALL))
        if not counts and not found:
            raise ValueError(f"no manifest.json below {where}: nothing has been made yet; run `snakemake --cores all`")
        found = mend(found) if mending else found
    if found:
        cures = [f"  cure: {cure}" for cure in dict.fromkeys(harm.cure for harm in found)]
        lines = [f"  {harm.path} {harm.how}" for harm in found]
        raise ValueError("\n".join([f"below {where} not all is as it was made:", *lines, *cures]))
    print(f"{listed(counts)} below {where}: every file is whole")


def listed(counts: Counter) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing that was kept"


def run(given: argparse.Namespace) -> None:
    if not given.seal:
        return verify(given.folders, given.mend)
    units = [unit for folder in given.folders or map(Path, ALL) for unit in seals.units(folder)]
    if given.folders and not units:
        raise ValueError(f"nothing of {', '.join(map(str, given.folders))} is sealed: a step seals what it makes")
    print(_sealed(*units))


def add_flags(one: argparse.ArgumentParser) -> None:
    said = "what was made, or what is kept of work (default: data results state)"
    one.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help=said)
    one.add_argument(
        "--mend", action="store_true", help="take away what is harmed, so that the next run makes it again"
    )
    one.add_argument("--seal", action="store_true", help="keep products as they are now: the change is on purpose")
