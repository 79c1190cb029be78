"""A list of urls and where what came of it lies: for vikdf/corpora/fetch.py.

In: a list (id, url) as parquet. Out: <folder>/pass1/<shard>.parquet with its sha256 in <shard>.sha256 and, last,
<shard>_stats.json; for each later pass its own list and shards.
"""

import dataclasses
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq

from vikdf import files

DIGITS = 5  # of a shard's number


@dataclasses.dataclass(frozen=True)
class List:
    """One list and where its shards go: <folder>/pass1, and for each later pass its own list and shards."""

    name: str
    urls: Path
    folder: Path
    per_shard: int

    def of(self, number: int) -> tuple[Path, Path]:
        """The urls that a pass asks for, and the folder of its shards."""
        return self.urls if number == 1 else self.folder / f"pass{number}.parquet", self.folder / f"pass{number}"

    def rows(self, number: int) -> int:
        return pq.read_metadata(self.of(number)[0]).num_rows

    def shards(self, number: int) -> range:
        return range(-(-self.rows(number) // self.per_shard))

    def done(self, number: int) -> set[int]:
        return {int(path.name[:DIGITS]) for path in self.of(number)[1].glob("*_stats.json")}

    def drop_harmed(self, passes: int) -> None:
        """What is not as it was written is fetched again, and with it the passes that asked for what had failed there."""
        for number in range(1, passes + 1):
            harmed = [said for said in self.of(number)[1].glob("*_stats.json") if not _sound(said)]
            if harmed:  # the last pass goes first, the harm itself at the end: after a kill between it is seen again
                for urls, folder in map(self.of, range(passes, number, -1)):
                    shutil.rmtree(folder, ignore_errors=True)
                    urls.unlink(missing_ok=True)
            for said in harmed:
                said.unlink()

    def missing(self, number: int) -> list[int]:
        return sorted(set(self.shards(number)) - self.done(number))

    def left(self, number: int) -> int:
        """How many urls a pass has still to ask."""
        rows = self.rows(number)
        return sum(min(self.per_shard, rows - shard * self.per_shard) for shard in self.missing(number))


def _sound(said: Path) -> bool:
    shard, digest = (said.with_name(said.name[:DIGITS] + kind) for kind in (".parquet", ".sha256"))
    if shard.exists() and digest.exists() and digest.read_bytes() == files.sha256(shard).encode():
        return True
    print(f"{shard} is damaged: it is fetched again", file=sys.stderr)
    return False
