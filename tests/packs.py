"""Small tables of captions and pictures, packed into shards: what the tests of shards, index and order of keys share."""

import io
from pathlib import Path

from PIL import Image

from vikdf import schemas
from vikdf.shards import shards

ROWS = 7


def picture(number: int, form: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20 + number, 16), (number * 30 % 256, 0, 0)).save(stream, form)
    return stream.getvalue()


def key(number: int) -> str:
    return f"a-{number:09d}"


def tables(folder: Path, rows: int = ROWS, images: dict[int, bytes] | None = None) -> Path:
    """pairs.parquet and captions.parquet; of the last picture no caption is in use."""
    pairs, captions = [], []
    empty = {"source": "a", "url": "", "captions": ["web"], "status": "ok", "width": 1, "height": 1}
    said = {"source": "a", "origin": "web", "score": 0.5}
    kinds = [("spare", False, ""), ("second", True, ""), ("joined", True, "names_noun_and_look"), ("best", True, "")]
    for number in range(rows + 1):
        image = (images or {}).get(number) or picture(number, "PNG" if number % 2 else "JPEG")
        pairs.append(empty | {"key": key(number), "image": image})
        for rank, (text, used, dropped) in enumerate(reversed(kinds if number < rows else kinds[:1])):
            about = {"caption": f"{text} {key(number)}", "rank": rank, "used": used, "dropped": dropped}
            captions.append(said | {"key": key(number)} | about)
    schemas.write(pairs, folder / "pairs.parquet", schemas.PAIRS)
    schemas.write(captions, folder / "captions.parquet", schemas.CAPTIONS)
    return folder


def pack(folder: Path, name: str = "shards", rows_per_shard: int = 3, max_shard_bytes: int = 10**9) -> Path:
    paths = {"captions": folder / "captions.parquet", "pairs": folder / "pairs.parquet", "output": folder / name}
    shards(rows_per_shard=rows_per_shard, max_shard_bytes=max_shard_bytes, **paths)
    return folder / name


def alter(shards: Path, row: dict, part: str = "image") -> None:
    """Other bytes in the middle of a sample's picture or text; the tar keeps its size."""
    with open(shards / row["shard"], "r+b") as stream:
        stream.seek(row[f"{part}_offset"] + 5)
        stream.write(b"\xff\x00\xff")
