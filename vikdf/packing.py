"""What the stage shards does: captions and pictures joined in constant memory, and written as tars of bounded size.

In: the captions in use (CAPTIONS) and their pictures (PAIRS), in the same order. Out: `begun`, a hidden folder beside the
output, which takes its place at the end; `packed`, each tar that was written to it with its rows of the index (INDEX).
A tar and its rows in the hidden folder are whole: a run that was killed goes on after the last of them. Used by vikdf.shards.
"""

import contextlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, islice, takewhile
from pathlib import Path

import polars as pl
import pyarrow as pa
from tqdm import tqdm

from vikdf import files, index, schemas, space
from vikdf.decode import suffix
from vikdf.tars import Tar

BATCH = 100  # pictures in memory at a time


def used_captions(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(key, captions in use, best first) of each picture that has one, in the table's order."""
    rows = (row for batch in schemas.batches(path, schemas.CAPTIONS, 10_000) for row in _in_use(batch))
    for key, group in groupby(rows, key=lambda row: row["key"]):
        yield key, [row["caption"] for row in sorted(group, key=lambda row: row["rank"])]


def _in_use(batch: pa.Table) -> list[dict]:
    said = pl.col("caption").str.strip_chars() != ""
    table = pl.from_arrow(batch.select(["key", "caption", "rank", "used", "dropped"]))
    return table.filter(pl.col("used") & (pl.col("dropped") == "") & said).select("key", "caption", "rank").to_dicts()


def samples(captions: Path, pairs: Path, columns: tuple[str, ...] = ("key", "source", "image")) -> Iterator[dict]:
    """The pictures that have a caption in use, with their captions; neither table is held in memory."""
    used = used_captions(captions)
    key, said = next(used, ("", []))
    for batch in schemas.batches(pairs, pa.schema([schemas.PAIRS.field(name) for name in columns]), BATCH):
        for row in batch.to_pylist():
            if row["key"] == key:
                yield row | {"captions": said}
                key, said = next(used, ("", []))
    if key:
        raise ValueError(
            f"{captions} has captions for {key}, which {pairs} does not hold there (both are to be in the same order): "
            f"make {captions} again"
        )


def _members(row: dict) -> dict[str, bytes]:
    about = {name: row[name] for name in ("captions", "key", "source")}
    named = {f"{row['key']}.{suffix(row['image'])}": row["image"]}
    return named | {f"{row['key']}.json": json.dumps(about, ensure_ascii=False).encode()}


def _write_tars(rows: Iterator[dict], number: int, per_shard: int, max_bytes: int, folder: Path) -> Iterator[Path]:
    """Writes the tars from this number on; a sample that is larger than a tar may be has one of its own."""
    tar, held = None, 0
    for row in rows:
        members = _members(row)
        if tar and (held == per_shard or tar.bytes_with(map(len, members.values())) > max_bytes):
            tar.close()
            yield tar.path
            tar, held, number = None, 0, number + 1
        tar, held = tar or Tar(folder / f"{number:05d}.tar"), held + 1
        for name, data in members.items():
            tar.add(name, data)
    if tar:
        tar.close()
        yield tar.path


def packed(captions: Path, pairs: Path, folder: Path, **bounds: int) -> Iterator[tuple[Path, pa.Table]]:
    """Each tar with its rows of the index: those that are whole already, then the others as they are written."""
    total, done = sum(1 for _ in samples(captions, pairs, ("key",))), 0
    if not total:
        raise ValueError(f"{captions} has no caption in use: loosen the rules of filter and caption in params.yaml")
    wanted = pairs.stat().st_size * total // schemas.count(pairs)  # of all pictures, those that have a caption
    space.need(f"the shards of {total} pictures", {folder: wanted - space.held(folder)})
    pieces = list(takewhile(_sound, _pieces(folder)))
    for piece in pieces:
        rows = schemas.read(piece, schemas.INDEX)
        done += rows.num_rows
        yield piece.with_suffix(".tar"), rows
    left = islice(samples(captions, pairs), done, None)
    shown = tqdm(left, desc="shards", unit=" picture", mininterval=1, total=total, initial=done)
    for path in _write_tars(shown, len(pieces), folder=folder, **bounds):
        dropped = Counter()
        rows = index.table(index.read_tar(path, ""), dropped)
        if dropped:
            raise ValueError(f"{path}: a sample that was just written is not found again ({', '.join(dropped)})")
        schemas.write(rows, path.with_suffix(".parquet"), schemas.INDEX)
        yield path, rows


def _sound(piece: Path) -> bool:
    """Whether a tar still holds what its rows say, byte for byte; from a damaged one on, all are packed again."""
    try:
        rows = schemas.read(piece, schemas.INDEX)
        sound = index.table(index.read_tar(piece.with_suffix(".tar"), ""), Counter()).equals(rows)
    except (ValueError, FileNotFoundError):
        sound = False
    if not sound:
        print(f"{piece.with_suffix('.tar')} is damaged: it is packed again", file=sys.stderr)
    return sound


def _pieces(folder: Path) -> list[Path]:
    """A tar's rows of the index, written when it was whole."""
    return sorted(folder.glob("[0-9]*.parquet"))


@contextlib.contextmanager
def begun(output: Path, work: dict) -> Iterator[Path]:
    """The hidden folder with what a killed run of the same work left whole; it takes the place of `output` at the end."""
    folder = output.parent / f".{output.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    with files.alone(folder, str(folder), folder=True):
        files.clear(output)  # a kill between two renames leaves the old shards hidden
        if _begun(folder) != work:
            _clear(folder, set())
            files.write_checked(folder / "work.json", work)
        whole = {piece.with_suffix(kind).name for piece in _pieces(folder) for kind in (".tar", ".parquet")}
        _clear(folder, {"work.json", *whole})
        yield folder
        _clear(folder, {index.NAME, index.MANIFEST, *(path.name for path in index.tars_of(folder))})
        files.put(folder, output)


def _begun(folder: Path) -> dict | None:
    """The work that left what is there; None where nothing tells."""
    with contextlib.suppress(ValueError, FileNotFoundError):
        return files.read_checked(folder / "work.json")
    return None


def _clear(folder: Path, kept: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
