"""Processes that hold locks, for tests of two at once: real ones, so that a kill shows what a kill leaves.

with held.process("from vikdf import files; hold(files.alone(path, 'it'))", path=folder / "lock") as holder:
    ...                                # it holds the lock now
    holder.kill()                      # SIGKILL: nothing of it is cleaned up
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from campaign import environment

FIRST = """
import sys
from pathlib import Path


def hold(manager):
    with manager as held:
        print("holds", flush=True)
        sys.stdin.readline()
        return held

"""


@contextlib.contextmanager
def process(code: str, cwd=None, **values) -> Iterator[subprocess.Popen]:
    """Runs code with these values (as text; paths as Path) until it called `hold(context manager)` and is in its block."""
    given = "".join(f"{name} = Path({str(value)!r})\n" for name, value in values.items())
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", FIRST + given + code], cwd=cwd, env=environment(), **pipes) as made:
        try:
            said = made.stdout.readline()
            assert said == "holds\n", f"{code}: {said}"
            yield made
        finally:
            made.kill()
