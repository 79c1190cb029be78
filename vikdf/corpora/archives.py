"""Pictures in a folder, a zip or a tar, read by name: nothing is ever extracted, so no archive can write anywhere.

In: a path. Out: `opened(path)`, which lists the files in a fixed order and reads one of them, with a reason for each that
is not to be read; sizes are looked at before a byte is decompressed:

    unsafe_name duplicate_name name_not_utf8   `..`, absolute; the second of one name; ambiguous_name: in several folders
    link device sparse encrypted               what holds no bytes of its own, or none that can be read
    too_many_bytes empty_file broken_member    refused by its size; nothing; does not unpack to what the archive says,
                                               or is packed as no zip of pictures is (neither stored nor deflated)
    truncated damaged_header ...               the archive ends here: vikdf/tars.py

Other forms than these three (tar.gz, rar, 7z) are a ValueError: a picture cannot be found in them by its name.
"""

import contextlib
import dataclasses
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from vikdf import tars

UNREADABLE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError, EOFError)
UNREADABLE += (OSError, struct.error, ValueError)  # zipfile says them of one damaged member
ENCRYPTED = 1  # the bit of a zip member's flags
# The two ways of packing that zipfile unpacks no further than it is asked to; bzip2 and LZMA it unpacks in one go, so that
# a member of some hundred bytes takes a gigabyte of memory before its first byte is given.
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclasses.dataclass(frozen=True)
class File:
    """A file of the folder or archive. `bad` is empty, or the reason why it is not to be read."""

    name: str
    size: int
    bad: str
    place: object  # what the archive's own reader wants


class Archive:
    """The files in the order of their names (a tar's: as they stand), found by whole name or by its last part."""

    def __init__(self, files: list[File], read: Callable[[File, int], bytes]):
        self.files, self._read = _second_of_a_name(files), read
        self.by_name = {file.name: file for file in reversed(self.files)}
        self.by_last: dict[str, File | None] = {}
        for file in self.by_name.values():
            last = file.name.rpartition("/")[2]
            self.by_last[last] = None if last in self.by_last else file

    def find(self, name: str) -> File | str:
        """The file of that name, or why there is none: missing, ambiguous_name."""
        if found := self.by_name.get(name):
            return found
        return self.by_last.get(name, "missing") or "ambiguous_name"

    def read(self, file: File | str, max_bytes: int) -> tuple[str, bytes]:
        """("", bytes), or (what is wrong, nothing)."""
        if isinstance(file, str) or file.bad:
            return (file if isinstance(file, str) else file.bad), b""
        if file.size > max_bytes:
            return "too_many_bytes", b""
        try:
            data = self._read(file, max_bytes + 1)
        except UNREADABLE:
            return "broken_member", b""
        if len(data) > max_bytes:
            return "too_many_bytes", b""
        return ("", data) if data else ("empty_file", b"")


def _second_of_a_name(files: list[File]) -> list[File]:
    seen, told = set(), []
    for file in files:
        twice = file.name in seen and not file.bad
        told.append(dataclasses.replace(file, bad="duplicate_name") if twice else file)
        seen.add(file.name)
    return told


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The folder, zip or tar."""
    path = Path(path)
    tars.check_there(path, folder=True)
    if path.is_dir():
        yield Archive(_of_folder(path), lambda file, most: _head(path / file.name, most))
    elif zipfile.is_zipfile(path):
        with _zip(path) as (files, read):
            yield Archive(files, read)
    else:
        with open(path, "rb") as stream:
            yield Archive(_of_tar(path), lambda file, most: _at(stream, file.place, min(file.size, most)))


def _of_folder(folder: Path) -> list[File]:
    """Every file below the folder; links to folders are not entered, and links to files not followed out of it."""
    found, root = [], folder.resolve()
    for here, _, names in os.walk(folder):
        for name in names:
            path = Path(here, name)
            about = path.lstat()
            bad = "" if stat.S_ISREG(about.st_mode) else "device"
            if stat.S_ISLNK(about.st_mode):
                inside = path.is_file() and path.resolve().is_relative_to(root)
                bad, about = ("", path.stat()) if inside else ("link", about)
            found.append(
                File(_text(path.relative_to(folder).as_posix()), about.st_size, bad or tars.wrong_name(path.name), None)
            )
    return sorted(found, key=lambda file: file.name)


def _text(name: str) -> str:
    """A name that any file can hold: bytes that are no UTF-8 as their numbers."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def _zip(path: Path) -> Iterator[tuple[list[File], Callable[[File, int], bytes]]]:
    with contextlib.ExitStack() as held:
        try:
            archive = held.enter_context(zipfile.ZipFile(path))
        except UNREADABLE as error:
            raise ValueError(f"{path} is no sound zip ({error}): fetch it again") from None
        files = [
            File(_text(each.filename), each.file_size, _bad_in_zip(each), each)
            for each in archive.infolist()
            if not each.filename.endswith("/")  # is_dir() asks an empty name for its last sign
        ]

        def read(file: File, most: int) -> bytes:
            with archive.open(file.place) as member:
                return member.read(most)

        yield sorted(files, key=lambda file: file.name), read


def _bad_in_zip(member: zipfile.ZipInfo) -> str:
    if member.flag_bits & ENCRYPTED:
        return "encrypted"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "link" if kind == stat.S_IFLNK else "device"
    return tars.wrong_name(member.filename) or ("" if member.compress_type in BOUNDED else "broken_member")


def _of_tar(path: Path) -> list[File]:
    return [File(_text(each.name), each.size, each.bad, each.offset) for each in tars.members(path)]


def _head(path: Path, most: int) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(most)


def _at(stream, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)
