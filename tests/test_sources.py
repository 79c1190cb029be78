"""sources: the published forms are read row by row, the web is fetched with care, and nothing disappears."""

import contextlib
import dataclasses
import http.server
import io
import json
import re
import shlex
import threading
import time
import zipfile
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from PIL import Image

import vikdf.sources
from vikdf import files, flags, params, schemas
from vikdf.corpora import failures
from vikdf.corpora.addresses import Limits, address_status
from vikdf.corpora.fetch import fetch
from vikdf.corpora.pairs import TAKEN, check_entries
from vikdf.corpora.pictures import examine
from vikdf.sources import rows, sources

SHARED = Path(__file__).resolve().parent.parent.parent / "shared/data"
LIMITS = Limits(timeout=1, deadline=5, max_bytes=100_000, max_pixels=1_000_000, loopback_port=0)
FETCH = {"timeout": 3, "deadline": 5, "max_bytes": 100_000, "max_pixels": 1_000_000}
FETCH |= {"threads": 8, "processes": 1, "urls_per_shard": 8, "passes": 2, "distributor": "multiprocessing"}
FETCH |= {"per_host": 8, "contact": "", "back_off": 0, "preflight": 0, "min_success": 0}


def picture(colour: str = "red", size: tuple[int, int] = (40, 30), form: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, form)
    return stream.getvalue()


def sample(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"no real sample here: {SHARED / name}")
    return SHARED / name


BODIES = {
    "ok": picture(),
    "html": b"<html>no picture</html>",
    "truncated": picture(size=(200, 200))[:900],
    "long": picture() + bytes(200_000),
    "huge": picture(size=(2000, 2000), form="PNG"),
}


class Web(http.server.BaseHTTPRequestHandler):
    """A web that fails the way the web fails; the path says how."""

    asked: list[str] = []

    def do_GET(self):
        Web.asked.append(self.path)
        what = self.path.strip("/").split("/")[0]
        if what == "never":
            time.sleep(8)
            return
        code = {"gone": 404, "sick": 500, "private": 302, "file": 302, "hop": 302}.get(what, 200)
        if what == "once":  # sick the first time, well the second
            code = 503 if Web.asked.count(self.path) == 1 else 200
        body = BODIES.get(what, BODIES["ok"])
        self.send_response(code)
        target = {"private": "http://10.0.0.1/x.jpg", "file": "file:///etc/passwd", "hop": "/ok/after-hop"}.get(what)
        if target:
            self.send_header("Location", target)
        if what == "optout":
            self.send_header("X-Robots-Tag", "noai")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads, request_queue_size = (
        True,
        128,
    )  # a full queue looks like a silent host


@pytest.fixture
def web(monkeypatch):
    """The port of a local web, which stands for the embedded world's."""
    server = Server(("127.0.0.1", 0), Web)
    Web.asked.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("vikdf.sources._served", lambda world: contextlib.nullcontext())
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


EXPECTED = {
    "ok/1": "ok",
    "ok/2": "ok",
    "hop": "ok",
    "once": "ok",
    "gone": "http_404",
    "sick": "http_500",
    "never": "timeout",
    "html": "wrong_type",
    "truncated": "broken",
    "long": "too_many_bytes",
    "huge": "too_many_pixels",
    "optout": "opt_out",
    "private": "refused_address",
    "file": "refused_scheme",
}


def test_every_row_of_a_list_ends_with_a_picture_or_a_reason(web, tmp_path):
    lines = [f"a thing called {path}\thttp://127.0.0.1:{web}/{path}" for path in EXPECTED]
    (tmp_path / "list.tsv").write_text("\n".join([*lines, "no tab here", "a file\tfile:///etc/passwd"]) + "\n")
    corpora = {"cc3m": {"form": "cc3m", "list": str(tmp_path / "list.tsv"), "expected": 20}}
    run = {"corpora": corpora, "raw": {}, "world": {"port": web}, **FETCH, "state": tmp_path / "state"}
    sources(**run, output=tmp_path / "out")
    table = schemas.read(tmp_path / "out/cc3m.parquet", schemas.PAIRS).to_pylist()
    assert [row["status"] for row in table] == [*EXPECTED.values(), "wrong_columns", "refused_scheme"]
    assert [row["key"] for row in table] == [f"cc3m-{number:09d}" for number in range(16)]
    assert table[0]["image"] == picture() and (table[0]["width"], table[0]["height"]) == (40, 30)
    assert all(row["image"] is None for row in table if row["status"] != "ok")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())["sources"]["cc3m"]
    assert sum(manifest["status"].values()) == manifest["rows"] == 16 and manifest["difference"] == -4
    assert manifest["obtained"] == 4 and manifest["bytes"] == 4 * len(picture()) and manifest["share"] == 0.25
    assert manifest["listed_by"] == {"list.tsv": files.sha256(tmp_path / "list.tsv")}
    reasons = schemas.read(tmp_path / "out/failures.parquet", failures.FAILURES).to_pylist()
    assert sum(row["count"] for row in reasons) == 16
    for path, times in {"/gone": 1, "/optout": 1, "/sick": 2, "/never": 2, "/once": 2}.items():
        assert Web.asked.count(path) == times, f"{path}: only what may pass is asked again"

    asked = len(Web.asked)  # a deleted output is copied from state, never fetched again, and is the same
    sources(**run, output=tmp_path / "again")
    assert len(Web.asked) == asked
    assert (tmp_path / "again/cc3m.parquet").read_bytes() == (tmp_path / "out/cc3m.parquet").read_bytes()


def of_list(path: Path, port: int, tmp_path: Path) -> dict:
    """The arguments of a run over one list."""
    run = {"corpora": {"cc3m": {"form": "cc3m", "list": str(path)}}, "raw": {}, "world": {"port": port}, **FETCH}
    return run | {"state": tmp_path / "state", "output": tmp_path / "out"}


def test_a_list_that_is_changed_while_it_is_fetched_joins_no_caption_to_a_strange_picture(web, tmp_path, monkeypatch):
    path, write = tmp_path / "list.tsv", vikdf.sources._write
    run = of_list(path, web, tmp_path)
    lines = [f"a thing called {name}\thttp://127.0.0.1:{web}/ok/{name}\n" for name in "abc"]
    path.write_text("".join(lines))
    sources(**run)
    asked, other = len(Web.asked), lines[0].replace("/ok/a", "/ok/z")
    for changed in (
        [other, *lines],
        [*lines, other],
        lines[:-1],
        [other, *lines[1:]],
        lines[::-1],
        ["no row\n", *lines],
    ):
        path.write_text("".join(lines))
        with monkeypatch.context() as at_last:
            at_last.setattr(
                "vikdf.sources._write", lambda *a, text=changed: (path.write_text("".join(text)), write(*a))[1]
            )
            with pytest.raises(ValueError, match=r"list\.tsv was changed while it was fetched.*run this step again"):
                sources(**run)
        assert not (tmp_path / "out/manifest.json").exists()
    path.write_text("".join(lines))
    sources(**run)
    assert len(Web.asked) == asked and (tmp_path / "out/manifest.json").exists()


def test_another_run_s_list_of_the_same_name_does_not_take_the_place_of_the_one_that_is_fetched(
    web, tmp_path, monkeypatch
):
    for name, url in {"ours": f"http://127.0.0.1:{web}/ok", "other": "file:///etc/passwd"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "list.tsv").write_text(f"a caption\t{url}\n" * 3)
    other = of_list(tmp_path / "other/list.tsv", web, tmp_path) | {"output": tmp_path / "other"}

    def fetched(*given):
        monkeypatch.setattr("vikdf.sources.fetch", fetch)
        sources(**other)
        fetch(*given)

    monkeypatch.setattr("vikdf.sources.fetch", fetched)
    sources(**of_list(tmp_path / "ours/list.tsv", web, tmp_path))
    table = schemas.read(tmp_path / "out/cc3m.parquet", schemas.PAIRS).to_pylist()
    assert [row["status"] for row in table] == ["ok"] * 3


def read(entry: dict) -> list[dict]:
    return list(rows("name", entry, LIMITS))


@pytest.mark.parametrize(
    "url,status",
    {
        "http://example.org/a.jpg": "",
        "https://exämple.org/ä.jpg": "",
        "ftp://example.org/a.jpg": "refused_scheme",
        "file:///etc/passwd": "refused_scheme",
        "http://127.0.0.1:80/a.jpg": "refused_address",
        "http://localhost/a.jpg": "refused_address",
        "http://[::1]/a.jpg": "refused_address",
        "http://[::ffff:10.0.0.1]/a.jpg": "refused_address",
        "http://169.254.169.254/latest": "refused_address",
        "http://192.168.1.1/a.jpg": "refused_address",
        "http://[broken/a.jpg": "bad_url",
        "no address": "bad_url",
        "": "bad_url",
    }.items(),
)
def test_only_open_addresses_of_the_web_are_asked(url, status):
    assert address_status(url, LIMITS) == status


def test_loopback_is_open_at_the_world_s_own_port_only():
    limits = Limits(1, 5, 1, 1, loopback_port=8765)
    assert address_status("http://127.0.0.1:8765/a.jpg", limits) == ""
    assert address_status("http://127.0.0.1:8766/a.jpg", limits) == "refused_address"
    assert address_status("http://10.0.0.1:8765/a.jpg", limits) == "refused_address"


def test_a_bomb_is_refused_by_its_header():
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    start = time.perf_counter()
    assert examine(bomb.getvalue(), LIMITS.max_pixels)[0] == "too_many_pixels"
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_cut_picture_is_broken(form):
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(stream, form)
    assert examine(stream.getvalue(), LIMITS.max_pixels) == ("ok", 64, 64)
    assert examine(stream.getvalue()[: len(stream.getvalue()) // 2], LIMITS.max_pixels)[0] == "broken"


def test_coco_gives_one_row_an_image_from_folder_and_zip_alike(tmp_path):
    entry = {"form": "coco", "captions": str(sample("coco_tiny/annotations/captions_train2017.json"))}
    folder, limits = sample("coco_tiny/train2017"), dataclasses.replace(LIMITS, max_bytes=1_000_000)
    table = list(rows("name", entry | {"images": str(folder)}, limits))
    assert len(table) == 50 and all(row["status"] == "ok" and len(row["captions"]) >= 5 for row in table)
    with zipfile.ZipFile(tmp_path / "train2017.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"train2017/{path.name}")
    assert list(rows("name", entry | {"images": str(tmp_path / "train2017.zip")}, limits)) == table


def test_coco_counts_missing_and_broken_images_and_captions_without_one(tmp_path):
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate(["good", "cut", "gone"])]
    said = [{"image_id": number, "caption": f"caption {number}"} for number in (0, 0, 1, 2, 9)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": said}))
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("train/good.jpg", picture())
        archive.writestr("train/cut.jpg", picture()[:100])
    table = read({"form": "coco", "captions": str(tmp_path / "captions.json"), "images": str(tmp_path / "images.zip")})
    assert [row["status"] for row in table] == ["ok", "broken", "missing", "bad_row"]
    assert table[0]["captions"] == ["caption 0", "caption 0"]


@pytest.mark.parametrize(
    "form,file,count",
    [
        ("cc3m", "cc3m/Validation_GCC-1.1.0-Validation.tsv", 15_833),
        ("cc12m", "cc12m_sample/cc12m.tsv", 5),
        ("sbu", "sbu_sample/sbu-captions-all.json", 5),
    ],
)
def test_the_published_lists_are_read_whole(form, file, count):
    table = read({"form": form, "list": str(sample(file))})
    assert len(table) == count and not [row for row in table if row["status"]]  # one of CC3M's is at port 81
    assert all(row["url"].startswith("http") and not row["captions"][0].startswith("http") for row in table)


def test_a_published_parquet_of_urls_is_read_by_the_names_of_its_columns():
    table = read(
        {"form": "list", "list": str(sample("img2dataset_sample/test_1000.parquet")), "url": "URL", "caption": "TEXT"}
    )
    assert len(table) == 1000 and {row["status"] for row in table} == {""}  # one has spaces in its path


@pytest.mark.parametrize("form,text", [("coco", "{"), ("coco", "[]"), ("sbu", '{"image_urls": []}'), ("sbu", None)])
def test_a_wrong_file_is_named(form, text, tmp_path):
    path = tmp_path / "corpus.json"
    if text is not None:
        path.write_text(text)
    entry = {"coco": {"captions": str(path), "images": str(tmp_path)}, "sbu": {"list": str(path)}}[form]
    with pytest.raises(ValueError, match="corpus.json"):
        read(entry | {"form": form})


def test_an_unknown_form_is_refused_with_the_known_ones(tmp_path):
    run = {"raw": {}, "world": None, **FETCH, "output": tmp_path, "state": tmp_path}
    with pytest.raises(ValueError, match="unknown form 'laion'.*coco, cc3m, cc12m, sbu"):
        sources(corpora={"x": {"form": "laion", "list": "x"}}, **run)


@pytest.mark.parametrize("name", [*TAKEN, "Failures", "my.corpus", "a" * 61, "ä", "a b"])
def test_a_corpus_name_that_a_later_stage_cannot_take_is_refused_at_once(name):
    with pytest.raises(ValueError, match="sources.corpora has the name"):
        check_entries({name: {"form": "cc3m", "list": "list.tsv"}})
    schema = yaml.safe_load(params.SCHEMA.read_text())["properties"]["sources"]["properties"]["corpora"]
    assert not Draft202012Validator(schema["propertyNames"]).is_valid(name)


@pytest.mark.parametrize("name", ["cc3m", "my_corpus", "all_of_it", "a" * 60])
def test_a_corpus_may_be_called_by_letters_digits_and_underscores(name):
    check_entries({name: {"form": "cc3m", "list": "list.tsv"}})
    schema = yaml.safe_load(params.SCHEMA.read_text())["properties"]["sources"]["properties"]["corpora"]
    assert Draft202012Validator(schema["propertyNames"]).is_valid(name)


@pytest.mark.parametrize("entry", [None, "list.tsv", ["cc3m"]])
def test_an_entry_that_is_none_is_refused_with_an_example(entry):
    with pytest.raises(ValueError, match="sources.corpora.x is .*: expected an entry such as {form: cc3m"):
        check_entries({"x": entry})


@pytest.mark.parametrize("key", ["threads", "processes", "urls_per_shard", "passes", "per_host"])
def test_a_number_that_must_be_one_or_more_is_named(key, tmp_path):
    run = {"raw": {}, "world": None, **FETCH, "output": tmp_path, "state": tmp_path} | {key: 0}
    with pytest.raises(ValueError, match=f"sources.{key} is 0: expected 1 or more"):
        sources(corpora={}, **run)


def test_the_command_in_the_help_names_every_flag_and_can_be_typed():
    parser = flags.parser(sources)
    command = re.search(r"^ +python -m vikdf.sources (.*?)\n\n", parser.format_help(), flags=re.M | re.S).group(1)
    given = vars(parser.parse_args(shlex.split(command.replace("\\\n", " "))))
    assert list(given["corpora"]) == ["mine"] and given["world"] is None
    check_entries(given["corpora"])


EMPTY = {"form": "list", "list": "list.jsonl", "url": "u", "caption": "c"}


def test_a_corpus_without_a_row_is_named(web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.jsonl").touch()
    run = {"raw": {}, "world": {"port": web}, **FETCH, "state": tmp_path / "state", "output": tmp_path / "out"}
    with pytest.raises(ValueError, match="sources.corpora.mine: list.jsonl holds no row"):
        sources(corpora={"mine": EMPTY}, **run)
    assert not (tmp_path / "out/manifest.json").exists()


@pytest.mark.parametrize("least,stops", [(0.5, False), (0.51, True), (0, False)])
def test_a_folder_in_which_too_few_pictures_are_there_stops_with_the_reasons(tmp_path, least, stops):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.jpg").write_bytes(picture())
    (tmp_path / "t.csv").write_text("file,caption\na.jpg,one\nb.jpg,two\n")
    entry = {"form": "folder", "images": str(tmp_path / "pictures"), "captions": str(tmp_path / "t.csv")}
    run = {"corpora": {"mine": entry}, "raw": {}, "world": None, **FETCH, "min_success": least}
    said = (
        r"mine: 1 of 2 rows have a picture in .*pictures, less than sources.min_success = 0.51; the others: missing 1"
    )
    with pytest.raises(ValueError, match=said) if stops else contextlib.nullcontext():
        sources(**run, state=tmp_path / "state", output=tmp_path / "out")
    assert (tmp_path / "out/manifest.json").exists() == (not stops)


@pytest.mark.parametrize(("least", "stops"), [(0.5, True), (0, False)])
def test_a_list_none_of_whose_rows_can_be_asked_for_stops_the_step_unless_that_is_wanted(tmp_path, least, stops):
    (tmp_path / "l.jsonl").write_text('{"u": "no address", "c": "one"}\n{"u": "", "c": "two"}\n')
    entry = {"form": "list", "list": str(tmp_path / "l.jsonl"), "url": "u", "caption": "c"}
    run = {"corpora": {"mine": entry}, "raw": {}, "world": None, **FETCH, "min_success": least}
    said = r"mine: 0 of 2 rows have a picture in .*l.jsonl, less than sources.min_success = 0.5; .* See its columns and urls"
    with pytest.raises(ValueError, match=said) if stops else contextlib.nullcontext():
        sources(**run, state=tmp_path / "state", output=tmp_path / "out")


def test_a_list_may_be_a_folder_of_parts_which_are_read_in_the_order_of_their_names(tmp_path):
    entry, row = (
        {"form": "list", "list": str(tmp_path), "url": "u", "caption": "c"},
        '{"u": "http://a.org/b", "c": "%s"}\n',
    )
    with pytest.raises(ValueError, match="is a folder without a list in it"):
        read(entry)
    for name in ("1.jsonl", "0.jsonl"):
        (tmp_path / name).write_text(row % name + row % "more")
    (tmp_path / "2.tsv").write_text("c\tu\nlast\thttp://a.org/b\n")
    (tmp_path / "_SUCCESS").touch()
    found = [(row["captions"][0], row["line"]) for row in read(entry)]
    assert found == [("0.jsonl", 1), ("more", 2), ("1.jsonl", 3), ("more", 4), ("last", 6)]
