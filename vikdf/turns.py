"""Whose turn it is in a tree: one Snakemake run that has jobs to do, and no `dvc repro` beside it.

In: the current folder. Out: .snakemake/at_work, a lock with the process' number that dies with the process, so none is ever
stale. Snakemake's own lock is off (profiles/default): it is a file that a kill leaves behind, and whoever ends takes away
those of the others too. DVC deletes what a stage made before it runs the stage: while jobs run, they stand in DVC's own list
of who reads and writes, and what DVC writes then is not touched here.

    take_turn()    # `onstart` of the Snakefile, before the first job; held until the process ends
"""

import atexit
import contextlib
import os
import re
import sys
import time
from pathlib import Path

from vikdf import files

LOCK = Path(".snakemake/at_work")
DVC = Path(".dvc")
READ = ("data", "results")  # folders that the jobs read, and DVC must not empty
EVERY = 1.0  # seconds between two looks at the processes
_held = contextlib.ExitStack()


def take_turn() -> None:
    """Ends the process where it is another's turn; waits for jobs that a run left when it was killed."""
    atexit.register(_held.close)
    try:
        _held.enter_context(files.alone(LOCK, str(Path.cwd())))
        if DVC.is_dir() and "DVC_STAGE" not in os.environ:  # in a stage that DVC runs, its list tells of it already
            _tell_dvc((DVC / "tmp").absolute())
        wait()
    except ValueError as error:
        sys.exit(f"\n{error}\nNothing was run.")


def jobs() -> dict[int, str]:
    """Stages that work in this folder now: process -> stage."""
    import psutil

    found, here = {}, os.getcwd()
    for process in psutil.process_iter(["cwd", "cmdline"]):
        words = process.info["cmdline"] or []
        named = [word for option, word in zip(words, words[1:], strict=False) if option == "-m"]
        stages = [name for name in named if name.startswith("vikdf.") and name != "vikdf.cli"]
        if stages and process.info["cwd"] == here and process.pid != os.getpid():
            found[process.pid] = stages[0]
    return found


def wait() -> None:
    """Until no stage works here any more: what a Snakemake that was killed had begun goes on without it."""
    told = ""
    while found := jobs():
        if not told:
            told = ", ".join(f"{stage} (process {number})" for number, stage in sorted(found.items()))
            how = "`kill NUMBER` stops one sooner, and it keeps its place"
            print(f"waiting for {told}, at work since a run that died; {how}", file=sys.stderr, flush=True)
        time.sleep(EVERY)


def _tell_dvc(folder: Path) -> None:
    """Puts this process into DVC's list, as one that reads."""
    from dvc.exceptions import DvcException
    from dvc.fs import localfs
    from dvc.lock import LockError
    from dvc.rwlock import rwlock

    folder.mkdir(exist_ok=True)
    read = [str(Path(name).absolute()) for name in READ]
    try:
        _held.enter_context(rwlock(str(folder), localfs, "snakemake", read, [], False))
    except LockError as error:
        numbers = ", ".join(dict.fromkeys(re.findall(r"PID (\d+)", str(error)))) or "unknown"
        said = f"{Path.cwd()} is being worked on by DVC (process {numbers}): wait until it ends, or stop it"
        raise ValueError(said) from None
    except DvcException as error:  # a kill cut its list off
        raise ValueError(f"{error}: if no `dvc` works here, delete {folder / 'rwlock'} and repeat") from None
