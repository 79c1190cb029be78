"""Whole files that are harmed, cut or something else: one sentence that names the file, or rows that say what is wrong.

In: small corpora and dialogues in every published form, harmed by a seed. Out: nothing; all is temporary.
Run: pytest tests/test_harmed_files.py; thousands of harmed files with `pytest -m long tests/test_harmed_files.py`.
"""

import contextlib
import gzip
import io
import json
import os
import random
import signal
import zipfile
from collections import Counter
from pathlib import Path

import hostile_items
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from campaign import tree
from members import tar, zipped
from web_of_failures import picture

from vikdf import index, schemas, tars
from vikdf.corpora import archives, guess, talks, unpack
from vikdf.corpora.addresses import Limits
from vikdf.corpora.pictures import examine
from vikdf.filter import near
from vikdf.sources import rows

LIMITS = Limits(timeout=1, deadline=3, max_bytes=1_000_000, max_pixels=1_000_000, loopback_port=0)
SECONDS = 20  # after which a reader counts as hanging
COUNT = 6  # rows of each sound file
URLS = [f"http://192.0.2.1/{number}.jpg" for number in range(COUNT)]
TEXTS = [f"a picture of the thing {number}" for number in range(COUNT)]


def pictures() -> dict[str, bytes]:
    return {f"{number}.jpg": picture(f"{number}", 16, "PNG" if number % 2 else "JPEG") for number in range(COUNT)}


def parquet(table: dict) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(table), stream)
    return stream.getvalue()


def text(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


PAIRS = list(zip(URLS, TEXTS, strict=True))
OBJECTS = [{"url": url, "caption": said} for url, said in PAIRS]
BESIDE = {f"{number}.json": json.dumps({"caption": said}).encode() for number, said in enumerate(TEXTS)}
ALL = dict(sorted((pictures() | BESIDE).items()))
COCO = {"images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(COUNT)]}
COCO["annotations"] = [{"image_id": n, "caption": said} for n, said in enumerate(TEXTS)]
REDDIT = [{"context": [said, "and then"], "response": "yes"} for said in TEXTS]
CHAT = [{"dialog": [["Calm", said], ["Glad", "oh"], ["Calm", "yes"]]} for said in TEXTS]

# A sound file of each form: (entry of sources.corpora, the key of the file in it, its name, its bytes).
NAMED = {"url": "url", "caption": "caption"}
FORMS = {
    "cc3m": ({"form": "cc3m"}, "list", "a.tsv", text([f"{said}\t{url}" for url, said in PAIRS])),
    "cc12m": ({"form": "cc12m"}, "list", "a.tsv", text([f"{url}\t{said}" for url, said in PAIRS])),
    "sbu": ({"form": "sbu"}, "list", "a.json", json.dumps({"image_urls": URLS, "captions": TEXTS}).encode()),
    "tsv": ({"form": "list"} | NAMED, "list", "a.tsv", text(["url\tcaption", *(f"{u}\t{said}" for u, said in PAIRS)])),
    "csv": ({"form": "list"} | NAMED, "list", "a.csv", text(["url,caption", *(f'{u},"{said}"' for u, said in PAIRS)])),
    "jsonl": ({"form": "list"} | NAMED, "list", "a.jsonl", text([json.dumps(each) for each in OBJECTS])),
    "json": ({"form": "list"} | NAMED, "list", "a.json", json.dumps(OBJECTS).encode()),
    "parquet": ({"form": "list"} | NAMED, "list", "a.parquet", parquet({"url": URLS, "caption": TEXTS})),
    "tar": ({"form": "folder", "captions": None}, "images", "a.tar", tar(ALL)),
    "zip": ({"form": "folder", "captions": None}, "images", "a.zip", zipped(ALL)),
    "webdataset": ({"form": "webdataset"}, "shards", "a.tar", tar(ALL)),
    "coco": ({"form": "coco"}, "captions", "a.json", json.dumps(COCO).encode()),
}
FORMS["tsv.gz"] = (*FORMS["tsv"][:2], "a.tsv.gz", gzip.compress(FORMS["tsv"][3], mtime=0))
FORMS["json.gz"] = (*FORMS["json"][:2], "a.json.gz", gzip.compress(FORMS["json"][3], mtime=0))
TALKS = {
    "reddit": ({"form": "reddit"}, "a.json", json.dumps(REDDIT).encode()),
    "image_chat": ({"form": "image_chat", "turns": "all"}, "a.jsonl", text([json.dumps(each) for each in CHAT])),
    "turns": ({"form": "turns", "columns": ["a", "b"]}, "a.csv", text(["a,b", *(f"{said},yes" for said in TEXTS)])),
}


@contextlib.contextmanager
def in_time():
    """A reader that hangs is interrupted, and the test fails."""

    def hangs(*_):
        raise AssertionError(f"still reading after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read(form: str, data: bytes, folder: Path) -> list[dict]:
    """The rows of a corpus whose file holds these bytes."""
    entry, key, name, _ = FORMS[form]
    (folder / name).write_bytes(data)
    entry = entry | {key: str(folder / name)}
    if form == "coco":
        (folder / "images.zip").write_bytes(zipped(pictures()))
        entry["images"] = str(folder / "images.zip")
    with in_time():
        return list(rows("corpus", entry, LIMITS))


def told(form: str, data: bytes, folder: Path) -> list[tuple]:
    """The dialogues of a file that holds these bytes, or why they are none."""
    entry, name, _ = TALKS[form]
    (folder / name).write_bytes(data)
    with in_time():
        return list(talks.rows(folder / name, entry, steps=["printable", "strip"]))


@pytest.mark.parametrize("form", FORMS)
def test_a_sound_file_gives_all_its_rows(form, tmp_path):
    found = read(form, FORMS[form][3], tmp_path)
    assert [row["captions"] for row in found] == [[said] for said in TEXTS]
    wanted = "refused_address" if FORMS[form][1] == "list" else "ok"
    assert {row["status"] for row in found} == {wanted}


WRONG = {
    "nothing": b"",
    "zeros": bytes(3000),
    "noise": random.Random(5).randbytes(3000),
    "a page": b"<!doctype html><html><body>please log in</body></html>\n",
    "utf-16": "url\tcaption\nhttp://192.0.2.1/\tx\n".encode("utf-16"),
    "deep": b"[" * 200_000,
    "a number": b"7",
    "null": b"null",
    "huge number": b"[" + b"9" * 10_000 + b"]",
    "a gzip": gzip.compress(b"url\tcaption\n", mtime=0),
    "half a zip": zipped(pictures())[:700],
}
NO_ROWS = {
    ("cc3m", "nothing"),
    ("cc12m", "nothing"),
    ("jsonl", "nothing"),
    ("tsv.gz", "a gzip"),
}  # sound, and of no row
NO_ROWS |= {(form, "zeros") for form in ("tar", "zip", "webdataset")}  # an empty tar


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("form", FORMS)
def test_another_file_in_its_place_is_named_or_gives_no_picture(form, what, tmp_path):
    try:
        found = read(form, WRONG[what], tmp_path)
    except ValueError as error:
        assert FORMS[form][2] in str(error) and len(str(error)) < 1000
    else:
        assert bool(found) == ((form, what) not in NO_ROWS)
        assert all(row["status"] not in ("", "ok") for row in found)


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_file_a_folder_and_a_pipe_in_its_place_are_named(form, tmp_path):
    entry, key, name, _ = FORMS[form]
    entry = entry | {key: str(tmp_path / name)} | ({"images": str(tmp_path)} if form == "coco" else {})
    for made in (lambda path: None, Path.mkdir, os.mkfifo):
        (tmp_path / name).rmdir() if (tmp_path / name).is_dir() else None
        made(tmp_path / name)
        if key in ("images", "shards") and made is Path.mkdir:
            continue  # a folder is what these may be
        with pytest.raises(ValueError, match=name), in_time():
            list(rows("corpus", entry, LIMITS))


def test_a_pipe_among_the_shards_is_named_by_every_reader(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    os.mkfifo(tmp_path / "a.json")
    entry = {"form": "webdataset", "shards": str(tmp_path)}
    readers = [lambda: list(rows("corpus", entry, LIMITS)), lambda: index.index(tmp_path)]
    readers += [lambda: list(tars.members(tmp_path / "a.tar"))]
    for read_it in readers:
        with pytest.raises(ValueError, match="a.tar is no file"), in_time():
            read_it()
    with pytest.raises(ValueError, match="a.json is neither a folder nor a file"), in_time():
        guess.entry_of(tmp_path / "a.json")
    with pytest.raises(ValueError, match="a.tar is no file"), in_time():
        schemas.read(tmp_path / "a.tar", schemas.PAIRS)


def test_a_zip_with_a_member_without_a_name_gives_its_other_members(tmp_path):
    stream = io.BytesIO(zipped(ALL))
    with zipfile.ZipFile(stream, "a") as archive:
        nameless = zipfile.ZipInfo("x")
        nameless.filename = ""
        archive.writestr(nameless, b"no name")
    found = read("zip", stream.getvalue(), tmp_path)
    assert sum(row["status"] == "ok" for row in found) == COUNT
    unpack.take(tmp_path / "a.zip", "1.json", tmp_path / "taken")
    assert (tmp_path / "taken").read_bytes() == ALL["1.json"]


def test_a_parquet_whose_column_has_no_name_in_utf8_is_named(tmp_path):
    stream = io.BytesIO()
    pq.write_table(pa.table({"url": URLS, "caption": TEXTS, "zzzz": TEXTS}), stream, store_schema=False)
    data = stream.getvalue().replace(b"zzzz", b"\xff\xfe\xfd\xfc")
    with pytest.raises(ValueError, match="a.parquet is a damaged parquet file"):
        read("parquet", data, tmp_path)
    for reader in (schemas.read, lambda *given: list(schemas.batches(*given))):
        with pytest.raises(ValueError, match="a.parquet (is damaged|has no column)"):
            reader(tmp_path / "a.parquet", schemas.PAIRS)


@pytest.mark.parametrize("deep", ["[" * 5000 + '"]"' + "]" * 5000, '{"a\\"":' * 300_000 + "1" + "}" * 300_000])
def test_one_row_of_a_list_that_is_nested_too_deeply_costs_itself_alone(tmp_path, deep):
    data = f"[{json.dumps(OBJECTS[0])},{deep},{json.dumps(OBJECTS[1])}]"
    found = read("json", data.encode(), tmp_path)
    assert [row["captions"] for row in found] == [[TEXTS[0]], [], [TEXTS[1]]]
    assert found[1]["status"] in ("too_deep", "too_long")


BOMBS = {  # sound to their end, which never comes: 80 MB, more than any file of their size may unpack to
    "tsv.gz": b"url\tcaption\n" + (URLS[0].encode() + b"\t" + b"x" * 9000 + b"\n") * 9000,
    "json.gz": b"[" + b" " * 80_000_000,
}


@pytest.mark.parametrize("form", BOMBS)
def test_a_gzip_that_unpacks_without_end_is_refused(form, tmp_path):
    with pytest.raises(ValueError, match=rf"{FORMS[form][2]} unpacks to more than \d+ bytes"):
        read(form, gzip.compress(BOMBS[form], 1, mtime=0), tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_member_that_unpacks_in_one_go_is_refused_before_it_is_unpacked(method, tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(zipped({"1.jpg": bytes(1000)}, method))

    def unpacked(*_):
        raise AssertionError("it was opened")

    monkeypatch.setattr(zipfile.ZipFile, "open", unpacked)
    with archives.opened(tmp_path / "a.zip") as archive:
        assert archive.read(archive.find("1.jpg"), LIMITS.max_bytes) == ("broken_member", b"")
    with pytest.raises(ValueError, match="a.zip: 1.jpg is packed otherwise than by deflate"):
        unpack.take(tmp_path / "a.zip", "1.jpg", tmp_path / "taken")


def survive(form: str, folder: Path, times: int) -> None:
    """Reads harmed files: rows with a status each, or one sentence that names the file; nothing else appears."""
    draw, expected, read_rows = random.Random(f"{form} {times}"), None, 0
    for number in range(times):
        data = FORMS[form][3] if form in FORMS else TALKS[form][2]
        data = hostile_items.harmed(data, draw)
        try:
            found = read(form, data, folder) if form in FORMS else told(form, data, folder)
            assert all(isinstance(row, tuple) or isinstance(row["status"], str) for row in found), number
            read_rows += len(found)
        except ValueError as error:
            name = FORMS[form][2] if form in FORMS else TALKS[form][1]
            assert name in str(error), (number, str(error))
        expected = expected or tree(folder).keys()
        assert tree(folder).keys() == expected
    assert read_rows > 0


@pytest.mark.parametrize("form", [*FORMS, *TALKS])
def test_thirty_harmed_files_of_a_form_crash_nothing(form, tmp_path):
    survive(form, tmp_path, 30)


def test_harmed_pictures_are_ok_or_named_and_what_is_ok_can_be_looked_at():
    draw, said = random.Random(11), Counter()
    whole = [picture("fields", 24, form) for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP")]
    for _ in range(1000):
        data = hostile_items.harmed(draw.choice(whole), draw)
        status, width, height = examine(data, LIMITS.max_pixels)
        said[status] += 1
        if status == "ok":
            assert width * height <= LIMITS.max_pixels
            near.look(data)
    assert said.keys() == {"ok", "broken", "wrong_type", "too_many_pixels"}


@pytest.mark.long
@pytest.mark.parametrize("form", [*FORMS, *TALKS])
def test_two_thousand_harmed_files_of_a_form_crash_nothing(form, tmp_path):
    survive(form, tmp_path, 2000)
