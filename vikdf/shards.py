"""Packs the captioned pictures into tar shards with an index, and reads them at random.

In: the captions in use (CAPTIONS) and their pictures (PAIRS), both in the same order.
Out, all at once: <output>/00000.tar ..., index.parquet (INDEX), manifest.json (counts, size and sha256 of each file).
Run: python -m vikdf.shards --captions captions.parquet --pairs pairs.parquet --rows-per-shard 1000 ... (--help names all)

A sample is two members, <key>.<jpg|png|webp|gif|bmp> and <key>.json, so that stock webdataset reads the shards too.

    shards = Shards(Path("data/shards"))  # or a folder of img2dataset's, after `vikdf index FOLDER`
    shards[7]  # {"key": ..., "image": PIL image in RGB, "captions": [...]}
    Shards(folder, harmed="skip")  # goes on without the samples that are harmed, and says how many they are
"""

import io
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from vikdf import files, flags, index, packing, schemas, state
from vikdf.corpora.pictures import FORMATS, UNDECODABLE

GO_ON = "to go on without what is harmed, open them as `Shards(folder, harmed='skip')`"
SHOWN = 5  # files in a sentence; more are counted


def shards(*, rows_per_shard: int, max_shard_bytes: int, captions: Path, pairs: Path, output: Path) -> None:
    """Packs the captioned pictures into tar shards with an index.

    rows_per_shard: pictures in one tar, at most
    max_shard_bytes: bytes of one tar, at most; a single picture that needs more has a tar of its own
    captions: the table of captions (CAPTIONS)
    pairs: the table of pictures (PAIRS)
    output: folder of the shards
    """
    bounds = {"per_shard": rows_per_shard, "max_bytes": max_shard_bytes}
    work = bounds | {"code": state.code_digest(["packing"])}
    for path in (captions, pairs):
        if not path.exists():
            raise ValueError(f"{path} is missing: run `snakemake --cores all {path}` to make it")
        work[path.name] = [path.stat().st_size, path.stat().st_mtime_ns]  # its sha256 would be hours over terabytes
    with packing.begun(output, work) as folder:
        made = index.write(folder, packing.packed(captions, pairs, folder, **bounds), Counter(), "vikdf.shards")
    print(f"{output}: {made['rows']} pictures, {made['captions']} captions, {len(made['files']) - 1} tars")


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
        from PIL import Image

        row, image = self.read(number)
        try:
            picture = Image.open(io.BytesIO(image), formats=FORMATS).convert("RGB")
        except (*UNDECODABLE, Image.DecompressionBombError) as error:
            where = f"{row['key']} in {self.folder / row['shard']}"
            raise ValueError(
                f"the picture of {where} cannot be decoded ({error}): leave it out of the shards"
            ) from None
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
        raise ValueError(f"{folder / index.NAME} {how}: {cure(folder)}")
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


def cure(folder: Path) -> str:
    """--force, since Snakemake looks at the manifest alone and sees no shard go."""
    path = folder / index.MANIFEST
    if path.exists() and files.read_json(path).get("made_by") == index.COMMAND:
        return f"copy the tars anew, or run `{index.COMMAND} {folder}` to take them as they are"
    return f"run `snakemake --cores all --force {path}` to make the shards again"


if __name__ == "__main__":
    flags.main(shards)
