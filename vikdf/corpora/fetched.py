"""Reads a shard that was fetched, in the order of its list and in bounded memory.

In: a parquet that img2dataset's writer wrote, its rows as they came in, and the part of the list that it answers. Out: a row
for each url of the list, with its picture; `failed` where the shard has none.

A shard may be larger than memory, and with few connections a host its order is far from the list's. So its pictures are
read in rounds of HELD bytes, each over those row groups that hold any of them: at most HELD + 2 * (progress.WAITING +
max_bytes), the latter for a row group as it lies and as Arrow picks from it. A shard of more than HELD is read some
1 + its bytes / HELD times, which is fast beside the web.
"""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vikdf import schemas

HELD = 1 << 27  # bytes


def rows(path: Path, listed: list[dict], pictures: bool) -> Iterator[dict]:
    """What a shard says of the urls, in their order, with pictures or without."""
    lost = {"error_message": "failed", "width": None, "height": None}
    with _named(path), pq.ParquetFile(path, pre_buffer=False) as stream:
        said = stream.read(columns=["id", *lost]).to_pylist()
        groups = [[number] * stream.metadata.row_group(number).num_rows for number in range(stream.num_row_groups)]
        group = {row["id"]: number for row, number in zip(said, itertools.chain(*groups), strict=True)}
        said = {row["id"]: row for row in said}
        for some in _rounds(stream, listed) if pictures else [listed]:
            images = _pictures(stream, group, {row["id"] for row in some}) if pictures else {}
            for row in some:
                yield row | said.get(row["id"], lost) | {"image": images.pop(row["id"], None)}


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except (*schemas.UNREADABLE, ValueError, KeyError) as error:
        told = str(error).split("\n")[0]
        raise ValueError(
            f"{path} is damaged ({told}): delete it and run this step again, and it is fetched anew"
        ) from None


def _pictures(stream: pq.ParquetFile, group: dict[str, int], wanted: set[str]) -> dict[str, bytes]:
    found, wanted = {}, wanted & group.keys()
    for number in sorted({group[name] for name in wanted}):
        read = stream.read_row_group(number, columns=["id", "image"])
        read = read.filter(pc.is_in(read["id"], pa.array(sorted(wanted))))
        found |= zip(read["id"].to_pylist(), read["image"].to_pylist(), strict=True)
    return found


def _rounds(stream: pq.ParquetFile, listed: list[dict]) -> Iterator[list[dict]]:
    """Pieces of the list whose pictures have HELD bytes together; a single picture may be larger than that."""
    groups = map(stream.metadata.row_group, range(stream.num_row_groups))
    if sum(group.total_byte_size for group in groups) <= HELD:
        yield listed
        return
    sizes = {}
    for number in range(stream.num_row_groups):
        read = stream.read_row_group(number, columns=["id", "image"])
        sizes |= zip(read["id"].to_pylist(), pc.binary_length(read["image"]).to_pylist(), strict=True)
    some, held = [], 0
    for row in listed:
        size = sizes.get(row["id"]) or 0
        if some and held + size > HELD:
            yield some
            some, held = [], 0
        some.append(row)
        held += size
    yield some
