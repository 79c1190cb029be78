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
from pathlib import Path

from vikdf import files, seals, turns, verify

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


def missing(made: list[Path]) -> list[str]:
    """Products of the plan that were `made` and are gone: Snakemake itself makes those alone that something else waits for."""
    done = subprocess.run([*ENGINE, "--summary"], capture_output=True, text=True)
    rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    columns = rows[0] if rows else []
    if done.returncode or not {"output_file", "status"} <= set(columns):
        return []  # params.yaml is wrong, for one: the run itself says it
    told = [dict(zip(columns, row, strict=False)) for row in rows[1:]]
    gone = [Path(row["output_file"]) for row in told if row.get("status") == "missing"]
    return [str(path) for path in gone if {path, *path.parents} & {*made}]


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
            print(f"{harm.path} {harm.how}: it is not ours to mend. {harm.cure}")
    if counts["journals"]:
        replay = [sys.executable, "-m", "vikdf.cli", "track", "replay"]
        done = subprocess.run(replay, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(f"MLflow: {done.stdout.strip()}")
    lost = missing(made)
    print(f"Snakemake makes what is missing ({len(lost)} products), and what was still to come", flush=True)
    wanted = ["--", "all", *lost] if lost else []
    os.execv(ENGINE[0], [*ENGINE, "--cores", "all", "--rerun-incomplete", *options, *wanted])


def run(given: argparse.Namespace) -> None:
    recover(given.options)


def add_flags(one: argparse.ArgumentParser) -> None:
    one.add_argument("options", nargs="*", metavar="-- OPTIONS", help="of Snakemake, such as --cores 4")
