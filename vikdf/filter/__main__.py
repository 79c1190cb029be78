"""Keeps the pairs that are worth learning from; what is dropped is counted under the rule that dropped it.

In: the sources' tables (PAIRS, with rows that have no picture).
Out: <output>/pairs.parquet (PAIRS: kept rows, captions that survive); counts by reason as report.parquet, report.txt, report.svg;
manifest.json last.
Run: python -m vikdf.filter --pairs data/sources/coco.parquet --output data/filter ... (--help names all)

A rule is an expression, true for what it drops (vikdf/filter/rules.py); the first one that holds is the reason. Captions go
first: of two equal pictures the one with a usable caption stays. Tables may be larger than memory:

1. captions, some rows at a time; what is decided lies in files (vikdf/filter/verdicts.py), and of each text its hashes;
2. texts on many pictures, a partition of the hashes at a time (vikdf/filter/repeats.py);
3. pictures of rows that are left, one at a time, each turned into 157 bytes on disk: the long part, which a killed run
   goes on with; then equal and nearly equal ones (vikdf/filter/near.py);
4. verdicts.parquet, and with it the kept rows are copied from the sources' tables.

Memory: 0.5 GB and 100 bytes for each picture that a caption is left of, whatever else the tables hold (a list of 12
million pictures: 1.7 GB). Disk, until the end: 70 bytes a caption and 157 a picture, below state/filter/.
"""

import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from vikdf import files, flags, schemas
from vikdf.filter import funnel, near, rules
from vikdf.filter.repeats import Repeats
from vikdf.filter.verdicts import Verdicts
from vikdf.state import claim

ROWS = 65_536  # rows at a time, where they are small
BYTES = 64_000_000  # and where they are not
IMAGES = 1000  # rows with pictures at a time; the kept ones are a row group of pairs.parquet
TEXTS = pa.schema([schemas.PAIRS.field(name) for name in ("url", "captions", "status", "width", "height")])
WHOSE = pa.schema([schemas.PAIRS.field(name) for name in ("key", "source")])
PICTURES = pa.schema([schemas.PAIRS.field("image")])

# One row a row of the sources: why it goes, and why each of its captions goes; empty for what stays.
VERDICTS = pa.schema(
    [("key", pa.string()), ("source", pa.string()), ("reason", pa.string()), ("captions", pa.list_(pa.string()))]
)
LOOK = np.dtype(
    [("row", "<u8"), ("fine", "u1"), ("sha256", "<u8", 4), ("hash", "<u8"), ("colours", "u1", near.COLOURS)]
)  # 157 bytes


def _batches(path: Path, schema: pa.Schema, most: int, start: int = 0) -> Iterator[pa.Table]:
    """The table some rows at a time: fewer than `most` where captions are long or pictures large."""
    return schemas.batches(path, schema, rows=min(most, _rows_of(path, schema, BYTES)), start=start)


def _rows_of(path: Path, schema: pa.Schema, most: int) -> int:
    """How many of the table's heaviest rows are so many bytes."""
    schemas.count(path)  # names what is wrong with the file
    found = pq.read_metadata(path)
    columns = [n for n in range(found.num_columns) if found.schema.column(n).path.split(".")[0] in schema.names]
    heaviest = 1.0
    for group in map(found.row_group, range(found.num_row_groups)):
        heavy = sum(group.column(number).total_uncompressed_size for number in columns)
        heaviest = max(heaviest, heavy / max(group.num_rows, 1))
    return max(1, int(most / heaviest))


def judge_captions(pairs: list[Path], params: dict, folder: Path) -> Verdicts:
    """What statuses, sizes, hosts and captions decide, without a look at the pictures."""
    verdicts, repeats = Verdicts(folder), Repeats(folder)
    for path in pairs:
        for batch in tqdm(_batches(path, TEXTS, ROWS), desc=f"read {path}", unit=" batch", mininterval=1):
            rows = pl.from_arrow(batch)
            numbers = verdicts.number(rows["status"])
            ruled = rows.select(rules.first(rules.PICTURE_RULES, params)).to_series().to_numpy()
            numbers = np.where(numbers == 0, ruled, numbers)
            rows = rows.select(lengths=pl.col("captions").list.len(), captions="captions").filter(numbers == 0)
            lengths = np.zeros(len(numbers), np.uint32)
            lengths[numbers == 0] = rows["lengths"].to_numpy()
            texts = judge_texts(rows, params)
            places = texts.with_row_index("place", verdicts.size["captions"])
            repeats.add(places.filter(pl.col("number") == 0))
            verdicts.append(rows=numbers, lengths=lengths, captions=texts["number"].to_numpy())
    for name, captions in repeats.many(params["max_pictures_a_caption"]):
        verdicts.mark("captions", captions, name)
    verdicts.follow_captions()
    return verdicts


def judge_texts(rows: pl.DataFrame, params: dict) -> pl.DataFrame:
    """One row a caption of rows (lengths, captions): the number of its reason and the hashes of its text."""
    said = (
        rows.with_row_index("row")
        .explode("captions")
        .select("row", "lengths", caption=pl.col("captions").fill_null(""))
    )
    normal = rules.normal()
    texts = said.lazy().with_columns(
        number=rules.first(rules.CAPTION_RULES, params),
        exact=pl.col("caption").hash(0),
        normal=normal.hash(1),
        normal_too=normal.hash(2),
    )
    texts = texts.collect()
    number = texts["number"].to_numpy().copy()
    if params["detector"]:
        left = np.flatnonzero(number == 0)
        number[left] = texts[left].select(rules.first(rules.COSTLY_RULES, params)).to_series().to_numpy()
    for name, forms in {"same_caption_again": ["exact"], "same_words_again": ["normal", "normal_too"]}.items():
        left = np.flatnonzero((number == 0) & (texts["lengths"] > 1).to_numpy())
        again = texts[left].select(~pl.struct("row", *forms).is_first_distinct()).to_series().to_numpy()
        number[left[again]] = rules.NAMES.index(name)
    return texts.select("exact", "normal", "normal_too", number=pl.Series(number))


def take_looks(pairs: list[Path], verdicts: Verdicts, file: Path) -> None:
    """Appends a LOOK for each picture that is left; goes on after the last one that is there as it was written."""
    file.touch()
    done, crc32 = _looked(file)
    os.truncate(file, done * LOOK.itemsize)
    goal = int(np.fromfile(file, LOOK, 1, offset=(done - 1) * LOOK.itemsize)["row"][0]) + 1 if done else 0
    first = 0  # the table's first row
    for path in pairs:
        count = schemas.count(path)
        at = max(first, min(goal, first + count))
        with tqdm(desc=f"look at {path}", total=count, initial=at - first, unit=" rows", mininterval=1) as bar:
            for batch in _batches(path, PICTURES, IMAGES, start=at - first) if at < first + count else ():
                left = np.flatnonzero(verdicts.read("rows", at, len(batch)) == 0)
                looks = _looks(at + left, batch["image"].take(left).to_pylist())
                with open(file, "ab") as stream:
                    looks.tofile(stream)
                done, crc32 = done + len(looks), zlib.crc32(looks.tobytes(), crc32)
                files.write_checked(file.with_suffix(".json"), {"looks": done, "crc32": crc32})
                at += len(batch)
                bar.update(len(batch))
        first += count


def _looked(file: Path) -> tuple[int, int]:
    """How many LOOKs are there, and their checksum; 0 where they are not what was written."""
    try:
        kept = files.read_checked(file.with_suffix(".json"))
    except (ValueError, FileNotFoundError):
        return 0, 0
    crc32 = 0
    for start in range(0, kept["looks"], ROWS):
        some = np.fromfile(file, LOOK, min(ROWS, kept["looks"] - start), offset=start * LOOK.itemsize)
        crc32 = zlib.crc32(some.tobytes(), crc32)
    if crc32 != kept["crc32"]:
        print(f"{file} is damaged: the pictures are looked at again", file=sys.stderr)
        return 0, 0
    return kept["looks"], crc32


def _looks(rows: np.ndarray, images: list[bytes | None]) -> np.ndarray:
    looks = np.zeros(len(rows), LOOK)
    looks["row"] = rows
    for look, image in zip(looks, images, strict=True):
        if seen := near.look(image):
            sha256, look["hash"], colours = seen
            look["sha256"], look["colours"] = np.frombuffer(sha256, "<u8"), np.frombuffer(colours, np.uint8)
            look["fine"] = 1
    return looks


def _field(file: Path, name: str) -> np.ndarray:
    """One field of all LOOKs."""
    found = np.empty((file.stat().st_size // LOOK.itemsize, *LOOK[name].shape), LOOK[name].base)
    for start in range(0, len(found), ROWS):
        found[start : start + ROWS] = np.fromfile(file, LOOK, ROWS, offset=start * LOOK.itemsize)[name]
    return found


def judge_looks(verdicts: Verdicts, file: Path, params: dict) -> None:
    """Pictures that cannot be read, are blocked, or equal or nearly equal an earlier one that is left."""
    rows, fine = _field(file, "row"), _field(file, "fine") == 1
    verdicts.mark("rows", rows[~fine], "unreadable")
    tests = {
        "blocked_picture": lambda at: _blocked(_field(file, "sha256")[at], params["blocked_pictures"]),
        "same_picture_again": lambda at: _again(_field(file, "sha256")[at, :2]),
        "near_picture_again": lambda at: near.near_again(
            _field(file, "hash")[at],
            lambda some: np.memmap(file, LOOK, "r")["colours"][at[some]],
            params["near_picture_bits"],
        ),
    }
    left = np.flatnonzero(fine)
    for name, test in tests.items():
        if len(left):
            dropped = test(left)
            verdicts.mark("rows", rows[left[dropped]], name)
            left = left[~dropped]


def _blocked(digests: np.ndarray, blocked: list[str]) -> np.ndarray:
    known = {bytes.fromhex(each) for each in blocked}
    return np.array([bool(known) and each.tobytes() in known for each in digests], bool)


def _again(digests: np.ndarray) -> np.ndarray:
    """True for a digest [n, 2] that stood earlier."""
    order = np.lexsort(digests.T)  # equal ones stay in their order
    again = np.zeros(len(digests), bool)
    again[order[1:]] = (digests[order[1:]] == digests[order[:-1]]).all(axis=1)
    return again


def write_verdicts(pairs: list[Path], verdicts: Verdicts, path: Path) -> Counter:
    """Writes the VERDICTS; gives the counts by source, unit and reason."""
    counts, following = Counter(), verdicts.reader()
    names = pa.array(verdicts.names)
    with schemas.writer(path, VERDICTS) as add:
        for batch in chain.from_iterable(_batches(each, WHOSE, ROWS) for each in pairs):
            rows, lengths, captions = following(len(batch))
            counts += verdicts.count(pl.from_arrow(batch["source"]), rows, lengths, captions)
            reasons = [
                pa.DictionaryArray.from_arrays(pa.array(each), names).cast(pa.string()) for each in (rows, captions)
            ]
            ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            told = [*batch.columns, reasons[0], pa.ListArray.from_arrays(ends, reasons[1])]
            add(pa.Table.from_arrays(told, schema=VERDICTS))
    return counts


def merge(pairs: list[Path], verdicts: Path, output: Path) -> None:
    """Copies the rows that stay, with the captions that stay, from the sources' tables."""
    told = schemas.batches(verdicts, VERDICTS, rows=ROWS)
    ahead = next(told)
    with schemas.writer(output, schemas.PAIRS) as add:
        for batch in chain.from_iterable(_batches(path, schemas.PAIRS, IMAGES) for path in pairs):
            while len(ahead) < len(batch):
                ahead = pa.concat_tables([ahead, next(told)])
            add(kept(batch, ahead.slice(0, len(batch))))
            ahead = ahead.slice(len(batch))


def kept(pairs: pa.Table, verdicts: pa.Table) -> pa.Table:
    assert pairs["key"] == verdicts["key"], "the verdicts are of other rows"
    stays = pl.from_arrow(verdicts["reason"]) == ""
    said = pl.DataFrame({"said": pl.from_arrow(pairs["captions"]), "reason": pl.from_arrow(verdicts["captions"])})
    said = said.with_row_index().filter(stays).explode("said", "reason").filter(pl.col("reason") == "")
    said = said.group_by("index", maintain_order=True).agg("said")["said"]
    place = pairs.column_names.index("captions")
    captions = said.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pairs.schema.field(place).type)
    return pairs.filter(stays.to_arrow()).set_column(place, pairs.schema.field(place), captions)


def judge(pairs: list[Path], params: dict, folder: Path, product: Path) -> None:
    """Decides on every row and caption; leaves VERDICTS and the report in the product's folder."""
    verdicts = judge_captions(pairs, params, folder)
    take_looks(pairs, verdicts, folder / "looks")
    judge_looks(verdicts, folder / "looks", params)
    report = funnel.table(write_verdicts(pairs, verdicts, product / "verdicts.parquet"), rules.off(params))
    if "kept" not in report.filter(unit="picture")["reason"]:
        raise ValueError(
            "no pair is left, loosen the rules of `filter` in params.yaml; what dropped them:\n"
            + funnel.written(report)
        )
    funnel.write(report, product)


def filter_pairs(
    *,
    min_words: int,
    max_words: int,
    min_letters: float,
    boilerplate: list,
    detector: dict | None,
    blocklists: dict,
    max_pictures_a_caption: int,
    min_side: int,
    max_aspect: float,
    near_picture_bits: int,
    pairs: list[Path],
    output: Path,
    state: Path,
) -> None:
    """Keeps the pairs that are worth learning from and counts what is dropped, by rule and source.

    min_words: fewest words of a caption
    max_words: most words of a caption
    min_letters: smallest share of letters among a caption's characters
    boilerplate: patterns of texts that tell of the page, not of the picture
    detector: null, or {name, languages, sure}: a caption in none of these languages goes where the detector is that sure
    blocklists: {words, hosts, pictures}: files with one a line, or null; pictures by their sha256
    max_pictures_a_caption: a text on more pictures tells of none of them
    min_side: pixels of a picture's shorter side
    max_aspect: a picture's longer side by its shorter
    near_picture_bits: bits in which the hashes of near duplicates may differ
    pairs: the sources' tables, the first ones first when pictures repeat
    output: folder of the kept pairs and the report
    state: folder of what was decided and of unfinished work
    """
    asked = {name: value for name, value in locals().items() if name not in ("pairs", "output", "state")}
    params = rules.prepared(asked)
    inputs = {f"pairs {number}": path for number, path in enumerate(pairs)}
    inputs |= {name: Path(path) for name, path in blocklists.items() if path}
    (output / "manifest.json").unlink(missing_ok=True)  # its existence means complete
    with claim(state, "filter", ["filter"], asked | rules.detector(params), inputs) as work:
        if not work.finished:
            work.checkpoints.mkdir(exist_ok=True)
            with work.finish() as product:
                judge(pairs, params, work.checkpoints, product)
        merge(pairs, work.product / "verdicts.parquet", output / "pairs.parquet")
        for name in funnel.FILES:
            work.export(output / name, name)
    made = files.named([output / name for name in ("pairs.parquet", *funnel.FILES)])
    files.write_json(output / "manifest.json", {"files": made} | funnel.counts(output))
    print((output / "report.txt").read_text())


if __name__ == "__main__":
    flags.main(filter_pairs)
