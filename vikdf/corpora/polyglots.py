"""Whether the bytes of a picture are also something else that a program would open or run.

In: the bytes of a picture that decodes. Out: what else it is (zip, rar, tar, pdf, page, script, program ...), or nothing.

Looked at are the places where the other program would look, so a chance likeness inside compressed pixels does not count:

    the last 64 KB     a zip's directory (zip, jar, apk, docx): a record of its end that points at a directory
    the first 1 KB     a pdf's header; a page's first tag, as old browsers guess; a tar's or iso's mark at its own place
    behind the end     another archive, a pdf, a page, a program: the end is found by walking over the picture's own parts
    everywhere         <script, <iframe, a tag with onload= or onerror=, <?php, <%@ page, #!/bin/ ...: comments and metadata
                       too, and pixels that were made to spell them, since interpreters look for these wherever they stand

What cameras and editors leave is none of these: zeros, a second JPEG (MPF), film or sound of a moving photo, makers' own
trailers, EXIF, XMP (which is XML), IPTC. Nothing is decoded or unpacked, so what hides in a compressed text of a PNG or in
another alphabet is not seen. This is no virus scanner: it tells pictures that are plainly something else from the others.
"""

import re
import struct

PAGE = rb"%PDF-[12]\.\d|<(?:!doctype\s+html|html|head|body|svg)[\s>/]"  # a browser's guess rests on the first such tag
SCRIPT = re.compile(  # each begins with one letter that is searched for fast, and is long enough not to occur by chance
    rb"<(?:script[\s>/]|iframe[\s>/]|\?php\s|\?=[ -;=-~\s]{3,400}?\?>|%@\s*(?:page|language)|!--#(?:exec|include)\s"
    rb"|[a-z]{1,20}[\s/][^<>]{0,200}?[\s/\"']on(?:load|error|click|mouseover)\s*=)",
    re.IGNORECASE,
)
SHELL = re.compile(rb"#!\s?/(?:usr/|bin/)")
HEAD = re.compile(PAGE, re.IGNORECASE)
BEHIND = re.compile(
    PAGE + rb"|@echo off\s|Rar!\x1a\x07|7z\xbc\xaf\x27\x1c|\xfd7zXZ\0|BZh[1-9]1AY&SY|MSCF\0{4}|PK\x03\x04[\x0a-\x3f]\0"
    rb"|PE\0\0(?:\x4c\x01|\x64\x86|\xc4\x01|\x64\xaa)|\x7fELF[\x01\x02]{2}\x01|\xcf\xfa\xed\xfe[\x07\x0c]\0\0"
    rb"|\xca\xfe\xba\xbe\0\0\0|dex\n03\d\0",
    re.IGNORECASE,
)
KINDS = ((b"%", "pdf"), (b"<", "page"), (b"@", "script"), (b"PE", "program"), (b"\x7f", "program"), (b"dex", "program"))
KINDS += ((b"\xcf", "program"), (b"\xca", "program"))
MARKS = ((257, b"ustar", "tar"), (32769, b"CD001", "iso"))
STEPS = 200_000  # parts of a GIF or PNG that are walked over; behind that all counts as behind the end
COMMENT = {b"GIF8": 6, b"\xff\xd8\xff": 4, b"RIFF": 4, b"BM": 2}  # where `/*` makes JavaScript of the rest


def polyglot(data: bytes) -> str:
    """What else the picture is; empty for one that is only a picture."""
    if _ends_a_zip(data):
        return "zip"
    if found := HEAD.search(data, 0, 1024):
        return _kind(found[0])
    if SCRIPT.search(data) or SHELL.search(data) or _is_javascript(data):
        return "script"
    if kind := next((kind for at, mark, kind in MARKS if data.startswith(mark, at)), ""):
        return kind
    tail = end_of(data)
    if data.startswith(b"\x1f\x8b\x08", tail):
        return "archive"
    if data.startswith(b"ustar", tail + 257):
        return "tar"
    found = BEHIND.search(data, tail)
    return _kind(found[0]) if found else ""


def _kind(mark: bytes) -> str:
    return next((kind for start, kind in KINDS if mark.startswith(start)), "archive")


def _ends_a_zip(data: bytes) -> bool:
    """A record of a zip's end, in the last 64 KB, behind the directory that it tells of; what stands before both moves it."""
    at = max(0, len(data) - 65_557) - 1
    while (at := data.find(b"PK\x05\x06", at + 1)) >= 0 and at + 22 <= len(data):
        entries, size, offset, comment = struct.unpack_from("<HIIH", data, at + 10)
        empty = entries == size == offset == 0
        larger = offset == 0xFFFFFFFF and data[max(at - 20, 0) :].startswith(b"PK\x06\x07")  # zip64 says it elsewhere
        there = size <= at and data.startswith(b"PK\x01\x02", at - size)
        if at + 22 + comment <= len(data) and (there or empty or larger):
            return True
    return False


def _is_javascript(data: bytes) -> bool:
    """A file whose first letters are a name and a comment, GIF89a/* ... */=1: browsers run it where a page asks for a script."""
    place = next((place for mark, place in COMMENT.items() if data.startswith(mark)), None)
    opened = place is not None and data[place : place + 2] == b"/*"
    return opened and re.search(rb"\*/\s*[=;(]", data) is not None


def end_of(data: bytes) -> int:
    """Where the picture ends; 0 where its parts tell no end, so that all of it is looked at."""
    walk = next((walk for mark, walk in WALKS.items() if data.startswith(mark)), None)
    try:
        end = walk(data) if walk else 0
    except (struct.error, IndexError):
        return 0
    return end if end <= len(data) else 0


def _end_of_jpeg(data: bytes) -> int:
    """Over the segments up to the first scan, a small picture inside EXIF among them; inside a scan FF D9 is the end."""
    at = 2
    while data[at + 1] != 0xDA:
        if data[at] != 0xFF:
            return at
        at += 1 if data[at + 1] == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
    end = data.find(b"\xff\xd9", at)
    return end + 2 if end >= 0 else at


def _end_of_png(data: bytes) -> int:
    at = 8
    for _ in range(STEPS):
        size, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + size
        if kind == b"IEND":
            break
    return at


def _end_of_gif(data: bytes) -> int:
    at = 13 + _palette(data[10])
    steps = 0
    while data[at] in b"!,":
        at += 2 if data[at] == 0x21 else 11 + _palette(data[at + 9])
        while data[at] and steps < STEPS:
            at, steps = at + 1 + data[at], steps + 1
        if steps == STEPS:
            return at
        at += 1
    return at + 1


def _palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _end_of_webp(data: bytes) -> int:
    return 8 + struct.unpack_from("<I", data, 4)[0]


def _end_of_bmp(data: bytes) -> int:
    """By its rows where they are not compressed: the size in its header may be anything."""
    start, _, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    rows = (width * bits + 31) // 32 * 4 * abs(height)
    return start + rows if compression in (0, 3) else struct.unpack_from("<I", data, 2)[0]


WALKS = {
    b"\xff\xd8\xff": _end_of_jpeg,
    b"\x89PNG": _end_of_png,
    b"GIF8": _end_of_gif,
    b"RIFF": _end_of_webp,
    b"BM": _end_of_bmp,
}
