"""Reads tar shards at random: ours, or those of others after `vikdf index FOLDER`.

In: a folder with tars, index.parquet (INDEX) and manifest.json. Out: `Shards`, its samples by number; `harm`, every file
that is not as the manifest says, and the samples it costs. How shards are made is not followed from here: vikdf/shards.py.

    shards = Shards(Path("data/shards"))
    shards[7]  # {"key": ..., "image": PIL image in RGB, "captions": [...]}
    Shards(folder, harmed="skip")  # goes on without the samples that are harmed, and says how many they are
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from vikdf import files, index, schemas
from vikdf.decode import opened

GO_ON = "to go on without what is harmed, open them as `vikdf.samples.Shards(folder, harmed='skip')`"
SHOWN = 5  # files in a sentence; more are counted


@dataclass(frozen=True)
class Harm:
    """What is wrong with a file of the shards; `lost` are the rows of the index whose samples it costs."""

    path: Path
    how: str
    lost: list[int]
    samples: int

    def __str__(self) -> str:
        if not self.samples:
            return f"{self.path} {self.how}"
        count = "all" if len(self.lost) == self.samples else f"{len(self.lost)} of"
        return f"{self.path} {self.how}: {count} its {self.samples} samples are harmed"


class Shards:
    """The samples of a folder of shards, by number, in the index's order; nothing is read before it is asked for.

    No file stays open, so that forked and spawned loader workers read as the main process does, from any number of tars.
    harmed: "stop" refuses to open where a tar is missing or of another size; "skip" reads all tars once and goes on
    without the samples whose bytes are not those that the index names.
    """

    def __init__(self, folder: Path, harmed: str = "stop"):
        if harmed not in ("stop", "skip"):
            raise ValueError(f"harmed is {harmed!r}: expected `stop` or `skip`")
        self.folder, self.lost = Path(folder), []
        self.index = _index(self.folder)
        if harmed == "skip":
            self._go_on()
            return
        held = _held(self.folder)
        wrong = [
            f"{self.folder / name} {how}" for name in sorted(held) if (how := _size(self.folder / name, held[name]))
        ]
        if wrong:
            more = f" and {len(wrong) - SHOWN} more files" if len(wrong) > SHOWN else ""
            raise ValueError(f"{'; '.join(wrong[:SHOWN])}{more}: {cure(self.folder)}; {GO_ON}")
        if outside := [*map(str, _strange(self.folder, self.index, _outside(self.folder, self.index, held)))]:
            raise ValueError(f"{outside[0]}: {cure(self.folder)}; {GO_ON}")

    def _go_on(self) -> None:
        found = harm(self.folder)
        self._leave_out(sorted(row for each in found for row in each.lost))
        for each in found:
            print(each, file=sys.stderr)
        if found:
            print(f"{self.folder}: {len(self.lost)} samples are left out, {len(self)} stay", file=sys.stderr)

    def _leave_out(self, rows: list[int]) -> None:
        self.lost, kept = rows, np.ones(self.index.num_rows, bool)
        kept[rows] = False
        self.index = self.index.filter(pa.array(kept)).combine_chunks() if rows else self.index

    def __len__(self) -> int:
        return self.index.num_rows

    def __getstate__(self) -> dict:
        """What a spawned worker is sent: it reads the index itself, and numbers its rows as this one does."""
        return {"folder": self.folder, "lost": self.lost}

    def __setstate__(self, state: dict) -> None:
        self.folder, self.index = state["folder"], _index(state["folder"])
        self._leave_out(state["lost"])

    def __getitem__(self, number: int) -> dict:
        row, image = self.read(number)
        picture = opened(image)
        if picture is None:
            where = f"{row['key']} in {self.folder / row['shard']}"
            raise ValueError(f"the picture of {where} cannot be decoded: leave it out of the shards")
        return {"key": row["key"], "image": picture, "captions": row["captions"]}

    def read(self, number: int) -> tuple[dict, bytes]:
        """A row of the index and its picture's bytes; picture and text in the tar are those that were packed."""
        row = _row(self.index, range(len(self))[number])
        image = _image(self.folder, row)
        if image is None:
            raise ValueError(f"{self.folder / row['shard']} was changed at {row['key']}: {cure(self.folder)}")
        return row, image


def _row(table: pa.Table, number: int) -> dict:
    return {name: column[number].as_py() for name, column in zip(table.column_names, table.columns, strict=True)}


def _image(folder: Path, row: dict) -> bytes | None:
    """The picture's bytes; None where they or the text's are not those of the index."""
    try:
        with open(folder / row["shard"], "rb", buffering=0) as stream:
            parts = [
                os.pread(stream.fileno(), row[f"{part}_bytes"], row[f"{part}_offset"]) for part in ("image", "text")
            ]
    except FileNotFoundError:
        return None
    whole = [index.sha256(part) for part in parts] == [row["image_sha256"], row["text_sha256"]]
    return parts[0] if whole else None


def harm(folder: Path) -> list[Harm]:
    """Every file that is not as the manifest says, read wholly; of a tar, which samples it costs."""
    folder, found = Path(folder), []
    held = _held(folder)
    if how := _change(folder / index.NAME, held[index.NAME]):
        found, table = [Harm(folder / index.NAME, how, [], 0)], schemas.INDEX.empty_table()
    else:
        table = _index(folder)
    outside = _outside(folder, table, held)
    for name in tqdm(sorted(held.keys() - {index.NAME}), desc="verify", unit=" shard", mininterval=1, delay=2):
        if how := _change(folder / name, held[name]):
            rows = np.flatnonzero(pc.equal(table["shard"], name).to_numpy()).tolist()
            lost = [row for row in rows if outside[row] or _image(folder, _row(table, row)) is None]
            found.append(Harm(folder / name, how, lost, len(rows)))
            outside[rows] = False  # counted
    return found + _strange(folder, table, outside)


def _strange(folder: Path, table: pa.Table, outside: np.ndarray) -> list[Harm]:
    """What an index of strangers may hold: rows that lead out of the tars."""
    lost = np.flatnonzero(outside).tolist()
    return [Harm(folder / index.NAME, "names what no tar of the manifest holds", lost, table.num_rows)] if lost else []


def _outside(folder: Path, table: pa.Table, held: dict) -> np.ndarray:
    """True for the rows of the index whose place is not inside of a tar that the manifest names; nothing else is read."""
    names = sorted(held.keys() - {index.NAME})
    lengths = np.array([(folder / name).stat().st_size if (folder / name).is_file() else 0 for name in names] + [0])
    tar = pc.fill_null(pc.index_in(table["shard"], value_set=pa.array(names, pa.string())), len(names)).to_numpy()
    wrong = np.logical_or.reduce([column.is_null().to_numpy() for column in table.columns])
    for part, most in (("image", index.LARGEST), ("text", index.LONGEST)):
        start, size = (pc.fill_null(table[f"{part}_{what}"], -1).to_numpy() for what in ("offset", "bytes"))
        wrong |= (start < 0) | (size < 0) | (size > most) | (start > lengths[tar] - size)
    return wrong


def _size(path: Path, held: dict) -> str:
    if not path.is_file():
        return "is no file" if path.exists() else "is missing"
    long = path.stat().st_size
    return "" if long == held["bytes"] else f"was changed, it is {long} bytes long, the manifest says {held['bytes']}"


def _change(path: Path, held: dict) -> str:
    how = _size(path, held)
    if not how and files.sha256(path) != held["sha256"]:
        return "was changed, its sha256 is not the manifest's"
    return how


def _index(folder: Path) -> pa.Table:
    """The captions are read from it, so that it must be the one that was made."""
    if how := _change(folder / index.NAME, _held(folder)[index.NAME]):
        raise ValueError(f"{folder / index.NAME} {how}: {cure(folder, index_alone=True)}")
    return schemas.read(folder / index.NAME, schemas.INDEX).combine_chunks()


def _held(folder: Path) -> dict:
    """File -> size and sha256."""
    path = folder / index.MANIFEST
    if not path.exists():
        other = f"where other tools made the tars, `{index.COMMAND} {folder}`"
        raise ValueError(f"{path} is missing, the shards are not complete: {cure(folder)}; {other}")
    told = files.read_json(path)
    held = told.get("files") if isinstance(told, dict) else None
    if not isinstance(held, dict) or index.NAME not in held:
        raise ValueError(f"{path} names no {index.NAME}, so {folder} holds no shards: name the folder of the tars")
    for name, about in held.items():
        if not isinstance(about, dict) or {"bytes", "sha256"} - about.keys() or name != Path(name).name or "\0" in name:
            raise ValueError(
                f"{path} names {name!r}, expected a file of this folder, its size and sha256: {cure(folder)}"
            )
    return held


def cure(folder: Path, index_alone: bool = False) -> str:
    """How the shards become whole. Snakemake looks at the manifest alone and sees no shard go: `vikdf recover` sees it."""
    path = Path(folder) / index.MANIFEST
    if index_alone:
        return f"where the tars are whole, `{index.COMMAND} {folder}` makes their index again"
    if path.exists() and files.read_json(path).get("made_by") == index.COMMAND:
        return f"copy the tars anew, or run `{index.COMMAND} {folder}` to take them as they are"
    return "copy the shards anew, or make the shards again: of a run's own, `vikdf recover`"
