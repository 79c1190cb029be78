"""Packs the captioned pictures into tar shards with an index.

In: the captions in use (CAPTIONS) and their pictures (PAIRS), both in the same order.
Out, all at once: <output>/00000.tar ..., index.parquet (INDEX), manifest.json (counts, size and sha256 of each file).
Run: python -m vikdf.shards --captions captions.parquet --pairs pairs.parquet --rows-per-shard 1000 ... (--help names all)

A sample is two members, <key>.<jpg|png|webp|gif|bmp> and <key>.json, so that stock webdataset reads the shards too. Ours
reads them at random: vikdf/samples.py.
"""

from collections import Counter
from pathlib import Path

from vikdf import flags, index, packing, state


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


if __name__ == "__main__":
    flags.main(shards)
