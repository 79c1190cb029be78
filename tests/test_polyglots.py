"""polyglots: a picture that is an archive, a page or a program too is refused; what cameras and editors leave is not."""

import gzip
import io
import random
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from vikdf.corpora.pictures import examine
from vikdf.corpora.polyglots import end_of, polyglot

DATA = Path(__file__).resolve().parent.parent.parent / "shared/data"
MOST = 1_000_000
FORMS = ["JPEG", "PNG", "WEBP", "GIF", "BMP"]
HTML = b"<html><script>alert(1)</script></html>"
XMP = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
photoshop:History="open &lt;script&gt;"><dc:description><rdf:Alt><rdf:li xml:lang="x-default">a dog on a hill = fun, onload</rdf:li>
</rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def picture(form: str = "JPEG", size: tuple[int, int] = (40, 30), **settings) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(stream, form, **settings)
    return stream.getvalue()


def zipped(before: bytes = b"", comment: bytes = b"", **members) -> bytes:
    stream = io.BytesIO(before)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, data in (members or {"evil": "rm -rf x"}).items():
            archive.writestr(name, data)
        archive.comment = comment
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("evil"))
    return stream.getvalue()


def commented(form: str, text: bytes) -> bytes:
    """The picture with a text of its own kind inside."""
    if form == "PNG":
        part = b"tEXt" + b"Comment\0" + text
        data = picture("PNG")
        return data[:33] + struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) + data[33:]
    return picture(form, **({"comment": text} if form in ("JPEG", "GIF") else {"exif": b"Exif\0\0" + text}))


BEHIND = {
    "zip": zipped(),
    "zip with a comment": zipped(comment=b"x" * 60_000),
    "empty zip": b"PK\5\6" + bytes(18),
    "zip without a directory": zipped()[:40],
    "pdf": b"%PDF-1.7\n1 0 obj",
    "page": HTML,
    "page in capitals": b"\r\n<!DOCTYPE HTML>\n<P>",
    "svg": b'<svg onload="alert(1)">',
    "php": b"<?php system($_GET[0]);",
    "short php": b"<?=`$_GET[0]`?>",
    "jsp": b'<%@ page import="java.io.*" %>',
    "shell": b"\n#!/bin/sh\nrm -rf x\n",
    "shell found by env": b"\n#! /usr/bin/env python\n",
    "batch": b"\r\n@echo off\r\ndel x",
    "rar": b"Rar!\x1a\x07\x01\x00",
    "7z": b"7z\xbc\xaf\x27\x1c\0\4",
    "gzip": gzip.compress(b"x"),
    "xz": b"\xfd7zXZ\0\0",
    "tar": tarred(),
    "windows program": b"MZ" + bytes(62) + b"PE\0\0\x64\x86\6\0",
    "linux program": b"\x7fELF\2\1\1\0",
    "java class": b"\xca\xfe\xba\xbe\0\0\0\x34",
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_hung_behind_a_picture_makes_it_a_polyglot(form):
    data = picture(form)
    assert examine(data, MOST) == ("ok", 40, 30) and end_of(data) == len(data)
    for name, more in BEHIND.items():
        assert examine(data + more, MOST) == ("polyglot", None, None), name


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
@pytest.mark.parametrize("text", [
    HTML, b"<SCRIPT src=x>", b"<?php eval($x); ?>", b"<?=`$_GET[0]`?>", b"<img src=x onerror=alert(1)>", b"<iframe src=x>",
    b'<!--#exec cmd="ls" -->', b"%PDF-1.5", zipped(), b"<%@page x", b"#!/bin/sh\n",
])  # fmt: skip
def test_a_comment_that_a_program_would_act_on_makes_a_polyglot(form, text):
    assert examine(commented(form, text), MOST)[0] == "polyglot"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
@pytest.mark.parametrize("text", [
    XMP, b"CREATOR: gd-jpeg v1.0, quality = 90\n", b"a < b > c on load = 1", b"<?xml version='1.0'?>", b"PK\5\6", b"<3 <i>x</i>",
])  # fmt: skip
def test_a_comment_of_words_or_xml_does_not(form, text):
    assert examine(commented(form, text), MOST) == ("ok", 40, 30)


def test_exif_and_xmp_of_editors_do_not_make_a_polyglot():
    exif = Image.Exif()
    exif[0x010E], exif[0x0131], exif[0x9C9C] = "a <b>dog</b>", "Adobe Photoshop 25.0", "on a hill".encode("utf-16le")
    for form in ("JPEG", "PNG", "WEBP"):
        assert examine(picture(form, exif=exif, **({} if form == "PNG" else {"xmp": XMP})), MOST) == ("ok", 40, 30)


CAMERAS = {
    "zeros": bytes(5000),
    "line ends": b"\r\n\r\n",
    "the second picture of MPF, with metadata": picture(comment=XMP),
    "Samsung's trailer": b"\0\0\x01\x0a\x0e\0\0\0Image_UTC_Data1617181920212SEFHk\0\0\0\1\0\0\0\0\0\x01\x0a\x24\0\0\0SEFT",
    "the film of a moving photo": b"MotionPhoto_Data\0\0\0\x18ftypmp42\0\0\0\0isommp42"
    + random.Random(1).randbytes(300_000),
    "the sound of a camera": b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
    "a maker's own words": b"AROT\0\0QVCI MZ #! <% PE PK\3\4",
    "a record that points nowhere": b"PK\5\6" + bytes(4) + struct.pack("<HHIIH", 3, 3, 150, 90, 0),
}


@pytest.mark.parametrize("more", CAMERAS.values(), ids=CAMERAS)
def test_what_cameras_leave_behind_a_picture_does_not_make_a_polyglot(more):
    assert examine(picture() + more, MOST) == ("ok", 40, 30)


@pytest.mark.parametrize(("data", "place"), [(b"GIF89a/*\x10\0", 6), (b"\xff\xd8\xff\xe0/*", 4), (b"BM/*", 2)])
def test_a_picture_that_is_a_comment_of_javascript_to_a_browser_is_a_polyglot(data, place):
    assert polyglot(data + bytes(60) + b"*/=1;alert(1)//") == "script"
    assert not polyglot(data[:place] + b"//" + bytes(60) + b"*/=1;alert(1)//")


@pytest.mark.parametrize(("place", "mark"), [(257, b"ustar"), (32769, b"CD001")])
def test_a_picture_laid_out_as_a_tar_or_an_iso_is_a_polyglot(place, mark):
    data = commented("JPEG", bytes(40_000))
    assert not polyglot(data) and polyglot(data[:place] + mark + data[place + 5 :])


def test_a_small_picture_inside_exif_is_not_the_end():
    data = picture(exif=b"Exif\0\0" + picture(size=(8, 8)))
    assert end_of(data) == len(data) and examine(data, MOST)[0] == "ok"


def test_an_end_that_cannot_be_told_hides_nothing():
    for form, place in (("WEBP", 4), ("BMP", 18)):
        data = bytearray(picture(form) + b"%PDF-1.7")
        data[place : place + 4] = struct.pack("<I", 0x7FFFFFFF)
        assert end_of(bytes(data)) == 0 and polyglot(bytes(data)) == "pdf"
    assert polyglot(picture()[:-2] + b"Rar!\x1a\x07\0") == "archive"


@pytest.mark.parametrize("folder", ["coco_tiny", "cc3m/test_images", "image_chat/imgs"])
def test_no_real_picture_is_a_polyglot_until_a_zip_hangs_on_it(folder):
    paths = [path for path in sorted((DATA / folder).rglob("*")) if path.suffix in (".jpg", ".png")]
    if not paths:
        pytest.skip(f"../shared/data/{folder} is absent: it holds real pictures")
    for path in paths:
        data = path.read_bytes()
        assert not polyglot(data) and end_of(data) == len(data), path.name
        assert polyglot(zipped(data)) == "zip"
