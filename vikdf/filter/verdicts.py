"""What the filter decided so far: the number of a reason for every row and every caption, in files on disk.

In: numbers (places in `names`; 0 stays) in the order of the rows, later changes by place.
Out: the same, some at a time; counts by source and reason.
Run: by the stage, vikdf/filter/__main__.py.

Two bytes a caption, six a row, none of it in memory for longer than a window of WINDOW places is looked at. A row that
has a reason before its captions are asked has no captions here.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from vikdf.filter import rules

WINDOW = 1_000_000
WITH_ITS_PICTURE = "with_its_picture"
TYPES = {"rows": np.uint16, "lengths": np.uint32, "captions": np.uint16}  # lengths: captions of a row


class Verdicts:
    def __init__(self, folder: Path):
        self.folder = folder
        self.names = [*rules.NAMES, WITH_ITS_PICTURE]  # statuses come behind, as they are met
        self.size = dict.fromkeys(TYPES, 0)
        for what in TYPES:
            (folder / what).write_bytes(b"")

    def number(self, statuses: pl.Series) -> np.ndarray:
        """The reasons' numbers of rows with these statuses: 0 for ok."""
        numbers = {"ok": 0}
        for status in statuses.unique(maintain_order=True):
            if status not in self.names:
                self.names.append(status)
            numbers.setdefault(status, self.names.index(status))
        return statuses.replace_strict(numbers, return_dtype=pl.UInt16).to_numpy()

    def append(self, **values: np.ndarray) -> None:
        for what, array in values.items():
            with open(self.folder / what, "ab") as stream:
                array.astype(TYPES[what]).tofile(stream)
            self.size[what] += len(array)

    def read(self, what: str, start: int, count: int) -> np.ndarray:
        kind = np.dtype(TYPES[what])
        return np.fromfile(self.folder / what, kind, count, offset=start * kind.itemsize)

    def mark(self, what: str, places: np.ndarray, name: str) -> None:
        """Gives the rows or captions at these places (in ascending order) the reason."""
        for start in range(0, self.size[what], WINDOW):
            low, high = np.searchsorted(places, [start, start + WINDOW])
            if low < high:
                values = self.read(what, start, WINDOW)
                values[places[low:high] - start] = self.names.index(name)
                self._write(what, start, values)

    def _write(self, what: str, start: int, values: np.ndarray) -> None:
        with open(self.folder / what, "r+b") as stream:
            stream.seek(start * values.itemsize)
            values.tofile(stream)

    def reader(self) -> Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Gives (rows, lengths, captions) of the so many rows that follow."""
        start = first = 0

        def following(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            nonlocal start, first
            lengths = self.read("lengths", start, count)
            said = int(lengths.sum())
            found = self.read("rows", start, count), lengths, self.read("captions", first, said)
            start, first = start + count, first + said
            return found

        return following

    def follow_captions(self) -> None:
        """A row whose captions all went has the first one's reason."""
        following = self.reader()
        for start in range(0, self.size["rows"], WINDOW):
            rows, lengths, captions = following(WINDOW)
            some = np.flatnonzero(lengths)
            if len(some):
                firsts = (np.cumsum(lengths) - lengths)[some].astype(np.int64)
                lost = np.add.reduceat((captions == 0).astype(np.int64), firsts) == 0
                rows[some[lost]] = captions[firsts[lost]]
                self._write("rows", start, rows)

    def count(self, sources: pl.Series, rows: np.ndarray, lengths: np.ndarray, captions: np.ndarray) -> Counter:
        """(source, unit, reason) -> count; `kept` is what stays. Captions are those of rows that could be judged."""
        gone = np.repeat(rows != 0, lengths) & (captions == 0)
        captions = np.where(gone, self.names.index(WITH_ITS_PICTURE), captions)
        found = Counter()
        for unit, whose, numbers in (
            ("picture", sources, rows),
            ("caption", sources.gather(np.repeat(np.arange(len(rows)), lengths)), captions),
        ):
            grouped = pl.DataFrame({"source": whose, "number": numbers}).group_by("source", "number").len()
            for source, number, count in grouped.iter_rows():
                found[source, unit, self.names[number] or "kept"] += count
        return found
