"""How much a packed file may unpack to: a bomb is refused before it fills the memory or the disk.

In: a packed file (a .gz, or an archive that a list is taken out of). Out: a check to call with the bytes unpacked so far.
Used by vikdf/corpora/tables.py, jsons.py and unpack.py, and vikdf/metrics/vectors.py.
"""

from collections.abc import Callable
from pathlib import Path

MOST_TIMES, AT_LEAST = 200, 1 << 26  # so many times the packed bytes, or so many bytes: lists and texts take 3 to 20


def bound(path: Path, member: str = "") -> Callable[[int], None]:
    """A function that raises a ValueError once more bytes were unpacked than any honest list has."""
    most = max(MOST_TIMES * Path(path).stat().st_size, AT_LEAST)
    name = f"{path}: {member}" if member else str(path)

    def check(unpacked: int) -> None:
        if unpacked > most:
            raise ValueError(
                f"{name} unpacks to more than {most} bytes, as no list or text does: it is a bomb, or harmed"
            )

    return check
