"""Reads the image-text corpora in their published forms and gets their pictures.

In: COCO's captions json with a folder or zip of images; lists of url and caption (CC3M, CC12M, SBU), which are fetched.
Out: <output>/<name>.parquet (PAIRS, sorted by key, every row of the corpus with what became of it), manifest.json last.
Run: python -m vikdf.sources --corpora '{"cc3m": {"form": "cc3m", "list": "cc3m.tsv"}}' --world null ... (see --help)

Fetched pictures stay in state/sources/: a deleted output is copied from there, a killed fetch goes on where it stood.
A new form is one function here and its line in FORMS.
"""

import contextlib
import dataclasses
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from vikdf import files, flags, schemas
from vikdf.corpora.download import Limits, address_status, examine
from vikdf.corpora.fetch import FETCHED, URLS, List, Worker, answers, fetch
from vikdf.state import Work, claim

BATCH = 1000  # rows in memory at a time
PENDING = ""  # the status of a row whose picture is still to be fetched


def _row(captions: list[str], url: str = "", status: str = PENDING, **picture) -> dict:
    return {"captions": captions, "url": url, "status": status, "width": None, "height": None, "image": None} | picture


def _json(path: Path, wanted: str):
    if not Path(path).exists():
        raise ValueError(_absent(path))
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): expected {wanted}; fetch the file again") from None


def _absent(path: Path) -> str:
    return (
        f"{path} is missing: put the corpus there or change its entry in params.yaml, sources.corpora (data/README.md)"
    )


def read_coco(*, captions: str, images: str, limits: Limits) -> Iterator[dict]:
    """One row an image of the json, with all its captions; captions of an image that is not listed are bad rows."""
    table = _json(captions, "COCO's {images: [...], annotations: [...]}")
    if not isinstance(table, dict) or not {"images", "annotations"} <= table.keys():
        raise ValueError(f"{captions} is not in COCO's form: expected the keys `images` and `annotations`")
    said = {}
    for annotation in table["annotations"]:
        said.setdefault(annotation.get("image_id"), []).append(str(annotation.get("caption", "")))
    with _opened(Path(images)) as picture:
        for image in table["images"]:
            data = picture(str(image.get("file_name")))
            status, width, height = examine(data, limits.max_pixels) if data is not None else ("missing", None, None)
            found = {"width": width, "height": height, "image": data if status == "ok" else None}
            yield _row(said.pop(image.get("id"), []), image.get("coco_url") or "", status, **found)
    yield from (_row([caption], status="bad_row") for captions in said.values() for caption in captions)


@contextlib.contextmanager
def _opened(images: Path) -> Iterator[Callable[[str], bytes | None]]:
    """A function that gives a picture's bytes by its file name, from a folder or a zip; None where there is none."""
    if images.is_dir():
        names = {path.name: path for path in images.rglob("*") if path.is_file()}
        yield lambda name: names[name].read_bytes() if name in names else None
        return
    if not images.exists():
        raise ValueError(_absent(images))
    try:
        with zipfile.ZipFile(images) as archive:
            members = {member.filename.rsplit("/", 1)[-1]: member for member in archive.infolist()}
            yield lambda name: archive.read(members[name]) if name in members else None
    except zipfile.BadZipFile as error:
        raise ValueError(f"{images} is neither a folder nor a sound zip ({error}): fetch it again") from None


def _lines(path: str, caption: int, url: int) -> Iterator[dict]:
    """One row a line of two columns; anything else is a bad row."""
    if not Path(path).exists():
        raise ValueError(_absent(path))
    with open(path, encoding="utf-8", errors="replace", newline="\n") as stream:
        for line in stream:
            columns = line.rstrip("\r\n").split("\t")
            if len(columns) == 2:
                yield _row([columns[caption]], columns[url].strip())
            else:
                yield _row([line.rstrip("\r\n")], status="bad_row")


def read_cc3m(*, list: str, limits: Limits) -> Iterator[dict]:
    return _lines(list, caption=0, url=1)


def read_cc12m(*, list: str, limits: Limits) -> Iterator[dict]:
    return _lines(list, caption=1, url=0)


def read_sbu(*, list: str, limits: Limits) -> Iterator[dict]:
    """One json of parallel lists."""
    table = _json(list, "SBU's {image_urls: [...], captions: [...]}")
    if not isinstance(table, dict) or not {"image_urls", "captions"} <= table.keys():
        raise ValueError(f"{list} is not in SBU's form: expected the keys `image_urls` and `captions`")
    urls, captions = table["image_urls"], table["captions"]
    if len(urls) != len(captions):
        raise ValueError(
            f"{list} holds {len(urls)} urls but {len(captions)} captions, expected as many: fetch it again"
        )
    for url, caption in zip(urls, captions, strict=True):
        sound = isinstance(url, str) and isinstance(caption, str)
        yield _row([caption], url.strip()) if sound else _row([str(caption)], str(url), "bad_row")


FORMS = {"coco": read_coco, "cc3m": read_cc3m, "cc12m": read_cc12m, "sbu": read_sbu}


def rows(name: str, entry: dict, limits: Limits) -> Iterator[dict]:
    """The corpus row by row; status is empty where the picture is still to be fetched."""
    form = FORMS[entry["form"]]
    for number, row in enumerate(form(**{key: value for key, value in entry.items() if key != "form"}, limits=limits)):
        if row["status"] == PENDING:
            row["status"] = address_status(row["url"], limits)
        yield {"key": f"{name}-{number:09d}", "source": name} | row


def sources(
    *,
    corpora: dict,
    world: dict | None,
    timeout: float,
    deadline: float,
    max_bytes: int,
    max_pixels: int,
    threads: int,
    processes: int,
    urls_per_shard: int,
    passes: int,
    output: Path,
    state: Path,
) -> None:
    """Reads the corpora, fetches what they only list, and writes one table for each.

    corpora: {name: {form: coco | cc3m | cc12m | sbu, ...}}
    world: settings of the embedded world, whose web is then served while the lists are fetched; null for real corpora
    timeout: seconds a host may be silent
    deadline: seconds one picture may take in all
    max_bytes: a longer answer is refused
    max_pixels: a larger picture is refused before it is decoded
    threads: downloads at a time in one process
    processes: img2dataset's worker processes
    urls_per_shard: a killed fetch repeats at most this many urls a process
    passes: 2 = transient failures are asked once more
    output: folder of the tables
    state: folder of what was fetched, state/ in the pipeline
    """
    if unknown := {entry["form"] for entry in corpora.values()} - FORMS.keys():
        raise ValueError(f"unknown form {sorted(unknown)[0]!r} in sources.corpora: expected one of {', '.join(FORMS)}")
    limits = Limits(timeout, deadline, max_bytes, max_pixels, world["port"] if world else 0)
    (output / "manifest.json").unlink(missing_ok=True)  # its existence means complete
    asked = {"limits": dataclasses.asdict(limits), "world": world, "urls_per_shard": urls_per_shard, "passes": passes}
    lists = {name: _list(name, entry, limits, state) for name, entry in corpora.items()}
    with contextlib.ExitStack() as held:
        works = {name: held.enter_context(_claim(urls, state, asked)) for name, urls in lists.items() if urls}
        open_lists = {
            name: List(name, lists[name], work.checkpoints, urls_per_shard)
            for name, work in works.items()
            if not work.finished
        }
        if open_lists:
            with _served(world):
                fetch([*open_lists.values()], Worker(limits, threads, urls_per_shard), processes, passes)
        for name, one in open_lists.items():
            with works[name].finish() as product, schemas.writer(product / "fetched.parquet", FETCHED) as add:
                _in_batches(answers(one, passes), add)
        done = {name: _write(name, entry, limits, works.get(name), output) for name, entry in corpora.items()}
    files.write_json(output / "manifest.json", {"sources": done})
    for name, counts in done.items():
        print(f"{name}: {counts['rows']} rows; " + ", ".join(f"{status} {n}" for status, n in counts["status"].items()))


def _list(name: str, entry: dict, limits: Limits, state_folder: Path) -> Path | None:
    """Writes the urls to fetch; None where the corpus needs no fetching."""
    path = state_folder / "sources" / f"{name}.urls.parquet"
    if entry["form"] == "coco":
        return None
    with schemas.writer(path, URLS) as add:
        pending = (row for row in rows(name, entry, limits) if row["status"] == PENDING)
        _in_batches(({"id": row["key"], "url": row["url"]} for row in pending), add)
    return path


def _claim(urls: Path, state: Path, asked: dict):
    """The fetch of these urls with these settings: once for all later code; only a world is made by code."""
    return claim(state, "sources", ["world"] if asked["world"] else [], asked, {"urls": urls})


@contextlib.contextmanager
def _served(world: dict | None) -> Iterator[None]:
    if world is None:
        yield
        return
    from vikdf.world import web

    with web.serve(world):
        yield


def _in_batches(rows: Iterator[dict], add: Callable[[list[dict]], None]) -> None:
    waiting = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == BATCH:
            add(waiting)
            waiting = []
    add(waiting)


def _write(name: str, entry: dict, limits: Limits, work: Work | None, output: Path) -> dict:
    """Joins the corpus with what was fetched, in order; gives its counts."""
    path, statuses, captions = output / f"{name}.parquet", Counter(), 0
    fetched = iter(())
    if work:
        table = work.product / "fetched.parquet"
        fetched = (row for batch in schemas.batches(table, FETCHED, BATCH) for row in batch.to_pylist())

    def joined() -> Iterator[dict]:
        nonlocal captions
        for row in tqdm(rows(name, entry, limits), desc=name, unit=" row", mininterval=1, file=sys.stderr):
            if row["status"] == PENDING:
                got = next(fetched)
                row |= {column: got[column] for column in ("status", "width", "height", "image")}
            statuses[row["status"]] += 1
            captions += len(row["captions"])
            yield row

    with schemas.writer(path, schemas.PAIRS) as add:
        _in_batches(joined(), add)
    counts = {"rows": statuses.total(), "captions": captions, "status": dict(sorted(statuses.items()))}
    return counts | {"sha256": files.sha256(path)}


if __name__ == "__main__":
    flags.main(sources)
