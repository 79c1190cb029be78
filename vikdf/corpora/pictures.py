"""What a file is, and whether it is a picture that may be decoded: by its bytes alone, never by its name or its header.

In: bytes of the open web. Out: ok with width and height, or a stable name of what was wrong:

    wrong_type                                 no JPEG, PNG, WebP, GIF or BMP: no decoder sees it (SVG, TIFF, PDF, EPS ...)
    broken                                     one of these, cut short or damaged
    too_many_pixels too_many_scans             a bomb: refused before anything is decoded
    polyglot                                   it decodes, and is an archive, a page or a program too

The size is known from the header. Of an animation only the first frame is decoded. Pillow itself stops at 1 MB of text or
colour profile unpacked from a PNG. So decoding holds at most some 16 bytes a pixel of max_pixels (WebP; 4 to 7 for the others),
one picture at a time in a process.
Nothing here opens or runs what hangs on a picture, but shards are passed on, unpacked and served by others: so a zip, pdf,
page, script or program that is a picture too is refused. Where is looked for it: vikdf/corpora/polyglots.py.
"""

import dataclasses
import io
import warnings

from vikdf.corpora.polyglots import polyglot
from vikdf.decode import FORMATS, MAGIC, UNDECODABLE

SCANS = 100  # of a progressive JPEG, which has some ten: each one, of a few bytes, costs a pass over every pixel


def examine(data: bytes, max_pixels: int) -> tuple[str, int | None, int | None]:
    """(ok or what is wrong, width, height)."""
    from PIL import Image, UnidentifiedImageError

    if bomb := _bomb(data, max_pixels):
        return bomb, None, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strange colours, dates and the like
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                if picture.width * picture.height > max_pixels:
                    return "too_many_pixels", None, None
                picture.load()
                width, height = picture.size
        return ("polyglot", None, None) if polyglot(data) else ("ok", width, height)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "too_many_pixels", None, None
    except UnidentifiedImageError:
        return ("broken" if data.startswith(MAGIC) else "wrong_type"), None, None
    except UNDECODABLE:
        return "broken", None, None


def _bomb(data: bytes, max_pixels: int) -> str:
    """What must be known before Pillow opens the file."""
    if data[:3] == b"\xff\xd8\xff" and data.count(b"\xff\xda") > SCANS:  # inside a scan FF is followed by 00 or D0-D7
        return "too_many_scans"
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) >= 30:  # its canvas is reserved as it is opened
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return "too_many_pixels" if width * height > max_pixels else ""
    return ""


@dataclasses.dataclass(frozen=True)
class Examiner:
    """In the place of img2dataset's resizer: the bytes stay as they came, only their kind and size are looked at."""

    max_pixels: int

    def __call__(self, stream, boxes=None):
        data = stream.read()
        status, width, height = examine(data, self.max_pixels)
        if status != "ok":
            return None, None, None, None, None, status
        return data, width, height, width, height, None
