"""The pictures of the dialogues that are rated: the paper's raters judge whether an answer fits the context and the image.

In: a folder with a file a dialogue, named by its id, such as image_chat-test-0000367.jpg. Out: dialogue -> an address that
holds the picture itself, so that a page with it is still one file. Each is made small and written anew: a page can be
sent, and what else the file held (where it was taken, its name) stays here.
"""

import base64
import io
from pathlib import Path

from vikdf import decode

SIDE = 640  # pixels of the longer side: 100 pictures make a page of some 10 MB
QUALITY = 80  # of JPEG


def read(folder: Path, names: list[str]) -> dict[str, str]:
    """The picture of each dialogue; without one of them its ratings could not be compared with the others."""
    found = {name: _file(folder, name) for name in names}
    if lost := sorted(name for name, path in found.items() if path is None):
        raise ValueError(
            f"{folder} lacks the pictures of {len(lost)} of the {len(names)} dialogues drawn, such as {lost[0]}: "
            f"name each by its dialogue's id, {lost[0]}.jpg (or {', '.join(decode.SUFFIXES[1:])})"
        )
    return {name: _address(path) for name, path in found.items()}


def _file(folder: Path, name: str) -> Path | None:
    return next((path for end in decode.SUFFIXES if (path := folder / f"{name}.{end}").is_file()), None)


def _address(path: Path) -> str:
    from PIL import ImageOps

    picture = decode.opened(path.read_bytes())
    if picture is None:
        raise ValueError(f"{path} is damaged, or no {', '.join(decode.FORMATS)}: put another file there")
    picture = ImageOps.exif_transpose(picture)  # a phone's picture may lie on its side
    picture.thumbnail((SIDE, SIDE))
    picture.info.clear()  # a comment, too, stays here
    small = io.BytesIO()
    picture.save(small, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(small.getvalue()).decode()}"
