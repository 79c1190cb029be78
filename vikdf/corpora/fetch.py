"""Fetches the pictures of lists with img2dataset: its reader, workers, threads, writer and distributors.

In: lists of (id, url) as parquet. Out: answers() of a list: every url in the list's order, ok or with its reason.

img2dataset has no hook for what one picture needs (vikdf/corpora/download.py), so its parts are put together here, and the
workers' download function is replaced in every worker process. The other way, a forward proxy on loopback, would see of an
https url only the name of its host (CONNECT): not the address of a redirect, not the headers that opt out, not how many
bytes a picture has, and with a cut-up TLS stream it could only count and hang up. The function sees all of it.
What either leaves unseen: what a host does behind its own address, and who listens on plain http.

All lists share one pool, so that a worker starts once. A shard grows in the folder of its run and is moved when it is
whole, so neither a kill nor an orphan of an earlier run spoils one, and a finished shard is never fetched again. img2dataset
would not ask again for what failed in it either: later passes do that, over transient failures only.

Memory of a worker at worst: 2 * threads answers of max_bytes (img2dataset's queue), progress.WAITING bytes and one answer not
yet written, and one picture being decoded, some 16 bytes a pixel of max_pixels.
Memory of answers(): lists and shards are streamed, for each pass as vikdf/corpora/fetched.py says.
"""

import contextlib
import dataclasses
import importlib.util
import io
import itertools
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vikdf import FIXED, files, schemas
from vikdf.corpora import fetched, progress
from vikdf.corpora.addresses import Limits
from vikdf.corpora.download import TRANSIENT, agent, download, parted
from vikdf.corpora.hosts import Turns
from vikdf.corpora.lists import DIGITS, List
from vikdf.corpora.pictures import Examiner

URLS = pa.schema([("id", pa.string()), ("url", pa.string())])
AGAIN = URLS.append(pa.field("after", pa.int32()))  # a later pass's list: seconds that the host asked for
FETCHED = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("image", pa.binary()),
        ("pass", pa.int32()),  # the one that had the last word
    ]
)
SUBJOB = 1000  # shards that pyspark is given at a time: img2dataset's own default
PATIENCE = 300  # seconds: a host that asks for a longer Retry-After is left alone for good
BATCH = 10_000  # rows of a list in memory at a time
DISTRIBUTORS = ("multiprocessing", "pyspark", "ray")


@dataclasses.dataclass(frozen=True)
class Worker:
    """Fetches one shard; made here, called in img2dataset's worker processes."""

    limits: Limits
    threads: int
    per_shard: int
    per_host: int
    contact: str

    def __call__(self, row: tuple[int, str, str]) -> tuple[bool, tuple]:
        import img2dataset.downloader
        from img2dataset.writer import ParquetSampleWriter

        shard, file, run = row
        tally = progress.Tally(Path(run), shard)
        if not tally.goes_on():
            return True, row
        with pa.ipc.open_file(file) as reader:
            turns = Turns(reader.read_all()["url"].to_pylist(), self.per_host)
        img2dataset.downloader.download_image = self._asker(turns, tally)
        fetcher = img2dataset.downloader.Downloader(
            sample_writer_class=progress.writer_of(tally, ParquetSampleWriter, alive),
            resizer=Examiner(self.limits.max_pixels),
            thread_count=self.threads,
            save_caption=False,
            extract_exif=False,
            output_folder=run,
            column_list=["id", "url"],
            timeout=self.limits.timeout,
            number_sample_per_shard=self.per_shard,
            oom_shard_count=DIGITS,
            compute_hash=None,
            verify_hash_type=None,
            encode_format="image",
            retries=0,
            user_agent_token=None,
            disallowed_header_directives=None,  # the download itself looks at them
        )
        try:
            done, _ = fetcher((shard, file))
        except progress.Stopped:
            return True, row
        if done:
            made = Path(run) / f"{shard:0{DIGITS}d}"
            made.with_suffix(".sha256").write_text(files.sha256(made.with_suffix(".parquet")))
            for kind in (".parquet", ".sha256", "_stats.json"):  # the last says: whole
                os.replace(f"{made}{kind}", Path(run).parent.parent / f"{made.name}{kind}")
        return done, row

    def _asker(self, turns: Turns, tally: progress.Tally) -> Callable:
        """img2dataset calls it once a url; which url it is, the turns say."""
        name = agent(self.contact)

        def asked(*_, **__):
            with turns.turn() as turn:
                alive()
                data, said = download(turn.url, self.limits, name, turn.go) if tally.goes_on() else (None, "stopped")
            return turn.number, data if data is None else io.BytesIO(data), said if data is None else None

        return asked


def alive() -> None:
    """The step was killed: an orphan asks the web for nothing more. Clusters end their own workers."""
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)


@dataclasses.dataclass(frozen=True)
class Manner:
    """How the lists are fetched; what they give does not depend on it."""

    distributor: str
    processes: int
    back_off: float  # seconds before the second pass, doubled before each later one
    min_success: float  # share of a list's urls below which the first pass stops


def check(distributor: str) -> None:
    """Refuses what cannot run here, before anything is asked."""
    if distributor not in DISTRIBUTORS:
        raise ValueError(f"sources.distributor is {distributor!r}: expected one of {', '.join(DISTRIBUTORS)}")
    if importlib.util.find_spec(distributor) is None:
        raise ValueError(
            f"sources.distributor is {distributor}, but that package is not installed: `pip install {distributor}`,"
            " or set it to multiprocessing"
        )
    if distributor == "pyspark" and not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise ValueError(
            "sources.distributor is pyspark, which needs Java: install a Java runtime and name it in JAVA_HOME,"
            " or set it to multiprocessing"
        )


def fetch(lists: list[List], worker: Worker, passes: int, manner: Manner) -> None:
    """Fetches the lists, pass after pass; a shard that is there already, whole, is left as it is."""
    for one in lists:
        one.drop_harmed(passes)
    for number in range(1, passes + 1):
        if number > 1:
            _wait(lists, number, manner.back_off)
        if open_lists := [one for one in lists if one.missing(number)]:
            _run(open_lists, number, worker, manner)


def _wait(lists: list[List], number: int, back_off: float) -> None:
    """Leaves the hosts alone for a while before they are asked again; not where the pass has begun already."""
    asked = sum(_again(one, number) for one in lists)
    begun = any(one.done(number) for one in lists)
    after = [pc.max(pq.read_table(one.of(number)[0], columns=["after"])["after"]).as_py() or 0 for one in lists]
    seconds = max([back_off * 2 ** (number - 2), *after])
    seconds = seconds if asked and not begun else 0
    print(f"pass {number} asks again for {asked} transient failures, in {seconds:g} seconds", file=sys.stderr)
    time.sleep(seconds)


def _run(lists: list[List], number: int, worker: Worker, manner: Manner) -> None:
    """One pool over the shards of these lists that are not there yet."""
    import img2dataset.distributor

    runs = {one.name: _new_run(one, number) for one in lists}
    least = manner.min_success if number == 1 else 0  # what failed once mostly fails again
    spread = getattr(img2dataset.distributor, f"{manner.distributor}_distributor")
    img2dataset.distributor.tqdm = lambda rows: rows  # it counts shards; the watch counts urls
    _prepare(manner.distributor)
    try:
        with progress.Watch(runs, sum(one.left(number) for one in lists), f"pass {number}", least) as watch:
            with contextlib.redirect_stdout(io.StringIO()):  # its advice about bandwidth
                spread(manner.processes, worker, _shards(lists, number, runs), SUBJOB, 1)
        if watch.stopped:
            raise ValueError(watch.stopped)
    finally:
        for run in runs.values():
            shutil.rmtree(run.parent, ignore_errors=True)
    for one in lists:
        if missing := one.missing(number):
            raise ValueError(
                f"{one.name}: shards {missing} were not fetched, the lines above say why; run this step again"
            )


def _prepare(distributor: str) -> None:
    """What a cluster's workers must have before they import img2dataset, whose albumentations asks the web for a newer one.

    Processes started here inherit it, and pyspark's import vikdf first, with the Worker. Ray's import img2dataset first, and
    those of a cluster that runs already have an environment of their own.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if distributor == "ray":
        import ray

        ray.init(ignore_reinit_error=True, runtime_env={"env_vars": {name: os.environ[name] for name in FIXED}})


def _new_run(one: List, number: int) -> Path:
    """The folder of this run's unfinished shards; that of an earlier run goes, and with it the leave of its orphans."""
    temporary = one.of(number)[1] / "_tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True, exist_ok=True)  # an orphan may have written into it just now
    run = Path(tempfile.mkdtemp(dir=temporary))
    (run / "go").touch()
    return run


def _shards(lists: list[List], number: int, runs: dict[str, Path]) -> Iterator[tuple[int, str, str]]:
    from img2dataset.reader import Reader

    for one in lists:
        run = str(runs[one.name])
        about = (None, None, None, ["id"], one.per_shard, one.done(number), run)
        for shard, file in Reader(str(one.of(number)[0]), "parquet", "url", *about):
            yield shard, file, run


def _again(one: List, number: int) -> int:
    """Writes the list of the next pass, what failed for a reason that may pass, and counts it; a damaged one anew."""
    path, _ = one.of(number)
    if not _readable(path):
        with schemas.writer(path, AGAIN) as add:
            failed = filter(may_pass, _said(one, number - 1, pictures=False))
            for rows in iter(lambda: list(itertools.islice(failed, BATCH)), []):
                add(rows)
    return one.rows(number)


def _readable(path: Path) -> bool:
    with contextlib.suppress(ValueError):
        return sum(batch.num_rows for batch in schemas.batches(path, AGAIN, BATCH)) >= 0
    return False


def may_pass(row: dict) -> bool:
    return bool(TRANSIENT.fullmatch(row["status"])) and row["after"] <= PATIENCE


def _said(one: List, number: int, pictures: bool = True) -> Iterator[dict]:
    """A pass's answers in the order of its list; img2dataset writes a shard's rows as they come in."""
    urls, folder = one.of(number)
    asked = (row for batch in schemas.batches(urls, URLS, BATCH) for row in batch.to_pylist())
    for shard in one.shards(number):
        listed = list(itertools.islice(asked, one.per_shard))
        for row in fetched.rows(folder / f"{shard:0{DIGITS}d}.parquet", listed, pictures):
            status, after = parted(row.pop("error_message") or "ok")
            yield row | {"status": status, "after": after, "pass": number}


def answers(one: List, passes: int) -> Iterator[dict]:
    """The last word on every url of a list: a transient failure's is the one of the next pass."""
    first, *later = [_said(one, number) for number in range(1, passes + 1)]
    for row in first:
        for again in later:
            if not may_pass(row):
                break
            row = next(again)
        yield {column: row[column] for column in FETCHED.names}
