"""Room on the disks: what a long stage will write is asked for before it begins, not hours later in its middle.

In: folders, which need not be there yet, with the bytes that are still to come below each; they are figures of `vikdf plan`
(vikdf/room.py). Out: nothing, or one error that names the disk, what is wanted and what is free.

    space.need("the shards", {folder: 3e9 - space.held(folder)})
"""

import errno
import os
import re
import shutil
from pathlib import Path

CHECKPOINT = 12  # bytes of a trained number: its weight and two moments
WEIGHT = 4  # of one in the best state so far, and in a product
FULL = "make room on that disk (`df -h` shows all), and the same command goes on"
CURES = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: "your quota on that disk is used up: have it raised or make room, and the same command goes on",
    errno.EROFS: "that disk is mounted read-only: mount it for writing, or name a folder on another one",
    errno.EACCES: "this user may not: see `ls -ld` of it and of the folder it lies in, or name another folder",
}
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def need(what: str, wanted: dict[Path, float]) -> None:
    """Raises an OSError for the first disk that has less room than the folders on it want together."""
    disks: dict[int, list] = {}
    for folder, count in wanted.items():
        there = next(place for place in (Path(folder).absolute(), *Path(folder).absolute().parents) if place.exists())
        disks.setdefault(os.stat(there).st_dev, [there, 0])[1] += max(0, count)
    for there, count in disks.values():
        disk = shutil.disk_usage(there)
        if disk.total and count > disk.free:  # some file systems do not tell
            raise OSError(
                f"{what} take about {size(count)}, but the disk of {there} has {size(disk.free)} free: make room there, and "
                "the same command goes on"
            )


def held(folder: Path) -> int:
    """Bytes of the files below a folder: what is there already need not come."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def need_for_training(folder: Path, numbers: int, judged: bool) -> None:
    """For two checkpoints beside the one that is being written, with the best state where one is judged, and the product, here
    and in results/."""
    whole = numbers * (3 * (CHECKPOINT + WEIGHT * judged) + 2 * WEIGHT)
    need(f"checkpoints of {numbers:,} trained numbers", {folder: whole - held(folder)})


def features(clip, number: int) -> dict[str, int]:
    """Bytes that vikdf.features keeps of a picture (its states, its pixels) and of a caption's token; `number`: bytes of one."""
    states = ((clip.pixels // clip.patch) ** 2 + 1) * clip.width * number
    return {"states": states, "pixels": 3 * clip.pixels**2, "token": clip.width * number + 4}


def told(error: Exception) -> str:
    """What an error says, and, of a disk that takes nothing, what to do."""
    cut = re.search(r"\d+ requested and \d+ written", str(error))  # so numpy says it
    cure = FULL if cut else CURES.get(getattr(error, "errno", None))
    return f"{error}: {cure}" if cure else str(error)


def size(count: float) -> str:
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            return f"{count:.3g} {unit}"
        count /= 1000
