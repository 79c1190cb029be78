"""Tars without extraction: where each member's bytes lie, and a writer whose bytes depend on the members alone.

In: an uncompressed tar, from anywhere. Out: `members`, name, offset and size of each; `samples`, those that belong
together as webdataset has it. Nothing is ever written to disk: whatever a name says, it can reach no file.

    for member in members(path):
        if member.bad: ...  # counted under that reason; its bytes are not to be used
        else: data = take(stream, member)  # of the tar, open for reading

The headers are walked here and not by tarfile's own loop, which takes a damaged header for the end of the tar, and calls
itself once more for each long-name header, however many stand in a row.
"""

import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
LONGEST = 1 << 16  # bytes of a long-name or pax header: no honest one is longer
LONG_NAME, PAX, COMMON = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE
ABOUT_THE_NEXT = {LONG_NAME, PAX, COMMON, tarfile.GNUTYPE_LONGLINK, tarfile.SOLARIS_XHDTYPE}
KINDS = {tarfile.LNKTYPE: "link", tarfile.SYMTYPE: "link"}
KINDS |= dict.fromkeys((tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE), "device")
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
RECORD = re.compile(rb"(\d{1,9}) ([^=]+)=")  # of a pax header: length, keyword, value up to the length


@dataclass(frozen=True)
class Member:
    """A file in a tar. `bad` is empty, or the reason why its bytes are not to be used."""

    name: str
    offset: int
    size: int
    bad: str = ""


def members(path: Path) -> Iterator[Member]:
    """The files in the order of the tar; folders are passed over. A file that is no tar is a ValueError.

    bad: link, device, sparse, unsafe_name (absolute, with `..`, empty), name_not_utf8; and, as the last member of a tar
    that is harmed itself: truncated, damaged_header, more_after_the_end.
    """
    check_there(path)
    with open(path, "rb") as stream:
        length = os.fstat(stream.fileno()).st_size
        _assert_tar(path, stream)
        at, said = 0, {}
        while True:
            header, bad = _header(stream, at)
            if header is None:
                bad = bad or _after_the_end(stream, said)
                if bad:
                    yield Member("", at, max(0, length - at), bad)
                return
            if header.type not in ABOUT_THE_NEXT:
                header.name, header.size = said.get("path", header.name), said.get("size", header.size)
            start, size = at + BLOCK, header.size if _has_bytes(header) else 0
            if size < 0 or start + size > length or (header.type in ABOUT_THE_NEXT and size > LONGEST):
                yield Member(header.name, start, max(0, length - start), "damaged_header" if size < 0 else "truncated")
                return
            if header.type in ABOUT_THE_NEXT:
                said |= _said(header.type, stream.read(size))
            else:
                if not header.isdir():
                    yield Member(header.name, start, size, _reason(header, said))
                said = {}
            at = start + -(-size // BLOCK) * BLOCK


def check_there(path: Path, folder: bool = False) -> None:
    """Raises a ValueError for what is no file, nor a folder where one will do: a pipe would be waited for without end."""
    path = Path(path)
    if path.is_file() or (folder and path.is_dir()):
        return
    what = "is missing" if not path.exists() else "is neither a folder nor a file" if folder else "is no file"
    cure = "put the corpus there, or change the entry of params.yaml that names it" if folder else "expected a tar"
    raise ValueError(f"{path} {what}: {cure}")


def _assert_tar(path: Path, stream: BinaryIO) -> None:
    begin = stream.read(BLOCK)
    for magic, name in PACKED.items():
        if begin.startswith(magic):
            raise ValueError(
                f"{path} is compressed ({name}), so no member can be found in it by its place: unpack it once"
            )
    try:
        tarfile.TarInfo.frombuf(begin, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:
        pass  # an empty tar
    except tarfile.HeaderError as error:
        raise ValueError(f"{path} is not a tar ({error}): copy or fetch it anew") from None


def _header(stream: BinaryIO, at: int) -> tuple[tarfile.TarInfo | None, str]:
    """The header at this place; none at the tar's end, with the reason where it is not a sound end."""
    stream.seek(at)
    try:
        return tarfile.TarInfo.frombuf(stream.read(BLOCK), "utf-8", "surrogateescape"), ""
    except tarfile.EOFHeaderError:
        return None, ""
    except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError):
        return None, "truncated"
    except tarfile.HeaderError:
        return None, "damaged_header"


def _after_the_end(stream: BinaryIO, said: dict) -> str:
    """Zeros alone may follow: readers stop here, so that what else follows would be lost without a word."""
    while block := stream.read(1 << 20):
        if block.count(0) != len(block):
            return "more_after_the_end"
    return "damaged_header" if said else ""


def _has_bytes(header: tarfile.TarInfo) -> bool:
    return header.isreg() or header.type in ABOUT_THE_NEXT or header.type not in tarfile.SUPPORTED_TYPES


def _said(kind: bytes, data: bytes) -> dict:
    """What a long-name or pax header says of the next file: path, size, sparse. What holds for all is not a file's."""
    if kind == LONG_NAME:
        return {"path": data.split(b"\0")[0].decode("utf-8", "surrogateescape")}
    found, at = {}, 0
    while kind == PAX and (match := RECORD.match(data, at)) and int(match[1]) > match.end() - at:
        value = data[match.end() : at + int(match[1]) - 1].decode("utf-8", "surrogateescape")
        if match[2] == b"path":
            found["path"] = value
        if match[2] == b"size":
            found["size"] = int(value) if re.fullmatch(r"[0-9]{1,18}", value) else -1
        if match[2].startswith(b"GNU.sparse"):
            found["sparse"] = True
        at += int(match[1])
    return found


def _reason(header: tarfile.TarInfo, said: dict) -> str:
    """Why a file's bytes are not to be used; empty when they may be."""
    if header.type in KINDS:
        return KINDS[header.type]
    if header.type == tarfile.GNUTYPE_SPARSE or "sparse" in said:
        return "sparse"  # its bytes are not the file's
    return wrong_name(header.name)


def wrong_name(name: str) -> str:
    """What is wrong with a name in any archive or folder: name_not_utf8, unsafe_name; empty where nothing is."""
    if re.search("[\ud800-\udfff]", name):
        return "name_not_utf8"
    parts = name.replace("\\", "/").split("/")
    unsafe = not name.strip("./") or parts[0] == "" or ".." in parts or re.match("[A-Za-z]:", name) or "\0" in name
    return "unsafe_name" if unsafe else ""


def take(stream: BinaryIO, member: Member) -> bytes:
    """The bytes of a sound member; ask its size first, since a tar from anywhere may hold a member of any size."""
    if member.bad:
        raise ValueError(f"{stream.name}: {member.name!r} is not to be read ({member.bad})")
    stream.seek(member.offset)
    return stream.read(member.size)


def split(name: str) -> tuple[str, str]:
    """The key and the suffix of a name, as webdataset has it: cut at the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix.lower()


def samples(found: Iterable[Member]) -> Iterator[tuple[str, dict[str, Member]]]:
    """(key, suffix -> member) of what stands together in a tar under one key; bad members come alone, as ("", {bad: member})."""
    key, parts = "", {}
    for member in found:
        name, suffix = ("", member.bad) if member.bad else split(member.name)
        if parts and (member.bad or name != key or suffix in parts):
            yield key, parts
            parts = {}
        if member.bad:
            yield "", {member.bad: member}
        else:
            key, parts = name, parts | {suffix: member}
    if parts:
        yield key, parts


class Tar:
    """A tar whose bytes depend on its members alone: no owner, no time."""

    def __init__(self, path: Path):
        self.path, self.tar = path, tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)

    def add(self, name: str, data: bytes) -> int:
        """Adds a member; gives the offset of its bytes."""
        member = tarfile.TarInfo(name)
        member.size, member.mtime = len(data), 0
        offset = self.tar.offset + len(member.tobuf(tarfile.USTAR_FORMAT))
        self.tar.addfile(member, io.BytesIO(data))
        return offset

    def bytes_with(self, sizes: Iterable[int]) -> int:
        """How long the file will be if members of these sizes are added and it is closed then."""
        end = self.tar.offset + sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes) + 2 * BLOCK
        return -(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE

    def close(self) -> None:
        """The bytes are on the disk then."""
        self.tar.close()
        with open(self.path, "rb") as stream:
            os.fsync(stream.fileno())
