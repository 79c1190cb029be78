"""forms: every published form is read row by row, out of files that these tests build; what is wrong is a counted row."""

import gzip
import io
import json
import random
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vikdf import tars
from vikdf.corpora import archives, pairs, tables
from vikdf.corpora.addresses import Limits
from vikdf.sources import check_entries, rows

LIMITS = Limits(timeout=1, deadline=5, max_bytes=100_000, max_pixels=1_000_000, loopback_port=0)
URL = "http://example.org/a.jpg"


def picture(colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(stream, "JPEG")
    return stream.getvalue()


def read(**entry) -> list[dict]:
    return list(rows("name", {key: str(v) if isinstance(v, Path) else v for key, v in entry.items()}, LIMITS))


def told(found: list[dict]) -> list[tuple]:
    return [(row["status"], *row["captions"]) for row in found]


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# Tables


HOSTILE = [  # bytes of a line of a tsv of two columns -> what the row is
    (b"a dog\t" + URL.encode(), {"caption": "a dog", "url": URL}),
    (b"a dog\t" + URL.encode() + b"\r", {"caption": "a dog", "url": URL}),
    (b"one column", "wrong_columns"),
    (b"a\tb\tc", "wrong_columns"),
    (b"", "empty"),
    (b"caf\xe9\t" + URL.encode(), "not_utf8"),
    (b"\x89PNG\x00\x1a\t\xff", "nul_bytes"),
    (b"x" * (10 << 20), "too_long"),
    ("ein Hündchen\t".encode() + URL.encode(), {"caption": "ein Hündchen", "url": URL}),
]


@pytest.mark.parametrize("end", ["tsv", "tsv.gz"])
def test_a_bad_line_of_a_table_is_named_with_its_number_and_the_next_one_goes_on(tmp_path, end):
    data = b"\xef\xbb\xbf" + b"\n".join(line for line, _ in HOSTILE)
    path = write(tmp_path / f"list.{end}", gzip.compress(data) if end.endswith("gz") else data)
    assert list(tables.rows(path, ["caption", "url"])) == [(n, row) for n, (_, row) in enumerate(HOSTILE, 1)]


def test_quoted_fields_of_csv_may_span_lines_and_a_stray_quote_costs_its_own_line_only(tmp_path):
    text = 'url,caption\nu,"a ""big"" dog,\nrunning"\nv,"never closed\nw,a 5" nail\n' + "x,y\n" * 300
    found = list(tables.rows(write(tmp_path / "list.csv", text)))
    assert found[0] == (2, {"url": "u", "caption": 'a "big" dog,\nrunning'})
    assert found[1:3] == [(4, "open_quote"), (5, {"url": "w", "caption": 'a 5" nail'})]
    assert len(found) == 303 and found[-1] == (305, {"url": "x", "caption": "y"})


def test_lines_of_json_are_objects_or_have_a_reason(tmp_path):
    lines = [
        '{"a": "b"}',
        "[1]",
        "{",
        "[" * 100_000,
        '{"a": "\\ud800"}',
        '{"a": "\\u0000"}',
        '{"n": ' + "9" * 5000 + "}",
    ]
    found = [row for _, row in tables.rows(write(tmp_path / "x.jsonl", "\n".join(lines)))]
    wanted = [{"a": "b"}, "not_an_object", "not_json", "too_deep", "not_utf8", {"a": "\0"}, "not_json"]
    assert found == wanted


def test_a_json_list_gives_its_objects_though_one_of_them_is_ten_megabytes(tmp_path):
    data = json.dumps([{"a": "b"}, 3, {"a": "x" * (10 << 20)}, {"é": ["\ud800"]}, {"a": "é"}], ensure_ascii=True)
    found = [row for _, row in tables.rows(write(tmp_path / "x.json", data))]
    assert found == [{"a": "b"}, "not_an_object", "too_long", "not_utf8", {"a": "é"}]


def test_a_json_list_larger_than_a_chunk_is_the_same_as_read_at_once(tmp_path):
    wanted = [{"number": number, "text": f'é"\\ {number}' * (number % 50)} for number in range(9000)]
    path = write(tmp_path / "x.json", json.dumps(wanted, ensure_ascii=False, indent=1))
    assert path.stat().st_size > 2 << 20
    assert [row for _, row in tables.rows(path)] == wanted


def test_parquet_rows_are_read_by_column_and_a_text_that_is_none_costs_its_row_only(tmp_path):
    texts = [b"ok %d" % number for number in range(600)]
    texts[300] = b"caf\xe9"
    column = pa.Array.from_buffers(pa.string(), len(texts), pa.array(texts, pa.binary()).buffers())
    pq.write_table(pa.table({"caption": column, "other": [b"x"] * 600}), tmp_path / "x.parquet")
    found = list(tables.rows(tmp_path / "x.parquet", wanted=["caption"]))
    assert found[299:302] == [(300, {"caption": "ok 299"}), (301, "not_utf8"), (302, {"caption": "ok 301"})]
    assert len(found) == 600


BROKEN = {
    "cut.json": b'[{"a": 1},',
    "object.json": b'{"a": 1}',
    "deep.json": b"[" * 1_000_000,
    "cut.jsonl.gz": gzip.compress(b'{"a": 1}\n' * 1000)[:-20],
    "no.tsv.gz": b"not gzip",
    "bomb.tsv.gz": gzip.compress(bytes(80_000_000)),
    "bomb.json.gz": gzip.compress(b"[" + b" " * 80_000_000),
    "cut.parquet": b"PAR1 no longer",
    "empty.csv": b"",
    "garbage.tsv": b"\0\1\2\xff\n",
    "utf16.csv": "url,caption\n".encode("utf-16"),
    "twice.csv": b"url,url\n",
    "lost.csv": b"address,text\n",
    "list.xml": b"<x/>",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_table_is_named_in_one_sentence(tmp_path, name):
    path = write(tmp_path / name, BROKEN[name])
    with pytest.raises(ValueError, match=name) as error:
        list(tables.rows(path, wanted=["url"]))
    assert "\n" not in str(error.value)


# Lists


@pytest.mark.parametrize(("name", "entry"), [
    ("list.tsv", {"url": "u", "caption": "c"}),
    ("list.csv.gz", {"url": "u", "caption": "c"}),
    ("list.jsonl", {"url": "u", "caption": "c"}),
    ("list.json", {"url": "u", "caption": "c"}),
    ("list.parquet", {"url": "u", "caption": "c"}),
    ("bare.tsv", {"url": 1, "caption": 0}),
    ("bare.csv", {"url": 1, "caption": 0}),
])  # fmt: skip
def test_any_table_of_url_and_caption_is_a_list(tmp_path, name, entry):
    table = [{"c": f"picture {number}", "u": f"http://example.org/{number}"} for number in range(3)]
    end, path = name.split(".")[1], tmp_path / name
    between = {"tsv": "\t", "csv": ","}.get(end, "")
    lines = [between.join(row.values()) for row in table]
    text = "\n".join(lines if name.startswith("bare") else [between.join(table[0]), *lines])
    text = {"jsonl": "\n".join(map(json.dumps, table)), "json": json.dumps(table)}.get(end, text)
    if end == "parquet":
        pq.write_table(pa.Table.from_pylist(table), path)
    else:
        write(path, gzip.compress(text.encode()) if name.endswith("gz") else text)
    found = read(form="list", list=path, **entry)
    assert [(row["url"], row["captions"], row["status"]) for row in found] == [(r["u"], [r["c"]], "") for r in table]


def test_values_of_a_list_that_are_no_captions_are_counted_beside_the_good_rows(tmp_path):
    said = [["two", "captions"], "x" * 10_001, "a\0b", 7, None, [3], "fine"]
    lines = [json.dumps({"u": URL, "c": caption}) for caption in said] + [json.dumps({"u": 3, "c": "x"}), '{"u": ""}']
    found = read(form="list", list=write(tmp_path / "x.jsonl", "\n".join(lines)), url="u", caption="c")
    reasons = ["", "long_caption", "nul_bytes", "bad_row", "bad_row", "bad_row", "", "bad_row", "missing_column"]
    assert [row["status"] for row in found] == reasons
    assert [row["line"] for row in found] == list(range(1, 10)) and found[0]["captions"] == ["two", "captions"]


def test_sbu_counts_what_is_no_text_and_refuses_lists_of_two_lengths(tmp_path):
    table = {"image_urls": [URL, 5, URL], "user_ids": ["x"], "captions": ["a", "b", None]}
    path = write(tmp_path / "sbu.json", json.dumps(table))
    assert told(read(form="sbu", list=path)) == [("", "a"), ("bad_row",), ("bad_row",)]
    for lost in ("image_urls", "captions"):
        write(path, json.dumps(table | {lost: ["a"]}))
        with pytest.raises(ValueError, match="sbu.json holds more .* expected as many"):
            read(form="sbu", list=path)


# COCO


def test_coco_of_wrong_kinds_gives_bad_rows_and_goes_on(tmp_path):
    images = [{"id": 1, "file_name": "a.jpg"}, 7, {"id": [2], "file_name": "a.jpg"}, {"id": 3, "file_name": None}]
    images += [{"id": 4, "file_name": "../../../etc/passwd"}, {"id": 5, "file_name": "b.jpg"}]
    said = [{"image_id": 1, "caption": "one"}, 3, {"image_id": {}, "caption": "x"}, {"image_id": 1, "caption": 5}]
    said += [{"image_id": 5, "caption": "y" * 20_000}, {"image_id": 9, "caption": "nine"}]
    path = write(tmp_path / "captions.json", json.dumps({"annotations": said, "images": images, "info": {"x": [1]}}))
    write(tmp_path / "images/x/a.jpg", picture())
    write(tmp_path / "images/y/b.jpg", picture())
    write(tmp_path / "images/z/b.jpg", picture())
    found = told(read(form="coco", captions=path, images=tmp_path / "images"))
    assert found[:6] == [("ok", "one"), *[("bad_row",)] * 3, ("missing",), ("ambiguous_name",)]
    assert found[6:] == [("bad_row", "nine"), ("bad_row",), ("bad_row",), ("bad_row",), ("long_caption",)]


def test_coco_without_pictures_is_a_list_of_its_addresses(tmp_path):
    table = {"images": [{"id": 1, "file_name": "a.jpg", "coco_url": URL}], "annotations": []}
    entry = {"form": "coco", "captions": write(tmp_path / "c.json", json.dumps(table)), "images": None}
    assert pairs.is_list(entry) and read(**entry)[0] | {"url": URL, "status": ""} == read(**entry)[0]


# Folders, zips and tars of pictures


def packed(kind: str, path: Path, members: list[tuple[str, bytes]]) -> Path:
    """The members as a folder, a zip or a tar; a folder takes no names that leave it."""
    if kind == "folder":
        for name, data in members:
            write(path / name, data)
        return path
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members:
                archive.writestr(name, data)
        return path
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return path


KINDS = ["folder", "zip", "tar"]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_captioned_by_the_files_beside_them(tmp_path, kind):
    members = [("a/1.jpg", picture()), ("a/1.txt", b" a red thing \n"), ("a/2.jpg", picture())]
    members += [("a/2.json", b'{"captions": ["two", "words"], "url": "http://x"}'), ("b/3.jpg", picture())]
    members += [("b/4.jpg", picture()), ("b/4.txt", b"\xff\xfe"), ("notes.md", b"x"), ("b/.DS_Store", b"x")]
    found = read(form="folder", images=packed(kind, tmp_path / "pictures", members), captions=None)
    wanted = [("ok", "a red thing"), ("ok", "two", "words"), ("ok",), ("not_utf8",), ("other_file",)]
    assert told(found) == wanted and found[0]["image"] == picture()


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_captioned_by_a_table(tmp_path, kind):
    images = packed(kind, tmp_path / "pictures", [("x/1.jpg", picture()), ("x/2.jpg", picture()), ("3.png", b"")])
    text = "name,text\n1.jpg,one\nx/2.jpg,two\n1.jpg,again\nlost.jpg,gone\nx\n"
    table = write(tmp_path / "t.csv", text)
    found = read(form="folder", images=images, captions=table, file="name", caption="text")
    wanted = {("empty_file",), ("ok", "one", "again"), ("ok", "two"), ("missing", "gone"), ("wrong_columns",)}
    assert set(told(found)) == wanted and [row["line"] for row in found[3:]] == [5, 6]


def test_a_hostile_zip_gives_a_reason_for_each_member_and_writes_nothing(tmp_path):
    members = [("../evil.jpg", picture()), ("/abs.jpg", picture()), ("ok.jpg", picture()), ("bomb.jpg", bytes(10**7))]
    members += [("text.jpg", b"<html>"), ("cut.jpg", picture()[:99]), ("zipped.jpg", picture() + b"PK\5\6" + bytes(18))]
    path = packed("zip", tmp_path / "x.zip", [*members, ("twice.jpg", picture()), ("same.jpg", b"")])
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("twice.jpg", picture("blue"))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2", 0, data.rindex(b"same.jpg"))
    data[at + 8] |= 1  # the directory says that same.jpg is encrypted
    place = data.index(b"ok.jpg") + 20
    data[place] ^= 0xFF  # ok.jpg does not unpack to what its checksum says
    path.write_bytes(data)
    with archives.opened(path) as archive:
        assert len(archive.files) == 10
    found = {row["line"]: row["status"] for row in read(form="folder", images=path, captions=None)}
    assert list(found.values()) == [
        *["unsafe_name", "unsafe_name", "too_many_bytes", "broken", "broken_member", "encrypted"],
        *["wrong_type", "ok", "duplicate_name", "polyglot"],
    ]
    assert [each.name for each in tmp_path.iterdir()] == ["x.zip"] and not (tmp_path.parent / "evil.jpg").exists()


def test_links_and_devices_in_a_tar_or_folder_are_not_followed(tmp_path):
    secret = write(tmp_path / "secret.jpg", picture())
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link.jpg").symlink_to(secret)
    write(tmp_path / "in/real.jpg", picture())
    (tmp_path / "in/same.jpg").symlink_to("real.jpg")
    assert told(read(form="folder", images=tmp_path / "in", captions=None)) == [("link",), ("ok",), ("ok",)]
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind in {"a.jpg": tarfile.SYMTYPE, "b.jpg": tarfile.CHRTYPE}.items():
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, str(secret)
            archive.addfile(about)
    assert told(read(form="folder", images=tmp_path / "x.tar", captions=None)) == [("link",), ("device",)]


@pytest.mark.parametrize("data", [b"", b"Rar!" * 300, gzip.compress(bytes(2000)), b"PK\5\6" + b"x" * 40])
def test_what_is_neither_folder_zip_nor_tar_is_named(tmp_path, data):
    with pytest.raises(ValueError, match="x.any"):
        read(form="folder", images=write(tmp_path / "x.any", data), captions=None)


# Parquet


def test_a_parquet_is_read_in_the_memory_of_a_part_of_it(tmp_path):
    rows = 64 * 256
    texts = pa.array([random.Random(number).randbytes(500).hex() for number in range(rows)])
    pq.write_table(pa.table({"a": texts}), tmp_path / "x.parquet", row_group_size=256, compression="none")
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in tables.rows(tmp_path / "x.parquet"))
    assert most < texts.nbytes / 4


NEVER = {"timestamp[s]": 2**50, "timestamp[us]": 2**62, "duration[s]": 2**60}
KINDS = [
    pa.timestamp("s"),
    pa.timestamp("us"),
    pa.timestamp("us", "No/Where"),
    pa.date32(),
    pa.duration("s"),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_time_that_no_calendar_has_costs_its_own_row_alone(kind, tmp_path):
    never = pa.array([None, NEVER.get(str(kind), 2**30), None], pa.int32() if kind == pa.date32() else pa.int64())
    pq.write_table(pa.table({"a": ["x", "y", "z"], "when": never.view(kind)}), tmp_path / "x.parquet")
    found = [row if isinstance(row, str) else row["a"] for _, row in tables.rows(tmp_path / "x.parquet")]
    assert found == ["x", "bad_value", "z"]


# Webdataset


def test_webdataset_reads_what_img2dataset_and_we_write_in_the_order_of_names(tmp_path):
    first, second = tars.Tar(tmp_path / "00000.tar"), tars.Tar(tmp_path / "00001.tar")
    second.add("k3.png", b"no picture")
    second.add("k3.json", b'{"captions": ["x"]}')
    first.add("000000000.jpg", picture())
    first.add("000000000.json", json.dumps({"caption": "in json", "url": URL, "status": "success"}).encode())
    first.add("000000000.txt", b"in json")
    first.add("000000001.txt", b"no picture here")
    first.add("000000002.webp", picture())
    first.add("000000002.json", b"{")
    first.close()
    second.close()
    write(tmp_path / "00000.parquet", b"img2dataset's own table")
    found = read(form="webdataset", shards=tmp_path)
    assert told(found) == [("ok", "in json"), ("missing",), ("not_json",), ("wrong_type", "x")]
    assert found[0]["url"] == URL and [row["line"] for row in found] == [1, 2, 3, 4]


def test_what_img2dataset_s_own_writer_makes_is_read_with_its_failures_left_to_it(tmp_path):
    from img2dataset.writer import WebDatasetSampleWriter

    schema = pa.schema([("key", pa.string()), ("url", pa.string()), ("status", pa.string())])
    writer = WebDatasetSampleWriter(0, str(tmp_path), True, 5, schema, "jpg")
    writer.write(picture(), "000000000", "a red thing", {"key": "000000000", "url": URL, "status": "success"})
    writer.write(None, "000000001", "lost", {"key": "000000001", "url": URL, "status": "failed_to_download"})
    writer.close()
    found = read(form="webdataset", shards=tmp_path)
    assert told(found) == [("ok", "a red thing")] and found[0]["url"] == URL and found[0]["image"] == picture()


def test_a_cut_shard_gives_its_sound_samples_and_says_that_it_is_cut(tmp_path):
    path = packed("tar", tmp_path / "x.tar", [("1.jpg", picture()), ("1.txt", b"one"), ("2.jpg", picture())])
    path.write_bytes(path.read_bytes()[: 512 * 6])
    assert told(read(form="webdataset", shards=path)) == [("ok", "one"), ("truncated",)]


# Entries


@pytest.mark.parametrize(("entry", "said"), [
    ({"form": "laion", "list": "x"}, "unknown form 'laion' in sources.corpora.x: expected one of coco, cc3m, cc12m, sbu"),
    ({"form": "cc3m"}, "the form cc3m takes list; `list` is missing"),
    ({"form": "cc3m", "list": "x", "lists": "y"}, "`lists` is unknown"),
])  # fmt: skip
def test_an_entry_that_its_form_does_not_know_is_refused(entry, said):
    with pytest.raises(ValueError, match=said):
        check_entries({"x": entry})


def test_a_corpus_whose_name_leads_out_of_the_output_is_refused():
    with pytest.raises(ValueError, match="sources.corpora has the name '../../evil': files are called so"):
        check_entries({"../../evil": {"form": "cc3m", "list": "x"}})


def test_a_header_that_spans_lines_is_still_named_in_one_sentence(tmp_path):
    path = write(tmp_path / "x.csv", '"u\nr\nl",caption\n')
    with pytest.raises(ValueError, match="x.csv has no column url; it has: u r l, caption"):
        list(tables.rows(path, wanted=["url"]))
