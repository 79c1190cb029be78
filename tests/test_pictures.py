"""pictures: bombs, cut, polyglot and wrong files; what is no picture reaches no decoder, what is one is bounded."""

import io
import random
import struct
import zlib

import pytest
from PIL import Image

from vikdf.corpora.pictures import examine

MOST = 1_000_000
HTML = b"<html><script>alert(1)</script></html>"


def picture(form: str = "JPEG", size: tuple[int, int] = (40, 30), **settings) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(stream, form, **settings)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, before: bytes = b"", lines: bytes | None = None) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = zlib.compress(bytes((width + 1) * height)) if lines is None else lines
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def gif(frames: int) -> bytes:
    """The first frame, then the same block of another one as often as asked."""
    stream = io.BytesIO()
    Image.new("P", (1000, 1000)).save(stream, "GIF", save_all=True, append_images=[Image.new("P", (1000, 1000), 1)])
    data = stream.getvalue()
    second = data.rindex(b"\x21\xf9")
    return data[:second] + data[second:-1] * frames + b";"


def webp(width: int, height: int) -> bytes:
    """The canvas of an animation that says how large it is and holds next to nothing."""
    canvas = struct.pack("<I", 2)[:4] + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def scans(times: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = picture("JPEG", (64, 64), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * times + data[-2:]


BOMBS = {
    "png": (lambda: png(30_000, 30_000, lines=zlib.compress(bytes(1 << 20))), "too_many_pixels"),
    "png of one line": (lambda: png(2**31 - 1, 1, lines=b""), "too_many_pixels"),
    "gif": (
        lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0," + struct.pack("<HHHHBB", 0, 0, 1, 1, 0, 2),
        "too_many_pixels",
    ),
    "gif whose frame is larger than it": (
        lambda: b"GIF89a" + struct.pack("<HH", 1, 1) + b"\0\0\0," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0),
        "too_many_pixels",
    ),
    "webp": (lambda: webp(16_383, 16_383), "too_many_pixels"),
    "webp of a canvas that no picture fills": (lambda: webp(1 << 24, 1 << 24), "too_many_pixels"),
    "bmp": (
        lambda: (
            b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 30000, 30000, 1, 24, *[0] * 6)
        ),
        "too_many_pixels",
    ),
    "jpeg": (
        lambda: picture("JPEG").replace(struct.pack(">HH", 30, 40), struct.pack(">HH", 65500, 65500)),
        "too_many_pixels",
    ),
    "jpeg of many scans": (lambda: scans(500), "too_many_scans"),
    "text of a png": (lambda: png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20_000_000)))), "broken"),
    "profile of a png": (lambda: png(8, 8, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(20_000_000)))), "broken"),
    "itxt of a png": (
        lambda: png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(20_000_000)))),
        "broken",
    ),
    "more lines than a png has": (lambda: png(8, 8, lines=zlib.compress(bytes(20_000_000))), "ok"),
}


@pytest.mark.parametrize("bomb,status", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_and_its_memory_never_asked_for(bomb, status):
    data = bomb()
    assert len(data) < 2_000_000 and examine(data, MOST)[0] == status


def test_of_an_animation_only_the_first_frame_is_decoded():
    assert examine(gif(2000), MOST) == ("ok", 1000, 1000)


def test_a_progressive_jpeg_of_ten_scans_is_a_picture():
    assert examine(picture("JPEG", (64, 64), progressive=True), MOST) == ("ok", 64, 64)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_cut_picture_is_broken_wherever_it_is_cut(form):
    data = picture(form, (64, 64))
    assert examine(data, MOST) == ("ok", 64, 64)
    for length in (4, 12, 40, len(data) // 2, len(data) * 9 // 10):
        assert examine(data[:length], MOST)[0] in ("broken", "wrong_type"), length


@pytest.mark.parametrize(
    "data",
    {
        "nothing": b"",
        "page": HTML,
        "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "pdf": b"%PDF-1.4 trailer",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "tiff": picture("TIFF"),
        "ico": picture("ICO"),
        "ppm": picture("PPM"),
        "jpeg 2000": picture("JPEG2000"),
        "zip": b"PK\x03\x04" + bytes(40),
        "script": b"#!/bin/sh\nrm -rf x\n",
        "text": b"not found",
    }.items(),
    ids=lambda item: item[0] if isinstance(item, tuple) else None,
)
def test_what_is_no_picture_of_the_five_forms_is_given_to_no_decoder(data):
    assert examine(data[1], MOST) == ("wrong_type", None, None)


def test_what_is_spoilt_at_random_is_a_picture_or_named():
    rng = random.Random(1)
    sound = [picture(form, (32, 32)) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP")]
    for _ in range(600):
        data = bytearray(rng.choice(sound))
        for _ in range(rng.choice([1, 5, 20])):
            data[rng.randrange(min(len(data), rng.choice([64, 400, len(data)])))] = rng.randrange(256)
        assert examine(bytes(data), MOST)[0] in ("ok", "broken", "wrong_type", "too_many_pixels", "too_many_scans")
