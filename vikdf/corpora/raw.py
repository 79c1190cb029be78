"""Fetches the file that a corpus is published as: resumably, checked, and there as a whole or not at all.

In: the file's path and its entry of sources.raw, {url, bytes, sha256 or md5, member}. Out: the file; with a member, the one
that is taken out of the zip or tar at that address.
Run: python -m vikdf.corpora.raw --path data/raw/cc12m/cc12m.tsv --entry '{"url": "https://...", "bytes": 2707204412}'
     --timeout 10 --state state

What came so far stays in state/raw/; the next run asks the host for the rest. Only addresses that are open to all are
asked, at each redirect too (vikdf/corpora/hops.py). Where nobody publishes a digest the size is all that is checked.
"""

import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from vikdf import files, flags
from vikdf.corpora import unpack
from vikdf.corpora.addresses import Limits, address_status, next_url
from vikdf.corpora.download import MOVED, REDIRECTS, agent
from vikdf.corpora.hops import Meter, Refused, TooMany, asked

CHUNK = 1 << 20
CONNECT = 60  # seconds till the host's answer begins
DIGESTS = ("sha256", "md5")
MOST_SECONDS = 30 * 24 * 3600  # of one answer: the silence between two reads is what is bounded
TRIES = 6  # in a row that get no further, with 1, 2, 4, 8 and 16 seconds between: a host that restarts is back by then
WAIT = 1.0
PASSING = re.compile("408|429|5..")  # statuses that may pass

CURE = "fetch it by hand and put it where params.yaml names it, or correct its entry under sources.raw"


class _Passing(OSError):
    """What may be another thing a moment later."""


def raw(*, path: Path, entry: dict, timeout: float, state: Path) -> None:
    """Fetches one raw file of a corpus.

    path: where the file belongs
    entry: {url, bytes, sha256 or md5, member}; bytes null: not published
    timeout: seconds a host may be silent
    state: folder of what came so far, state/ in the pipeline
    """
    obtain(path, entry, Limits(timeout, CONNECT, 0, 0, 0), state)


def obtain(path: Path, entry: dict, limits: Limits, state: Path) -> None:
    asked_for = {key: entry.get(key) for key in ("url", "bytes", "sha256", "md5")}
    folder = state / "raw" / files.digest(asked_for)[:16]
    waiting = f"{folder} is being fetched by another process: waiting"
    with files.alone(folder / "lock", str(folder), wait=waiting):  # two members of one archive: fetched once
        came = folder / "whole"
        if not came.exists():
            _download(entry, folder, limits, Path(path).name)
            _verify(entry, folder / "part")
            os.replace(folder / "part", came)
        if entry.get("member"):
            with files.whole(path) as aside:
                unpack.take(came, entry["member"], aside)
        else:
            _move(came, path)
    kept = f"; {came} is kept for other members" if entry.get("member") else ""
    print(f"{path}: {Path(path).stat().st_size} bytes{kept}")


def _move(came: Path, path: Path) -> None:
    """In one step, so that a kill never loses what came; to another disk by a copy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(came, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with files.whole(path) as aside:
            shutil.copyfile(came, aside)
        came.unlink()


def _download(entry: dict, folder: Path, limits: Limits, name: str) -> None:
    """Asks until all is there; a try that got further than all before does not count."""
    part, failures = folder / "part", 0
    most = _size(part)
    while True:
        try:
            return _ask(entry, folder, limits, name)
        except (Refused, TooMany) as error:
            raise ValueError(f"{entry['url']} cannot be fetched ({error}): {CURE}") from None
        except (OSError, http.client.HTTPException) as error:
            failures, most = (1 if _size(part) > most else failures + 1), max(most, _size(part))
            said = f"{entry['url']}: {type(error).__name__.strip('_')} {error} after {_size(part)} bytes"
            if failures == TRIES:
                how = (
                    "it goes on from there"
                    if _same(entry, folder)
                    else "it begins anew, since the host names no version"
                )
                raise ValueError(f"{said}: run this step again, {how}; or {CURE}") from None
            rest = "the rest" if _same(entry, folder) else "all of it anew"
            print(flags.printable(f"{said}; asking for {rest}"), file=sys.stderr)  # hosts choose some of the words
            time.sleep(WAIT * 2 ** (failures - 1))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _known_version(folder: Path) -> str:
    about = folder / "about.json"
    told = files.read_json(about) if about.exists() else {}
    version = told.get("version") if isinstance(told, dict) else ""
    return version if isinstance(version, str) and version.isascii() and version.isprintable() else ""


def _same(entry: dict, folder: Path) -> bool:
    """Would anything tell whether the rest is of the same file?"""
    return bool(_known_version(folder)) or any(entry.get(kind) for kind in DIGESTS)


def _ask(entry: dict, folder: Path, limits: Limits, name: str) -> None:
    """One request for what is missing; what comes is added to folder/part."""
    part, about = folder / "part", folder / "about.json"
    had, version = _size(part), _known_version(folder)
    if had and had == entry.get("bytes"):
        return
    if not _same(entry, folder):
        had = 0
    more = {"Range": f"bytes={had}-"} if had else {}
    more |= {"If-Range": version} if had and version else {}
    with _answer(entry["url"], limits, more) as (answer, meter):
        begin, total = _place(entry, answer, had)
        if begin is None:
            return
        _check_room(folder, total, begin)
        files.write_json(about, {"url": entry["url"], "version": _version(answer) or (version if begin else "")})
        meter.end += MOST_SECONDS
        with open(part, "r+b" if part.exists() else "wb") as stream:
            stream.truncate(begin)
            stream.seek(begin)
            _pour(answer, meter, stream, begin, total, name)
    if total is not None and _size(part) < total:
        raise _Passing("the connection was cut")


@contextlib.contextmanager
def _answer(url: str, limits: Limits, more: dict) -> Iterator[tuple[http.client.HTTPResponse, Meter]]:
    """The answer at the end of the redirects; each hop is checked as the first one is."""
    meter = Meter(limits)
    for _ in range(REDIRECTS + 1):
        if refused := address_status(url, limits):
            raise Refused(f"{refused}: {url}")
        with asked(url, meter, agent(""), more) as answer:
            where = answer.headers.get("Location")
            if answer.status not in MOVED or where is None:
                yield answer, meter
                return
        try:
            url = next_url(url, where)
        except ValueError:
            raise Refused(f"bad_url: {where}") from None
    raise Refused("it redirects without end")


def _place(entry: dict, answer: http.client.HTTPResponse, had: int) -> tuple[int | None, int | None]:
    """(where the answer's bytes belong, size of the whole); None where nothing is missing."""
    span = re.fullmatch(r"bytes (?:(\d{1,18})-\d+|\*)/(\d{1,18}|\*)", answer.headers.get("Content-Range", "").strip())
    total = int(span[2]) if span and span[2] != "*" else None
    if PASSING.fullmatch(str(answer.status)):
        raise _Passing(f"the host answered {answer.status}")
    if answer.status == 416 and had:
        if total == had:
            return None, total
        raise ValueError(
            f"{entry['url']} has {total} bytes, but {had} came before: delete state/raw and run this again"
        )
    if answer.status == 206 and span and span[1] and int(span[1]) == had:
        begin = had
    elif answer.status == 200:
        begin, total = 0, answer.length
    else:
        raise ValueError(f"{entry['url']} answered {answer.status}: {CURE}")
    if None not in (total, entry.get("bytes")) and total != entry["bytes"]:
        raise ValueError(f"{entry['url']} has {total} bytes, expected {entry['bytes']}: {CURE}")
    return begin, total


def _version(answer: http.client.HTTPResponse) -> str:
    """What tells the host's file from a later one; a weak ETag does not."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _check_room(folder: Path, total: int | None, begin: int) -> None:
    free = shutil.disk_usage(folder).free
    if total is not None and total - begin > free:
        raise ValueError(f"{folder} has room for {free} bytes, but {total - begin} are to come: make room there")


def _pour(answer, meter: Meter, stream, begin: int, total: int | None, name: str) -> None:
    """Writes what comes, never more than was announced."""
    room = total - begin if total is not None else shutil.disk_usage(Path(stream.name).parent).free
    meter.allow(2 * room + CHUNK, "more bytes than it announced")  # a body in chunks has a line before each
    bar = tqdm(total=total, initial=begin, desc=name, unit="B", unit_scale=True, mininterval=1, file=sys.stderr)
    with bar:
        while chunk := answer.read1(CHUNK):
            room -= len(chunk)
            if room < 0:
                raise TooMany("more bytes than it announced")
            stream.write(chunk)
            bar.update(len(chunk))
        stream.flush()
        os.fsync(stream.fileno())


def _verify(entry: dict, part: Path) -> None:
    """Size and digest, as far as they are known; what is wrong is deleted, so that the next run begins anew."""
    kinds = [kind for kind in DIGESTS if entry.get(kind)]
    for kind in ["bytes", *kinds]:
        found = _size(part) if kind == "bytes" else _digest(part, kind)
        if entry.get(kind) not in (None, found):
            part.unlink(missing_ok=True)
            raise ValueError(f"{entry['url']}: {kind} is {found}, expected {entry[kind]}; deleted. {CURE}")
    if not kinds:
        print(f"{entry['url']}: no digest is known, only its size was checked", file=sys.stderr)


def _digest(path: Path, kind: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()


if __name__ == "__main__":
    flags.main(raw)
