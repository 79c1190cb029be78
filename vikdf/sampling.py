"""Samples captions of every picture and scores them and the published ones with CLIP: the long half of `caption`.

In: the filtered pictures (PAIRS), a captioner's folder, a CLIP folder, a piece of work that state.claim gave.
Out: product/scored.parquet of that work (CAPTIONS, best first; nothing chosen yet).
Run: python -m vikdf.caption, which chooses among what stands there.

Pictures are taken in pieces of CHUNK. A finished piece carries the digest of its bytes in its name: a run goes on after
the last one, and a damaged one is made again. Random numbers are a function of the seed and the picture's key.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from vikdf import files, schemas, space
from vikdf.decode import opened
from vikdf.signals import Signals, stop

CHUNK = 500  # pictures of one finished piece: what a killed run repeats at most
TEXTS = 2  # texts that CLIP reads at once for each caption sampled at once: it keeps no keys and values of them
TEXT = 200  # bytes of a sampled caption with its key and score, at most
BROKEN = "broken_picture"  # the reason of all captions of a picture that cannot be decoded


def numbers(seed: int, key: str, shape: tuple[int, ...]):
    """The picture's own random numbers: uniform, a function of the seed and the key alone."""
    import numpy as np

    own = hashlib.sha256(f"{seed} {key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(own[:16])).random(shape, dtype=np.float32)


def where() -> str:
    """In which numbers and on what kind of device: pieces that were sampled elsewhere would say other things."""
    import torch

    from vikdf.model import captioner

    device, dtype = captioner.place()
    return f"{dtype} on {device.type}, torch {torch.__version__}"


def collapse(web: list[str], synthetic: list[str]) -> list[tuple[str, str]]:
    """(caption, origin) of each candidate once; the published text stands for a sampled one that says the same."""
    once = {}
    for origin, texts in (("web", web), ("synthetic", synthetic)):
        for text in texts:
            once.setdefault(" ".join(text.lower().split()), (text, origin))
    return list(once.values())


def cosines(clip, pixels, texts: list[list[str]], most: int) -> list[list[float]]:
    """CLIP's cosine of each picture [B, 3, S, S] and each of its texts; at most `most` of either are read at a time.

    A text that several pictures have is read once.
    """
    import torch

    device = next(clip.parameters()).device
    place = {text: i for i, text in enumerate(sorted({text for row in texts for text in row}))}
    each_time = -(-len(place) // -(-len(place) // most))  # parts of like size: a small rest would be rounded otherwise
    parts = [list(place)[start : start + each_time] for start in range(0, len(place), each_time)]
    text = torch.cat([_unit(clip.embed_text(clip.tokenize(part).to(device))) for part in parts])  # [texts, E]
    image = torch.cat([_unit(clip.embed_image(part.to(device))) for part in pixels.split(most)])  # [B, E]
    return [(text[[place[each] for each in row]] @ vector).tolist() for row, vector in zip(texts, image, strict=True)]


def _unit(vectors):
    """Vectors in float32: bfloat16 would round their lengths, and with them the order of two near texts."""
    import torch

    return vectors if vectors.dtype == torch.float32 else torch.nn.functional.normalize(vectors.float(), dim=-1)


def candidates_of(rows: list[dict], captioner, clip, sampling: dict, batch: int) -> list[dict]:
    """All candidates of some pictures with their scores, best first (CAPTIONS, nothing chosen yet)."""
    import torch

    good, seen, compared = [], [], []
    for row in rows:  # one decoded picture at a time is in memory
        if picture := opened(row["image"]):
            good.append(row)
            seen.append(captioner.look([picture]))
            compared.append(clip.preprocess(picture))
    kept, scores = [], []
    if good:
        shape = (sampling["candidates"], sampling["max_new_tokens"])
        own = [torch.from_numpy(numbers(sampling["seed"], row["key"], shape)) for row in good]
        sampled = captioner.sample(torch.cat(seen), torch.stack(own), sampling["top_p"])
        kept = [collapse(row["captions"], texts) for row, texts in zip(good, sampled, strict=True)]
        scores = cosines(clip, torch.stack(compared), [[text for text, _ in each] for each in kept], TEXTS * batch)
    made = {row["key"]: ranked(row, each, scored) for row, each, scored in zip(good, kept, scores, strict=True)}
    return [each for row in rows for each in made.get(row["key"]) or unseen(row)]


def ranked(row: dict, found: list[tuple[str, str]], scores: list[float]) -> list[dict]:
    """The candidates of a picture, best first; of equal scores the published one stands first."""
    order = sorted(zip(scores, found, strict=True), key=lambda item: (-item[0], item[1][1] != "web", item[1][0]))
    about = {"key": row["key"], "source": row["source"], "used": False, "dropped": ""}
    return [
        about | {"caption": text, "origin": origin, "score": score, "rank": rank}
        for rank, (score, (text, origin)) in enumerate(order)
    ]


def unseen(row: dict) -> list[dict]:
    """The published captions of a picture that cannot be decoded: without a score, and dropped."""
    found = collapse(row["captions"], []) or [("", "web")]
    made = ranked(row, found, [0.0] * len(found))
    return [each | {"score": None, "dropped": BROKEN} for each in made]


def make(work, pairs: Path, captioner: Path, clip: Path, *, batch: int, **sampling) -> None:
    """Samples and scores piece by piece; pieces that are there already are not made again."""
    from vikdf.model.captioner import Captioner
    from vikdf.model.encoders import CLIP

    total = schemas.count(pairs)
    standing = found(work.checkpoints)
    left = [number for number in range(-(-total // CHUNK)) if number not in standing]
    if left:
        texts = 2 * len(left) * CHUNK * sampling["candidates"]  # in pieces, and in one table
        space.need(f"the sampled captions of {total} pictures", {work.folder: texts * TEXT})
        told = Captioner(captioner)
        models = told, CLIP.load(clip, told.dtype).to(told.device)
    done = sum(min(CHUNK, total - number * CHUNK) for number in standing)
    shown = tqdm(total=total, initial=done, desc="caption", unit=" picture", mininterval=1)
    with Signals() as signals, shown as bar:
        for number, table in pieces(pairs, left[0]) if left else ():
            if number in standing:
                continue
            made, rows = [], table.to_pylist()
            step = batch // sampling["candidates"]
            for start in range(0, len(rows), step):
                made += candidates_of(rows[start : start + step], *models, sampling, batch)
                bar.update(len(rows[start : start + step]))
            keep(work.checkpoints, number, made)
            stop(signals.name, f"piece {number + 1} of {-(-total // CHUNK)}", work.folder)
    with work.finish() as product, schemas.writer(product / "scored.parquet", schemas.CAPTIONS) as add:
        for piece in sorted(work.checkpoints.glob("*-*.parquet")):
            add(schemas.read(piece, schemas.CAPTIONS))


def pieces(pairs: Path, first: int) -> Iterator[tuple[int, pa.Table]]:
    """(number, CHUNK rows) from piece `first` on: what comes before is not read again, which is most of a list of millions."""
    wanted = pa.schema([schemas.PAIRS.field(name) for name in ("key", "source", "captions", "image")])
    held, number = wanted.empty_table(), first
    for table in schemas.batches(pairs, wanted, CHUNK, start=first * CHUNK):
        held = pa.concat_tables([held, table])
        while held.num_rows >= CHUNK:
            yield number, held.slice(0, CHUNK)
            held, number = held.slice(CHUNK), number + 1
    if held.num_rows:
        yield number, held


def keep(folder: Path, number: int, made: list[dict]) -> None:
    """Writes a piece; the name that makes it count comes last, and says what its bytes are."""
    path = folder / f"{number:06d}.parquet"
    schemas.write(made, path, schemas.CAPTIONS)
    path.rename(folder / f"{number:06d}-{files.sha256(path)[:16]}.parquet")


def found(folder: Path) -> set[int]:
    """The pieces that are there and as they were written; damaged ones are taken away."""
    whole = set()
    for path in sorted(folder.glob("*-*.parquet")):
        number, digest = path.stem.split("-")
        if digest == files.sha256(path)[:16]:
            whole.add(int(number))
        else:
            print(f"{path} is damaged: it is made again", file=sys.stderr)
            path.unlink()
    return whole
