"""Reading samples out of shards: ours at random through the index, against tarfile at random and webdataset in order.

Pictures of a usual size are packed as the stage does it; nothing is decoded, since that costs every reader the same. Ours
compares the sha256 of picture and text at each read, the others compare nothing; all must give the same bytes. The last line is
ours against tarfile, which opens the tar for each sample, as one does who has no index; figures are samples a CPU second.
Run: python -m benchmarks.shards
"""

import io
import json
import logging
import random
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from vikdf import flags, schemas
from vikdf.samples import Shards
from vikdf.shards import shards

DISTINCT = 40  # pictures that are drawn; more would only take longer to draw


def pictures(side: int) -> list[bytes]:
    """JPEGs of smooth noise, about as many bytes as photographs of that size have."""
    made, lots = [], np.random.default_rng(0)
    for _ in range(DISTINCT):
        coarse = Image.fromarray(lots.integers(0, 256, (side // 6, side // 5, 3), dtype=np.uint8))
        stream = io.BytesIO()
        coarse.resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        made.append(stream.getvalue())
    return made


def pack(folder: Path, samples: int, per_shard: int, side: int) -> Path:
    """As many samples as shards below `folder`."""
    images = pictures(side)
    empty = {"source": "a", "url": "", "captions": [], "status": "ok", "width": side, "height": side}
    said = {"source": "a", "origin": "web", "score": 0.0, "rank": 0, "used": True, "dropped": ""}
    keys = [f"a-{number:09d}" for number in range(samples)]
    captions = [said | {"key": key, "caption": f"a picture, number {key}, of nothing that anyone saw"} for key in keys]
    schemas.write(captions, folder / "captions.parquet", schemas.CAPTIONS)
    with schemas.writer(folder / "pairs.parquet", schemas.PAIRS) as add:
        for start in range(0, samples, 1000):
            part = enumerate(keys[start : start + 1000], start)
            add([empty | {"key": key, "image": images[number % DISTINCT]} for number, key in part])
    tables = {"captions": folder / "captions.parquet", "pairs": folder / "pairs.parquet"}
    shards(rows_per_shard=per_shard, max_shard_bytes=10**10, output=folder / "shards", **tables)
    return folder / "shards"


def ours(opened: Shards, rows: list[int]) -> dict[str, bytes]:
    return {row["key"]: image for row, image in map(opened.read, rows)}


def by_tarfile(opened: Shards, rows: list[int]) -> dict[str, bytes]:
    """Which shard holds a sample is known; where in it is not."""
    found = {}
    for row in rows:
        key, shard = opened.index["key"][row].as_py(), opened.index["shard"][row].as_py()
        with tarfile.open(opened.folder / shard) as tar:
            found[key] = tar.extractfile(f"{key}.jpg").read()
            json.load(tar.extractfile(f"{key}.json"))
    return found


def by_webdataset(opened: Shards, rows: list[int]) -> dict[str, bytes]:
    """In the tars' order, all of them: it cannot do otherwise. Only as many as asked for are kept."""
    import webdataset

    urls, wanted = [str(path) for path in sorted(opened.folder.glob("*.tar"))], set(rows)
    read = enumerate(webdataset.WebDataset(urls, shardshuffle=False))
    return {
        sample["__key__"]: sample["jpg"] for number, sample in read if json.loads(sample["json"]) and number in wanted
    }


def measure(read: Callable, opened: Shards, rows: list[int], rounds: int) -> float:
    """Samples read in a CPU second, by the median round."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        read(opened, rows)
        seconds.append(time.process_time() - start)
    return len(rows) / median(seconds)


def main(*, samples: int = 4000, rows_per_shard: int = 1000, side: int = 384, rounds: int = 5) -> None:
    """Measures random reading through the index against reading without one.

    samples: pictures in all
    rows_per_shard: pictures in one tar
    side: pixels of a picture's shorter side
    rounds: repetitions; the medians count
    """
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        opened = Shards(pack(Path(folder), samples, rows_per_shard, side))
        size = sum(path.stat().st_size for path in opened.folder.glob("*.tar"))
        print(f"packed {samples} pictures of {size / samples / 1000:.0f} kB in {time.process_time() - start:.1f} CPU s")
        everywhere = random.Random(0).sample(range(samples), samples)
        few = everywhere[: max(20, samples // 100)]  # tarfile's reading of all would take minutes
        assert ours(opened, few) == by_tarfile(opened, few) == by_webdataset(opened, few)
        figures = {"ours, at random": measure(ours, opened, everywhere, rounds)}
        figures["webdataset, in order"] = measure(by_webdataset, opened, everywhere, rounds)
        figures["tarfile, at random"] = measure(by_tarfile, opened, few, rounds)
    mine, *_, plain = figures.values()
    for name, figure in figures.items():
        print(f"{name}: {figure:.0f} samples a CPU second, ours {mine / figure:.2f}x")
    print(f"shards {mine / plain:.2f}x  ours {mine:.0f}  plain {plain:.0f} samples a CPU second")


if __name__ == "__main__":
    flags.main(main)
