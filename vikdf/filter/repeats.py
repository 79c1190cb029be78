"""Texts that stand on many pictures, found by the hashes of the texts in partitions on disk.

In: for each caption that is left its number, two hashes of its normal form and one of its letters as they are.
Out: the numbers of the captions whose text, or normal form, stands on too many pictures.
Run: by the stage, vikdf/filter/__main__.py.

A partition holds all captions of some hashes and is looked at alone: some 150 bytes of memory for each of ROWS, whatever
the length of the list. On disk 64 bytes a caption. Two texts are taken for one when 128 bits of hashes agree: never seen.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

ROWS = 500_000  # captions of a partition, about
COLUMNS = ["place", "normal", "normal_too", "exact"]


class Repeats:
    def __init__(self, folder: Path):
        self.folder = folder
        self.written = 0
        self._path("all").write_bytes(b"")

    def _path(self, part: int | str) -> Path:
        return self.folder / f"texts-{part}"

    def add(self, texts: pl.DataFrame) -> None:
        """Captions in ascending order of their numbers."""
        with open(self._path("all"), "ab") as stream:
            texts.select(pl.col(COLUMNS).cast(pl.UInt64)).to_numpy(order="c").tofile(stream)
        self.written += len(texts)

    def _split(self) -> list[Path]:
        """Each caption goes into the partition that its normal form's hash names."""
        parts = self.written // ROWS + 1
        paths = [self._path(part) for part in range(parts)]
        for path in paths:
            path.write_bytes(b"")
        for start in range(0, self.written, ROWS):
            values = _read(self._path("all"), start, ROWS)
            part = values[:, COLUMNS.index("normal")] % np.uint64(parts)
            order = np.argsort(part, kind="stable")
            cuts = np.searchsorted(part[order], np.arange(parts + 1))
            for path, low, high in zip(paths, cuts, cuts[1:], strict=False):
                with open(path, "ab") as stream:
                    values[order[low:high]].tofile(stream)
        self._path("all").unlink()
        return paths

    def many(self, most: int) -> Iterator[tuple[str, np.ndarray]]:
        """(reason, numbers in ascending order) of captions whose text is on more than `most` pictures."""
        for path in self._split():
            values = _read(path, 0, -1)
            texts = pl.DataFrame({name: values[:, place] for place, name in enumerate(COLUMNS)})
            forms = ["normal", "normal_too"]
            often = texts.group_by(forms).len().filter(pl.col("len") > most).select(forms)
            texts = texts.join(often, on=forms, how="semi", maintain_order="left")
            exact = texts.select(pl.len().over(*forms, "exact") > most).to_series()
            yield "on_many_pictures", texts.filter(exact)["place"].to_numpy()
            yield "words_on_many_pictures", texts.filter(~exact)["place"].to_numpy()
            path.unlink()


def _read(path: Path, start: int, count: int) -> np.ndarray:
    width = len(COLUMNS)
    return np.fromfile(path, np.uint64, count * width if count >= 0 else -1, offset=start * width * 8).reshape(
        -1, width
    )
