"""Takes one file out of a zip or tar that a corpus is published as; where it goes is ours to say, never the archive's.

In: an archive (zip, tar, tar.gz, tar.bz2, tar.xz) and the name of a member. Out: the member's bytes at a path of ours.
"""

import contextlib
import lzma
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from vikdf.corpora.archives import BOUNDED
from vikdf.corpora.bounds import bound

CHUNK = 1 << 20
UNREADABLE = (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError)
UNREADABLE += (EOFError, struct.error, OSError, RecursionError)


def take(archive: Path, member: str, path: Path) -> None:
    """Writes the member to the path; a damaged archive, or one without the member, is a ValueError."""
    check_size = bound(archive, member)
    try:
        with _member(archive, member) as (stream, size), open(path, "wb") as copy:
            bar = tqdm(total=size, desc=member, unit="B", unit_scale=True, mininterval=1, file=sys.stderr)
            with bar:
                while chunk := stream.read(CHUNK):
                    copy.write(chunk)
                    bar.update(len(chunk))
                    check_size(copy.tell())
    except UNREADABLE as error:
        said = "; ".join(str(error).splitlines()) or type(error).__name__
        raise ValueError(f"{archive} cannot be unpacked ({said}): delete it and run this step again") from None


@contextlib.contextmanager
def _member(archive: Path, name: str) -> Iterator[tuple[BinaryIO, int]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            found = _named(
                archive, name, {each.filename: each for each in opened.infolist() if not each.filename.endswith("/")}
            )
            if found.compress_type not in BOUNDED:
                raise ValueError(f"{archive}: {name} is packed otherwise than by deflate: pack the archive anew")
            with opened.open(found) as stream:
                yield stream, found.file_size
        return
    with tarfile.open(archive) as opened:
        found = _named(archive, name, {each.name: each for each in opened if each.isreg()})
        yield opened.extractfile(found), found.size


def _named(archive: Path, name: str, members: dict):
    """The member of that name, else the only one that ends in it."""
    ends = [each for each in members if each.endswith(f"/{name}")]
    if name in members or len(ends) == 1:
        return members[name if name in members else ends[0]]
    there = ", ".join(sorted(members)[:12])
    raise ValueError(f"{archive} holds no {name}; it holds {there}: correct `member` in its entry under sources.raw")
