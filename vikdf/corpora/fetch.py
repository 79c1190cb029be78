"""Fetches the pictures of lists with img2dataset: its reader, workers, threads, writer and resumption.

In: lists of (id, url) as parquet. Out: answers() of a list: every url in the list's order, ok or with its reason.

img2dataset has no hook for what one picture needs (vikdf/corpora/download.py), so its parts are put together here, and the
workers' download function is replaced in every worker process: unlike a proxy on loopback, that sees into HTTPS too.
All lists share one pool, so that a worker starts once. A finished shard is never fetched again; img2dataset would not
ask again for what failed in it either, so later passes do that, over transient failures only.
"""

import contextlib
import dataclasses
import functools
import io
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vikdf import schemas
from vikdf.corpora.download import TRANSIENT, Examiner, Limits, download, opener

URLS = pa.schema([("id", pa.string()), ("url", pa.string())])
FETCHED = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("image", pa.binary()),
    ]
)
OPT_OUT = ["noai", "noimageai", "noindex", "noimageindex"]
DIGITS = 5  # of a shard's number


@dataclasses.dataclass(frozen=True)
class Worker:
    """Fetches one shard; made here, called in img2dataset's worker processes."""

    limits: Limits
    threads: int
    per_shard: int

    def __call__(self, row: tuple[int, str, str, str]) -> tuple[bool, tuple]:
        import img2dataset.downloader
        from img2dataset.writer import ParquetSampleWriter
        from tqdm import tqdm

        shard, file, folder, label = row
        parent = multiprocessing.parent_process().pid
        with pa.ipc.open_file(file) as reader:
            rows = reader.read_all().num_rows
        tqdm.set_lock(threading.RLock())  # its own is for several processes, and stays behind when the pool is stopped
        bar = tqdm(total=rows, desc=f"{label} shard {shard}", unit=" url", mininterval=1)
        careful = functools.partial(download, limits=self.limits, web=opener(self.limits))

        def counted(*asked):
            if os.getppid() != parent:  # the step was killed: an orphan must not write beside the one that goes on
                os._exit(1)
            answer = careful(*asked)
            bar.update(1)
            return answer

        img2dataset.downloader.download_image = counted
        done, _ = img2dataset.downloader.Downloader(
            sample_writer_class=ParquetSampleWriter,
            resizer=Examiner(self.limits.max_pixels),
            thread_count=self.threads,
            save_caption=False,
            extract_exif=False,
            output_folder=folder,
            column_list=["id", "url"],
            timeout=self.limits.timeout,
            number_sample_per_shard=self.per_shard,
            oom_shard_count=DIGITS,
            compute_hash=None,
            verify_hash_type=None,
            encode_format="image",
            retries=0,
            user_agent_token="vikdf",
            disallowed_header_directives=OPT_OUT,
        )((shard, file))
        bar.close()
        return done, row


@dataclasses.dataclass(frozen=True)
class List:
    """One list and where its shards go: <folder>/pass1, and for each later pass its own list and shards."""

    name: str
    urls: Path
    folder: Path
    per_shard: int

    def of(self, number: int) -> tuple[Path, Path]:
        """The urls that a pass asks for, and the folder of its shards."""
        return self.urls if number == 1 else self.folder / f"pass{number}.parquet", self.folder / f"pass{number}"

    def shards(self, number: int) -> range:
        return range(-(-pq.read_metadata(self.of(number)[0]).num_rows // self.per_shard))

    def done(self, number: int) -> set[int]:
        return {int(path.name[:DIGITS]) for path in self.of(number)[1].glob("*_stats.json")}


def fetch(lists: list[List], worker: Worker, processes: int, passes: int) -> None:
    """Fetches the lists, pass after pass; a shard that is there already is left as it is."""
    for number in range(1, passes + 1):
        if number > 1:
            asked = sum(_again(one, number) for one in lists)
            print(f"pass {number} asks again for {asked} transient failures", file=sys.stderr)
        if any(set(one.shards(number)) - one.done(number) for one in lists):
            _run(lists, number, worker, processes)


def _run(lists: list[List], number: int, worker: Worker, processes: int) -> None:
    """One pool over the shards of all lists that are not there yet."""
    import img2dataset.distributor
    from img2dataset.reader import Reader

    def shards():
        for one in lists:
            urls, folder = one.of(number)
            (folder / "_tmp").mkdir(parents=True, exist_ok=True)
            about = (None, None, None, ["id"], one.per_shard, one.done(number), str(folder / "_tmp"))
            for shard, file in Reader(str(urls), "parquet", "url", *about):
                yield shard, file, str(folder), f"{one.name} pass {number}"

    img2dataset.distributor.tqdm = lambda rows: rows  # it counts shards; the workers' own bars count urls
    with contextlib.redirect_stdout(io.StringIO()):  # its advice about bandwidth
        img2dataset.distributor.multiprocessing_distributor(processes, worker, shards(), None, 1)
    for one in lists:
        if missing := sorted(set(one.shards(number)) - one.done(number)):
            raise ValueError(
                f"{one.name}: shards {missing} were not fetched, the lines above say why; run this step again"
            )


def _again(one: List, number: int) -> int:
    """Writes the list of the next pass, what failed for a reason that may pass, and counts it."""
    path, _ = one.of(number)
    if not path.exists():
        rows = _said(one, number - 1, ["id", "url", "error_message"])
        with schemas.writer(path, URLS) as add:
            add([{"id": row["id"], "url": row["url"]} for row in rows if TRANSIENT.fullmatch(row["status"])])
    return pq.read_metadata(path).num_rows


def _said(one: List, number: int, columns: list[str] | None = None) -> Iterator[dict]:
    """A pass's answers in the order of its list; img2dataset writes a shard's rows as they come in."""
    urls, folder = one.of(number)
    table = pq.read_table(urls)
    for shard in one.shards(number):
        got = pq.read_table(folder / f"{shard:0{DIGITS}d}.parquet", columns=columns).to_pylist()
        got = {row["id"]: row | {"status": row["error_message"] or "ok"} for row in got}
        for asked in table.slice(shard * one.per_shard, one.per_shard).to_pylist():
            lost = asked | {"status": "failed", "width": None, "height": None, "image": None}
            yield got.get(asked["id"], lost)


def answers(one: List, passes: int) -> Iterator[dict]:
    """The last word on every url of a list: a transient failure's is the one of the next pass."""
    first, *later = [_said(one, number) for number in range(1, passes + 1)]
    for row in first:
        for again in later:
            if not TRANSIENT.fullmatch(row["status"]):
                break
            row = next(again)
        yield {column: row[column] for column in FETCHED.names}
