"""Packs the captioned pictures into tar shards with an index, and reads them at random.

In: the captions in use (CAPTIONS) and their pictures (PAIRS).
Out, all at once: <output>/00000.tar ..., index.parquet (INDEX), manifest.json (counts, and sha256 of each file).
Run: python -m vikdf.shards --captions captions.parquet --pairs pairs.parquet --rows-per-shard 1000 --output data/shards

A sample is two members, <key>.<jpg|png|webp|gif|bmp> and <key>.json, so that stock webdataset reads the shards too.

    shards = Shards(Path("data/shards"))
    shards[7]  # {"key": ..., "image": PIL image in RGB, "captions": [...]}
"""

import hashlib
import io
import json
import mmap
import tarfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from tqdm import tqdm

from vikdf import files, flags, schemas

KINDS = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp"}


def used_captions(path: Path) -> dict[str, list[str]]:
    """The captions in use by key, best first."""
    table = pl.from_arrow(schemas.read(path, schemas.CAPTIONS, ["key", "caption", "rank", "used", "dropped"]))
    used = table.filter(pl.col("used") & (pl.col("dropped") == "")).sort("key", "rank")
    grouped = used.group_by("key", maintain_order=True).agg("caption")
    return dict(zip(grouped["key"], grouped["caption"].to_list(), strict=True))


def samples(captions: Path, pairs: Path) -> Iterator[dict]:
    used = used_captions(captions)
    for batch in schemas.batches(pairs, schemas.PAIRS):
        for row in batch.select(["key", "source", "image"]).to_pylist():
            if row["key"] in used:
                yield row | {"captions": used.pop(row["key"])}
    if used:
        raise ValueError(
            f"{captions} has captions for {next(iter(used))}, which {pairs} does not hold: make {captions} again"
        )


class Tar:
    """A tar whose bytes depend on its members alone: no owner, no time."""

    def __init__(self, path: Path):
        self.path, self.tar = path, tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)

    def add(self, name: str, data: bytes) -> int:
        """Adds a member; gives the offset of its bytes."""
        member = tarfile.TarInfo(name)
        member.size, member.mtime = len(data), 0
        offset = self.tar.offset + len(member.tobuf(tarfile.USTAR_FORMAT))
        self.tar.addfile(member, io.BytesIO(data))
        return offset

    def close(self) -> None:
        self.tar.close()


def _kind(image: bytes) -> str:
    return next((name for magic, name in KINDS.items() if image.startswith(magic)), "bin")


def _pack(rows: Iterator[dict], per_shard: int, folder: Path) -> list[dict]:
    """Writes the shards; gives the index."""
    index, tar = [], None
    for number, row in enumerate(rows):
        if number % per_shard == 0:
            if tar:
                tar.close()
            tar = Tar(folder / f"{number // per_shard:05d}.tar")
        image, key = row["image"], row["key"]
        offset = tar.add(f"{key}.{_kind(image)}", image)
        about = {"captions": row["captions"], "key": key, "source": row["source"]}
        tar.add(f"{key}.json", json.dumps(about, ensure_ascii=False).encode())
        place = {"shard": tar.path.name, "image_offset": offset, "image_bytes": len(image)}
        index.append(about | place | {"image_sha256": hashlib.sha256(image).hexdigest()})
    if tar:
        tar.close()
    return index


def shards(*, rows_per_shard: int, captions: Path, pairs: Path, output: Path) -> None:
    """Packs the captioned pictures into tar shards with an index.

    rows_per_shard: pictures in one tar
    captions: the table of captions (CAPTIONS)
    pairs: the table of pictures (PAIRS)
    output: folder of the shards
    """
    with files.whole(output) as folder:
        folder.mkdir()
        rows = tqdm(samples(captions, pairs), desc="shards", unit=" picture", mininterval=1)
        index = _pack(rows, rows_per_shard, folder)
        if not index:
            raise ValueError(f"{captions} has no caption in use: loosen the rules of filter and caption in params.yaml")
        schemas.write(index, folder / "index.parquet", schemas.INDEX)
        files.write_json(folder / "manifest.json", _manifest(index, folder))
    print(f"{output}: {len(index)} pictures, {sum(len(row['captions']) for row in index)} captions")


def _manifest(index: list[dict], folder: Path) -> dict:
    tables = [folder / "index.parquet", *sorted(folder.glob("*.tar"))]
    held = {path.name: {"bytes": path.stat().st_size, "sha256": files.sha256(path)} for path in tables}
    sources = [row["source"] for row in index]
    return {
        "files": held,
        "rows": len(index),
        "captions": sum(len(row["captions"]) for row in index),
        "sources": {source: sources.count(source) for source in sorted(set(sources))},
    }


class Shards:
    """The samples of a folder of shards, by number, in the index's order; nothing is read before it is asked for."""

    def __init__(self, folder: Path):
        self.folder, self.open_shards = Path(folder), {}
        for name, held in _held(self.folder).items():
            path = self.folder / name
            if not path.exists():
                raise ValueError(f"{path} is missing: {_cure(self.folder)}")
            if path.stat().st_size != held["bytes"]:
                found = f"{path.stat().st_size} bytes long, the manifest says {held['bytes']}"
                raise ValueError(f"{path} was changed, it is {found}: {_cure(self.folder)}")
        self.index = schemas.read(self.folder / "index.parquet", schemas.INDEX)

    def __len__(self) -> int:
        return self.index.num_rows

    def __getitem__(self, number: int) -> dict:
        from PIL import Image

        row = self.index.slice(range(len(self))[number], 1).to_pylist()[0]
        start = row["image_offset"]
        data = self._bytes(row["shard"])[start : start + row["image_bytes"]]
        if hashlib.sha256(data).hexdigest() != row["image_sha256"]:
            raise ValueError(f"{self.folder / row['shard']} was changed at {row['key']}: {_cure(self.folder)}")
        return {"key": row["key"], "image": Image.open(io.BytesIO(data)).convert("RGB"), "captions": row["captions"]}

    def _bytes(self, shard: str) -> mmap.mmap:
        if shard not in self.open_shards:
            with open(self.folder / shard, "rb") as stream:
                self.open_shards[shard] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return self.open_shards[shard]


def verify(folder: Path) -> int:
    """Compares every file's sha256 with the manifest; gives the number of samples."""
    opened = Shards(folder)
    for name, held in _held(Path(folder)).items():
        if files.sha256(Path(folder) / name) != held["sha256"]:
            raise ValueError(f"{Path(folder) / name} was changed, its sha256 is not the manifest's: {_cure(folder)}")
    return len(opened)


def _held(folder: Path) -> dict:
    path = folder / "manifest.json"
    if not path.exists():
        raise ValueError(f"{path} is missing, the shards are not complete: {_cure(folder)}")
    return files.read_json(path)["files"]


def _cure(folder: Path) -> str:
    """--force, since Snakemake looks at the manifest alone and sees no shard go."""
    return f"run `snakemake --cores all --force {Path(folder) / 'manifest.json'}` to make the shards again"


if __name__ == "__main__":
    flags.main(shards)
