"""Reads the image-text corpora in their published forms and gets their pictures.

In: lists of url and caption, which are fetched; COCO, folders, zips and tars of pictures, webdataset's shards.
Out: <output>/<name>.parquet (PAIRS, sorted by key, every row of the corpus with what became of it), failures.parquet .txt
.svg (the same counted by reason), manifest.json last.
Run: python -m vikdf.sources --corpora '{"cc3m": {"form": "cc3m", "list": "cc3m.tsv"}}' --world null ... (see --help)

Fetched pictures stay in state/sources/: a deleted output is copied from there, a killed fetch goes on where it stood.
The forms, and what a new one takes: vikdf/corpora/pairs.py.
"""

import contextlib
import dataclasses
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from vikdf import files, flags, schemas, space
from vikdf.corpora import failures
from vikdf.corpora.addresses import Limits, address_status
from vikdf.corpora.fetch import FETCHED, URLS, List, Manner, Worker, answers, check, fetch
from vikdf.corpora.pairs import FORMS, PENDING, check_entries, is_list
from vikdf.corpora.preflight import foretell
from vikdf.corpora.progress import top
from vikdf.state import Work, claim

BATCH, BATCH_BYTES = 1000, 1 << 26  # rows, and bytes of pictures, in memory at a time
LISTED = "urls.parquet"  # in the folder of a fetch


def rows(name: str, entry: dict, limits: Limits) -> Iterator[dict]:
    """The corpus row by row; status is empty where the picture is still to be fetched."""
    form = {key: value for key, value in entry.items() if key not in ("form", "expected")}
    for number, row in enumerate(FORMS[entry["form"]](**form, limits=limits)):
        if row["status"] == PENDING:
            row["status"] = address_status(row["url"], limits)
        yield {"key": f"{name}-{number:09d}", "source": name} | row


def sources(
    *,
    corpora: dict,
    raw: dict,
    world: dict | None,
    timeout: float,
    deadline: float,
    max_bytes: int,
    max_pixels: int,
    threads: int,
    processes: int,
    urls_per_shard: int,
    passes: int,
    distributor: str,
    per_host: int,
    contact: str,
    back_off: float,
    preflight: int,
    min_success: float,
    output: Path,
    state: Path,
) -> None:
    """Reads the corpora, fetches what they only list, and writes one table for each.

    The pipeline takes all flags from the section `sources` of params.yaml, where presets/ say why each is as it is, and
    `snakemake --cores all data/sources/manifest.json` runs this step with them. By hand, each flag must be given:

      python -m vikdf.sources --corpora '{"mine": {"form": "cc3m", "list": "list.tsv"}}' --raw '{}' --world null \\
          --timeout 10 --deadline 60 --max-bytes 20000000 --max-pixels 50000000 --threads 32 --processes 2 \\
          --urls-per-shard 1000 --passes 2 --distributor multiprocessing --per-host 4 --contact me@example.org \\
          --back-off 60 --preflight 100 --min-success 0.1 --output tables --state state

    Killed, it goes on where it stood when the same command is given again. `vikdf validate list.tsv` looks at a list first.

    corpora: {name: {form: coco | cc3m | cc12m | sbu | list | folder | webdataset, ..., expected: rows}}; data/README.md \
has an example of each form
    raw: {path: {url: ..., ...}}: where raw files came from, for the manifest; {} where that is not known
    world: settings of the embedded world, whose web is then served while the lists are fetched; null for real corpora
    timeout: seconds a host may be silent
    deadline: seconds one picture may take in all
    max_bytes: a longer answer is refused
    max_pixels: a larger picture is refused before it is decoded
    threads: downloads at a time in one process
    processes: img2dataset's worker processes
    urls_per_shard: a killed fetch repeats at most this many urls a process
    passes: how often a url is asked at most: 2 = transient failures once more
    distributor: multiprocessing, or pyspark or ray for a cluster; all are img2dataset's own
    per_host: connections to one host at a time in a process
    contact: an address or page in the user agent, for the hosts that are asked; may be empty
    back_off: seconds before the second pass, doubled before each later one
    preflight: urls of each list that are asked before all of them; 0 = none
    min_success: share of a list's urls, or of another corpus' rows, that must give a picture, else the step stops
    output: folder of the tables
    state: folder of what was fetched, state/ in the pipeline; delete it to fetch anew
    """
    check_entries(corpora)
    check(distributor)
    at_least_one = {"threads": threads, "processes": processes, "urls_per_shard": urls_per_shard, "passes": passes}
    for key, value in (at_least_one | {"per_host": per_host}).items():
        if value < 1:
            raise ValueError(f"sources.{key} is {value}: expected 1 or more")
    limits = Limits(timeout, deadline, max_bytes, max_pixels, world["port"] if world else 0)
    (output / "manifest.json").unlink(missing_ok=True)  # its existence means complete
    asked = {"limits": dataclasses.asdict(limits), "world": world, "urls_per_shard": urls_per_shard, "passes": passes}
    asked |= {"columns": FETCHED.names}
    worker = Worker(limits, threads, urls_per_shard, per_host, contact)
    manner = Manner(distributor, processes, back_off, min_success)
    with contextlib.ExitStack() as held:
        listed = {name: entry for name, entry in corpora.items() if is_list(entry)}
        works = {name: held.enter_context(_claim(name, entry, limits, state, asked)) for name, entry in listed.items()}
        open_lists = {
            name: List(name, work.folder / LISTED, work.checkpoints, urls_per_shard)
            for name, work in works.items()
            if not work.finished
        }
        if open_lists:
            with _served(world):
                foretell([*open_lists.values()], worker, manner, preflight)
                fetch([*open_lists.values()], worker, passes, manner)
        for name, one in open_lists.items():
            with works[name].finish() as product, schemas.writer(product / "fetched.parquet", FETCHED) as add:
                _in_batches(answers(one, passes), add)
        came = [work.product / "fetched.parquet" for work in works.values()]
        space.need("the pictures", {output: sum(path.stat().st_size for path in came)})
        reasons = {name: Counter() for name in corpora}
        done = {
            name: _write(name, entry, limits, works.get(name), output, reasons[name]) | _origin(entry, raw)
            for name, entry in corpora.items()
        }
    failures.write(output, reasons)
    _check_obtained(corpora, reasons, min_success)
    files.write_json(output / "manifest.json", {"sources": done})
    print("\n".join(_sentence(name, counts) for name, counts in done.items()))


@contextlib.contextmanager
def _claim(name: str, entry: dict, limits: Limits, state: Path, asked: dict) -> Iterator[Work]:
    """The fetch of the corpus' urls with these settings: once for all later code; only a world is made by code.

    The urls go into the work's own folder: another run, with another list of this name, takes none of them away.
    """
    path = state / "sources" / f"{name}.urls.parquet"
    with schemas.writer(path, URLS) as add:
        pending = (row for row in rows(name, entry, limits) if row["status"] == PENDING)
        _in_batches(({"id": row["key"], "url": row["url"]} for row in pending), add)
    with claim(state, "sources", ["world"] if asked["world"] else [], asked, {"urls": path}) as work:
        os.replace(path, work.folder / LISTED)
        yield work


@contextlib.contextmanager
def _served(world: dict | None) -> Iterator[None]:
    if world is None:
        yield
        return
    from vikdf.world import web

    with web.serve(world):
        yield


def _in_batches(rows: Iterator[dict], add: Callable[[list[dict]], None]) -> None:
    waiting, size = [], 0
    for row in rows:
        waiting.append(row)
        size += len(row.get("image") or b"")
        if len(waiting) == BATCH or size > BATCH_BYTES:
            add(waiting)
            waiting, size = [], 0
    add(waiting)


def _fetched(work: Work | None) -> Iterator[dict]:
    """What became of each url, in the order in which they were listed."""
    if work is None:
        return
    tables = ((work.folder / LISTED, URLS), (work.product / "fetched.parquet", FETCHED))
    listed, fetched = (
        (row for batch in schemas.batches(path, schema, BATCH // 10) for row in batch.to_pylist())
        for path, schema in tables
    )
    for row, got in zip(listed, fetched, strict=True):
        yield row | got


def _same(row: dict | None, got: dict | None, name: str, entry: dict) -> None:
    """Raises a ValueError unless a picture that was fetched belongs to this row of the list."""
    if (row and (row["key"], row["url"])) != (got and (got["id"], got["url"])):
        said = f"sources.corpora.{name}: {entry.get('list') or entry['captions']} was changed while it was fetched"
        raise ValueError(
            f"{said}, so its rows are not those of the pictures: run this step again and it fetches the list as it is now, "
            "or put the old file back first and it takes what has come"
        )


def _write(name: str, entry: dict, limits: Limits, work: Work | None, output: Path, reasons: Counter) -> dict:
    """Joins the corpus with what was fetched, in order; gives its counts, and adds up what became of its rows."""
    path, sums, fetched = output / f"{name}.parquet", Counter(), _fetched(work)

    def joined() -> Iterator[dict]:
        for row in tqdm(rows(name, entry, limits), desc=name, unit=" row", mininterval=1, file=sys.stderr):
            del row["line"]
            number = 0  # of the pass: not from the web
            if row["status"] == PENDING:
                got = next(fetched, None)
                _same(row, got, name, entry)
                number = got["pass"]
                row |= {column: got[column] for column in ("status", "width", "height", "image")}
            reasons[row["status"], number] += 1
            sums.update(captions=len(row["captions"]), bytes=len(row["image"] or b""))
            yield row
        _same(None, next(fetched, None), name, entry)

    with schemas.writer(path, schemas.PAIRS) as add:
        _in_batches(joined(), add)
    statuses = Counter()
    for (status, _), count in reasons.items():
        statuses[status] += count
    return _counts(entry, statuses, sums) | {"sha256": files.sha256(path)}


def _counts(entry: dict, statuses: Counter, sums: Counter) -> dict:
    """What was really obtained, beside what was expected."""
    listed, obtained = statuses.total(), statuses["ok"]
    counts = {"rows": listed, "captions": sums["captions"], "status": dict(sorted(statuses.items()))}
    counts |= {"obtained": obtained, "share": round(obtained / listed, 6) if listed else 0, "bytes": sums["bytes"]}
    if "expected" in entry:
        counts |= {"expected": entry["expected"], "difference": listed - entry["expected"]}
    return counts


def _check_obtained(corpora: dict, reasons: dict[str, Counter], min_success: float) -> None:
    """Raises a ValueError for a corpus without a row, for one here on disk of which too few pictures are there, and for a
    list that gave none at all: its urls were looked at while they were fetched, its rows without one are told here.
    """
    for name, entry in corpora.items():
        said = Counter()
        for (status, _), count in reasons[name].items():
            said[status] += count
        about = entry.get("list") or entry.get("shards") or entry["images" if entry["form"] == "folder" else "captions"]
        if not said:
            raise ValueError(f"sources.corpora.{name}: {about} holds no row: name the file or folder that holds some")
        least = min(1, min_success) if is_list(entry) else min_success * said.total()
        if said["ok"] < least:
            where = entry.get("images") or entry.get("shards") or about
            others = ", ".join(f"{reason} {count}" for reason, count in top(said, 4))
            raise ValueError(
                f"sources.corpora.{name}: {said['ok']} of {said.total()} rows have a picture in {where}, less than"
                f" sources.min_success = {min_success:g}; the others: {others}. "
                f"{'See its columns and urls' if is_list(entry) else 'Name the folder or archive of the pictures'}, or lower"
                " sources.min_success"
            )


def _origin(entry: dict, raw: dict) -> dict:
    """The sha256 of the files that list the corpus, and where they were fetched."""
    listing = [entry[key] for key in ("list", "captions") if entry.get(key)]
    places = [raw[path]["url"] for path in entry.values() if isinstance(path, str) and "url" in raw.get(path, {})]
    return {"listed_by": {Path(path).name: files.sha256(Path(path)) for path in listing}, "fetched_from": places}


def _sentence(name: str, counts: dict) -> str:
    short = f", {counts['difference']:+} beside the {counts['expected']} expected" if counts.get("difference") else ""
    said = ", ".join(f"{status} {number}" for status, number in counts["status"].items())
    return f"{name}: {counts['rows']} rows{short}; {said}"


if __name__ == "__main__":
    flags.main(sources)
