"""decode: one place opens the pictures of the web, in five formats, and tells what cannot be decoded."""

import ast
import io

import pytest
from PIL import EpsImagePlugin, Image

from vikdf import decode
from vikdf.code import ROOT
from vikdf.decode import FORMATS, opened
from vikdf.filter.near import look

# beside decode.py: examine() of pictures.py tells why a picture cannot be decoded; the trainers of the small backbones see
# only what it let through
OPENERS = {"decode.py", "corpora/pictures.py"}


def encoded(form: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_is_what_pillow_makes_of_it_in_rgb(form):
    assert opened(encoded(form)).tobytes() == Image.open(io.BytesIO(encoded(form))).convert("RGB").tobytes()


@pytest.mark.parametrize("read", [opened, look])
def test_other_kinds_are_not_tried_so_that_none_reaches_another_program(read, monkeypatch):
    reached = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **named: reached.append(given))
    assert [read(encoded(form)) for form in ("EPS", "TIFF", "PPM")] == [None] * 3 and reached == []


def test_a_picture_of_far_too_many_pixels_is_not_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert opened(encoded("PNG")) is None


@pytest.mark.parametrize("error", [*decode.UNDECODABLE, Image.DecompressionBombError])
@pytest.mark.parametrize("read", [opened, look])
def test_whatever_pillow_raises_at_damaged_bytes_costs_that_picture_alone(read, error, monkeypatch):
    def damaged(*given, **named):
        raise error("damaged")

    monkeypatch.setattr(Image, "open", damaged)
    assert read(encoded("PNG")) is None


@pytest.mark.parametrize("lost", [None, b"", encoded("TIFF"), encoded("PNG")[:40]])
def test_a_row_without_a_picture_is_named_where_every_row_must_have_one(lost):
    rows = [encoded("PNG"), encoded("JPEG"), lost]
    assert [picture.size for picture in decode.each_opened(rows[:2], "pairs.parquet")] == [(8, 8)] * 2
    with pytest.raises(ValueError, match="pairs.parquet, row 3 of 3: there is no picture, or it cannot be decoded"):
        list(decode.each_opened(rows, "pairs.parquet"))


def test_a_file_is_named_by_its_bytes():
    names = [decode.suffix(encoded(form)) for form in FORMATS]
    assert names == ["jpg", "png", "webp", "gif", "bmp"] and decode.suffix(encoded("TIFF")) == "bin"
    assert set(names) < set(decode.SUFFIXES) and "bin" not in decode.SUFFIXES


def test_no_other_module_opens_a_picture():
    found = set()
    for path in sorted(ROOT.glob("vikdf/**/*.py")):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        if any(ast.unparse(call).endswith("Image.open") for call in calls):
            found.add(path.relative_to(ROOT / "vikdf").as_posix())
    assert found == OPENERS
