"""`vikdf recover`: whatever happened to a run, this brings it to its end. The one command to type after a fault.

In: a tree, in whatever state it is. Out: the run, finished; a line for each thing that was done:
1. jobs that a dead Snakemake left at work are waited for; locks of dead processes go;
2. as `vikdf verify --mend`: what is harmed is taken away;
3. as `vikdf track replay`: MLflow gets what it missed;
4. Snakemake makes what is missing, and all that was still to come.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vikdf import files, seals, turns, verify
from vikdf.flags import printable

ENGINE = (sys.executable, "-m", "snakemake")
SNAKEMAKE, DVC = Path(".snakemake/locks"), Path(".dvc/tmp/rwlock")  # who works here, in the words of either
MORE = """
Nothing is lost by it: what is whole stays, and what was half done goes on. Each thing that it does is a line.
The words after -- are options of Snakemake.

examples
  vikdf recover                bring the run of params.yaml to its end, whatever stopped it
  vikdf recover -- --cores 4
"""


def unlock() -> None:
    """Takes away the locks of dead processes."""
    left = [path for path in SNAKEMAKE.glob("*") if path.is_file()]
    if DVC.is_file() and DVC.stat().st_size > len("{}"):
        numbers = re.findall(r'"pid": *(\d{1,9})', DVC.read_text(errors="replace"))
        left += [] if any(_works(int(number)) for number in numbers) else [DVC]
    for path in left:
        path.unlink()
    if left:
        print(f"locks of processes that died are taken away: {', '.join(map(str, left))}")


def _works(number: int) -> bool:
    """Whether a process lives and is still the engine that it was: numbers are given again."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return any(Path(word).name in ("snakemake", "dvc") for word in psutil.Process(number).cmdline()[:4])
    return False


def missing(made: list[Path]) -> tuple[list[str], list[str]]:
    """Of the products that were `made` and are gone: what Snakemake makes again when asked, and what no rule makes any more.

    They are asked for by name, beside `all`: it does not need each, and makes those alone that something else waits for.
    """
    gone = [str(unit) for unit in made if not unit.exists()]
    known = _known(gone)
    rows = _plan(known)  # none: params.yaml is wrong, for one; the run itself says it
    lost = [Path(row["output_file"]) for row in rows if row["status"] == "missing"]
    within = {str(each) for path in lost for each in (path, *path.parents)}
    again = [str(path) for path in lost if {path, *path.parents} & {*made}]
    return again, [unit for unit in gone if rows and unit not in within]


def _known(targets: list[str]) -> list[str]:
    """The targets that Snakemake has a rule for: where not all have one, each half is asked about."""
    if not targets or _plan(targets) or not _plan():
        return targets
    half = len(targets) // 2
    return [*_known(targets[:half]), *_known(targets[half:])] if half else []


def _plan(targets: Sequence[str] = ()) -> list[dict]:
    """A row for each file that Snakemake's plan makes; none where there is no such plan."""
    done = subprocess.run([*ENGINE, "--summary", "--", "all", *targets], capture_output=True, text=True)
    rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    columns = rows[0] if rows else []
    if done.returncode or not {"output_file", "status"} <= set(columns):
        return []
    return [dict(zip(columns, row, strict=True)) for row in rows[1:] if len(row) == len(columns)]


def recover(options: list[str]) -> None:
    if not Path("Snakefile").is_file():
        raise ValueError(f"{Path.cwd()} has no Snakefile: go to the project's own folder")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with files.alone(turns.LOCK, str(Path.cwd())):
        unlock()
        turns.wait()
        made = seals.units(Path())
        counts, found = verify.everything()
        print(f"looked at {verify.listed(counts)}: {len(found) or 'nothing'} harmed or missing")
        for harm in verify.mend(found):
            print(printable(f"{harm.path} {harm.how}: it is not ours to mend. {harm.cure}"))
    if counts["journals"]:
        replay = [sys.executable, "-m", "vikdf.cli", "track", "replay"]
        done = subprocess.run(replay, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(f"MLflow: {done.stdout.strip()}")
    lost, unknown = missing(made)
    for unit in unknown:
        print(printable(f"{unit} is gone, and no rule makes it now"))
    print(f"Snakemake makes what is missing ({len(lost)} products), and what was still to come", flush=True)
    wanted = ["--", "all", *lost] if lost else []
    os.execv(ENGINE[0], [*ENGINE, "--cores", "all", "--rerun-incomplete", *options, *wanted])


def run(given: argparse.Namespace) -> None:
    recover(given.options)


def add_flags(one: argparse.ArgumentParser) -> None:
    one.add_argument("options", nargs="*", metavar="-- OPTIONS", help="of Snakemake, such as --cores 4")
