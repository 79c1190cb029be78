"""Asks a few urls of a list before all of them: what may be expected, and whether it is worth the days.

In: a list of urls. Out: what a seeded sample of it gave (the same urls at each run), fetched with the same careful
download, threads and bound a host; and of the whole list the success rate with its 95 % interval, bytes and time expected.

Below min_success the step stops before the big fetch. A list whose sample was good enough is not sampled again.
"""

import random
import sys
import threading
import time
from collections import Counter
from multiprocessing.pool import ThreadPool
from pathlib import Path

from vikdf import files, schemas, space
from vikdf.corpora import progress
from vikdf.corpora.download import agent, download, parted
from vikdf.corpora.fetch import BATCH, URLS, List, Manner, Worker
from vikdf.corpora.hosts import Turns, host_of
from vikdf.corpora.pictures import examine

SEED = 1  # of the sample; another one would be another sample, not a better one
Z = 1.96  # 95 %


def foretell(lists: list[List], worker: Worker, manner: Manner, count: int) -> None:
    """Samples each list that has no good sample yet, tells what it gave, and stops where that is too little."""
    bad, to_come = [], {}
    for one in lists:
        told = one.folder / "preflight.json"
        good = _good(told)
        if count and not good and one.rows(1) and not one.done(1):
            found = ask(sample(one, count), worker)
            print(f"preflight of {one.name}: {report(found, one.rows(1), worker, manner)}", file=sys.stderr)
            if found["said"]["ok"] < manner.min_success * found["said"].total():
                bad.append(progress.too_few(f"preflight of {one.name}", found["said"], manner.min_success))
            else:
                good = {"said": found["said"], "bytes": expected_bytes(found, one.rows(1))}
                files.write_checked(told, good)
        if good:  # twice: as they come, and in one table
            to_come[one.folder] = 2 * good["bytes"] - space.held(one.folder)
    if bad:
        raise ValueError("; ".join(bad))
    space.need(f"the pictures of {', '.join(one.name for one in lists)}", to_come)


def _good(path: Path) -> dict:
    """What a good sample of a list gave, if it was kept; of a harmed file, or one of an older form, nothing."""
    try:
        return files.read_checked(path) if path.exists() else {}
    except ValueError as error:
        print(f"{error}; it counts for nothing", file=sys.stderr)
        return {}


def sample(one: List, count: int) -> list[str]:
    """A function of the seed, the list's name and its length; read in pieces, for lists larger than memory."""
    rows = one.rows(1)
    chosen = set(random.Random(f"preflight {SEED} {one.name} {rows}").sample(range(rows), min(count, rows)))
    urls, start = [], 0
    for batch in schemas.batches(one.urls, URLS, BATCH):
        urls += [batch["url"][at].as_py() for at in range(batch.num_rows) if start + at in chosen]
        start += batch.num_rows
    return urls


def ask(urls: list[str], worker: Worker) -> dict:
    """What the sample gave: answers by status, bytes of the pictures, seconds of all answers, urls by host."""
    turns, name = Turns(urls, worker.per_host), agent(worker.contact)
    one_at_a_time = threading.Lock()  # a picture is decoded alone: the memory of one

    def asked(_) -> tuple[str, int, float]:
        with turns.turn() as turn:
            start = time.monotonic()
            data, said = download(turn.url, worker.limits, name, turn.go)
            spent = time.monotonic() - start
        if data is not None:
            with one_at_a_time:
                said = examine(data, worker.limits.max_pixels)[0]
        return parted(said)[0], len(data) if said == "ok" else 0, spent

    with ThreadPool(min(worker.threads, len(urls))) as pool:
        answers = list(pool.imap_unordered(asked, urls))
    said, sizes, seconds = zip(*answers, strict=True)
    hosts = Counter(map(host_of, urls))
    return {"said": Counter(said), "bytes": sum(sizes), "seconds": sum(seconds), "hosts": hosts}


def interval(ok: int, asked: int) -> tuple[float, float]:
    """Wilson's interval of a share: sound for few answers and for shares near 0 and 1, where the plain one is not."""
    share, spread = ok / asked, Z * Z / asked
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * (share * (1 - share) / asked + spread / asked / 4) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def expected_seconds(found: dict, rows: int, worker: Worker, manner: Manner) -> float:
    """One pass: as fast as all threads together, but no faster than the commonest host's few connections."""
    asked = found["said"].total()
    each = found["seconds"] / asked
    commonest = max(found["hosts"].values()) / asked
    busy = [1 / (worker.threads * manner.processes), commonest / (worker.per_host * manner.processes)]
    return rows * each * max(busy)


def expected_bytes(found: dict, rows: int) -> int:
    """Of the pictures of the whole list."""
    return round(found["bytes"] / found["said"].total() * rows)


def report(found: dict, rows: int, worker: Worker, manner: Manner) -> str:
    said, asked = found["said"], found["said"].total()
    low, high = interval(said["ok"], asked)
    mean = found["bytes"] / max(said["ok"], 1)
    whole = space.size(expected_bytes(found, rows))
    reasons = ", ".join(f"{reason} {n}" for reason, n in progress.top(said, 6)) or "none"
    return (
        f"{said['ok']} of {asked} sampled urls gave a picture: {said['ok'] / asked:.1%} (95 % between {low:.1%} and"
        f" {high:.1%}), {space.size(mean)} each on average. Expected of all {rows} urls: some"
        f" {round(rows * said['ok'] / asked)} pictures, {whole}, some"
        f" {_time(expected_seconds(found, rows, worker, manner))} for the first pass. Failures: {reasons}"
    )


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
