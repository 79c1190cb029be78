"""The index of a folder of tar shards, ours or img2dataset's: where each sample lies, and the sha256 of its bytes.

In: <folder>/*.tar as webdataset has them, a picture and a .json or .txt under one key. Nothing is unpacked.
Out: <folder>/index.parquet (INDEX: one row a sample, in the tars' order), and last manifest.json: counts, drops by reason,
size and sha256 of each file. vikdf.samples.Shards then reads the folder at random. Used by the stage shards.
Run: vikdf index FOLDER
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from vikdf import files, schemas, seals, tars
from vikdf.decode import OTHER, SUFFIXES

NAME, MANIFEST = "index.parquet", "manifest.json"
COMMAND = "vikdf index"
LARGEST, LONGEST = 1 << 28, 1 << 20  # bytes of a picture and of its text: nothing honest is longer
ROWS = 100_000  # of the index at a time


def read_tar(path: Path, source: str) -> Iterator[dict | str]:
    """Each sample's row of the index, or the reason why it has none; what a .json says of its source comes first."""
    tars.check_there(path)
    with open(path, "rb") as stream:
        for key, parts in tars.samples(tars.members(path)):
            yield _row(stream, key, parts, source) if key else next(iter(parts))


def _row(stream: BinaryIO, key: str, parts: dict[str, tars.Member], source: str) -> dict | str:
    picture = next((parts[kind] for kind in (*SUFFIXES, OTHER) if kind in parts), None)
    if picture is None:
        return "no_picture"
    bad = "no_caption"
    for text in (parts[kind] for kind in SAYS if kind in parts):
        if picture.size > LARGEST or text.size > LONGEST:
            return "too_long"
        said = tars.take(stream, text)
        captions, own, bad = SAYS[tars.split(text.name)[1]](said)
        if captions and not bad:
            where = {"key": key, "source": own or source, "shard": Path(stream.name).name, "captions": captions}
            where |= {"image_offset": picture.offset, "image_bytes": picture.size}
            where |= {"text_offset": text.offset, "text_bytes": text.size, "text_sha256": sha256(said)}
            return where | {"image_sha256": sha256(tars.take(stream, picture))}
    return bad or "no_caption"


def _json(data: bytes) -> tuple[list[str], str, str]:
    """(captions, source, what is wrong): ours has a list `captions`, img2dataset one `caption`."""
    try:
        about = json.loads(data)
    except UnicodeDecodeError:
        return [], "", "not_utf8"
    except (ValueError, RecursionError):
        return [], "", "not_json"
    if not isinstance(about, dict):
        return [], "", "not_json"
    captions, source = about.get("captions", [about.get("caption")]), about.get("source")
    captions = [text for text in captions if _is_text(text)] if isinstance(captions, list) else []
    return captions, source if _is_text(source) else "", ""


def _is_text(value) -> bool:
    """Json may hold half a character, which no table takes."""
    return isinstance(value, str) and bool(value.strip()) and not re.search("[\ud800-\udfff]", value)


def _txt(data: bytes) -> tuple[list[str], str, str]:
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        return [], "", "not_utf8"
    return [text] if text else [], "", ""


SAYS = {"json": _json, "txt": _txt}  # what may hold the captions, asked in this order


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def table(rows: Iterable[dict | str], dropped: Counter) -> pa.Table:
    """The rows as a table; the reasons are counted."""
    sound = []
    for row in rows:
        if isinstance(row, str):
            dropped[row] += 1
        else:
            sound.append(row)
    return pa.Table.from_pylist(sound, schema=schemas.INDEX)


def write(folder: Path, parts: Iterable[tuple[Path, pa.Table]], dropped: Counter, made_by: str) -> dict:
    """Writes index and manifest from (tar, its rows), one tar after the other; gives the manifest."""
    sources, captions, held, named = Counter(), 0, [], {}
    with schemas.writer(folder / NAME, schemas.INDEX) as add:
        for path, part in parts:
            named |= files.named([path])  # now, while the system still has its bytes in memory
            for each in pc.value_counts(part["source"]).to_pylist():
                sources[each["values"]] += each["counts"]
            captions += pc.sum(pc.list_value_length(part["captions"])).as_py() or 0
            held.append(part)
            if sum(each.num_rows for each in held) >= ROWS:
                add(pa.concat_tables(held))
                held = []
        add(pa.concat_tables([schemas.INDEX.empty_table(), *held]))
    counts = {"rows": sources.total(), "captions": captions, "sources": sources, "dropped": dropped}
    manifest = {"files": named | files.named([folder / NAME]), "made_by": made_by} | counts
    files.write_json(folder / MANIFEST, manifest)
    return manifest


def tars_of(folder: Path) -> list[Path]:
    return sorted(Path(folder).glob("*.tar"))


def index(folder: Path) -> None:
    """Makes the folder's index anew from its tars: for shards that others made, or where ours lost theirs."""
    found, dropped = tars_of(folder), Counter()
    if not found:
        raise ValueError(
            f"{folder} holds no .tar: name a folder of shards, such as img2dataset's output of form webdataset"
        )
    (folder / MANIFEST).unlink(missing_ok=True)  # its existence means complete
    seen = tqdm(found, desc="index", unit=" shard", mininterval=1)
    parts = ((path, table(read_tar(path, folder.resolve().name), dropped)) for path in seen)
    made = write(folder, parts, dropped, COMMAND)
    if unit := seals.sealed(folder):  # of shards of a run's own, these are the ones from now on
        seals.seal(unit)
    print(f"{folder}: {made['rows']} samples with {made['captions']} captions in {len(found)} shards")
    for reason, count in made["dropped"].items():
        print(f"  left out, {reason}: {count}")
