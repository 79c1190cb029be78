"""Pictures out of bytes: which kinds are decoded at all, and what decoding raises. Every decoder of ours is called from here.

In: the bytes of a picture. Out: an RGB picture of Pillow, or nothing where they cannot be decoded; the names by which the
kinds are known. It reads no corpus, so that captioning and training do not depend on the code of those that do.

Other kinds are not even tried: Pillow hands EPS, for one, to another program.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

KINDS = {  # Pillow's name -> how such a file begins, and its suffixes; ours is the first
    "JPEG": (b"\xff\xd8\xff", "jpg", "jpeg"),
    "PNG": (b"\x89PNG", "png"),
    "WEBP": (b"RIFF", "webp"),
    "GIF": (b"GIF8", "gif"),
    "BMP": (b"BM", "bmp"),
}
FORMATS = tuple(KINDS)
MAGIC = tuple(magic for magic, *_ in KINDS.values())
SUFFIXES = tuple(suffix for _, *suffixes in KINDS.values() for suffix in suffixes)
OTHER = "bin"  # the suffix of a picture of another kind, in our own shards
UNDECODABLE = (  # what Pillow raises at damaged bytes
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


def suffix(image: bytes) -> str:
    """What the name of such a file ends with."""
    return next((suffixes[0] for magic, *suffixes in KINDS.values() if image.startswith(magic)), OTHER)


def opened(image: bytes | None):
    """The picture in RGB; None for one that cannot be decoded, or has far too many pixels."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(image or b""), formats=FORMATS).convert("RGB")
    except (*UNDECODABLE, Image.DecompressionBombError):
        return None


def each_opened(images: list[bytes | None], path: Path) -> Iterator:
    """The pictures of a table's rows, all of which must show something; `path`: the table, for what is wrong in it."""
    for row, image in enumerate(images, 1):
        picture = opened(image)
        if picture is None:
            said = f"{path}, row {row} of {len(images)}: there is no picture, or it cannot be decoded"
            raise ValueError(f"{said}; leave the row out, or name another table")
        yield picture
