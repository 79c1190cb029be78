"""Hostile items in every form: no crash, no write outside the folders, no forbidden request, each counted with its reason.

In: items drawn from a seed (tests/hostile_items.py), a web of failures on loopback. Out: nothing; all is temporary.
Run: pytest tests/test_hostile_data.py; the 10,000 items with `pytest -m long tests/test_hostile_data.py`.
"""

import csv
import gzip
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import campaign
import hostile_items
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import web_of_failures
from campaign import run, sound, tree

from vikdf import schemas

SHARES = {"cc3m": 40, "cc12m": 15, "sbu": 6, "jsonl": 8, "json": 4, "csv": 5, "parquet": 4, "coco": 6}
SHARES |= {"tar": 4, "zip": 4, "webdataset": 4}  # of a hundred items
MEGABYTES = 10  # of the longest caption


def lines(path: Path, items: list[bytes]) -> str:
    path.write_bytes(b"".join(line + b"\n" for line in items))
    return str(path)


def write_lists(folder: Path, hostile, sizes: dict[str, int]) -> tuple[dict, dict]:
    """The corpora's entries, and for each the statuses that each of its items may end with."""
    entries, may = {}, {}
    for name in ("cc3m", "cc12m"):
        drawn = [hostile.line(caption_first=name == "cc3m") for _ in range(sizes[name] - 1)]
        url = hostile.web.url("ok", "long.jpg")
        long = ["x" * (MEGABYTES << 20), url] if name == "cc3m" else [url, "x y " * (MEGABYTES << 18)]
        hostile.slow = 0  # one list has hosts that take their time: lists are fetched one after the other
        drawn.insert(len(drawn) // 2, ("\t".join(long).encode(), {"*"}))
        entries[name] = {"form": name, "list": lines(folder / f"{name}.tsv", [line for line, _ in drawn])}
        may[name] = [statuses for _, statuses in drawn]
    rows = {name: [hostile.row() for _ in range(sizes[name])] for name in ("sbu", "jsonl", "json", "csv", "parquet")}
    may |= {name: [statuses for _, statuses in drawn] for name, drawn in rows.items()}
    rows = {name: [row for row, _ in drawn] for name, drawn in rows.items()}
    cells = {name: [_cells(row) for row in rows[name]] for name in ("sbu", "csv", "parquet")}
    table = {"image_urls": [url for url, _ in cells["sbu"]], "captions": [text for _, text in cells["sbu"]]}
    (folder / "sbu.json").write_text(json.dumps(table))
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows["jsonl"]))
    (folder / "list.json").write_text(json.dumps(rows["json"]))
    stream = io.StringIO()
    csv.writer(stream).writerows([["url", "caption"], *cells["csv"]])
    (folder / "list.csv").write_bytes(stream.getvalue().encode("utf-8", "surrogatepass"))
    texts = [[_text(cell) for cell in row] for row in cells["parquet"]]
    columns = [[row[place] for row in texts] for place in (0, 1)]
    pq.write_table(
        pa.table(dict(zip(["url", "caption"], map(pa.array, columns), strict=True))), folder / "list.parquet"
    )
    entries["sbu"] = {"form": "sbu", "list": str(folder / "sbu.json")}
    for form in ("jsonl", "json", "csv", "parquet"):
        entries[form] = {"form": "list", "list": str(folder / f"list.{form}"), "url": "url", "caption": "caption"}
    for form in ("sbu", "csv", "parquet"):  # what is odd in an object may be well in a cell
        may[form] = [statuses | ({"ok"} if "*" in statuses else set()) for statuses in may[form]]
    return entries, may


def _cells(row) -> list:
    return [row.get("url"), row.get("caption")] if isinstance(row, dict) else [row, "a caption"]


def _text(cell) -> str | None:
    return None if cell is None else str(cell).encode("utf-8", "replace").decode()


def write_archives(folder: Path, hostile, sizes: dict[str, int]) -> tuple[dict, dict]:
    """The same for pictures that come along, not by address; a webdataset's items are counted, not listed."""
    hostile_items.write_tar(folder / "pictures.tar", hostile, sizes["tar"])
    names = hostile_items.write_zip(folder / "pictures.zip", hostile, sizes["zip"])
    (folder / "captions.csv").write_text("file,caption\n" + "".join(f'"{name}",a dog\n' for name in names))
    hostile_items.write_tar(folder / "shards.tar", hostile, sizes["webdataset"])
    (folder / "images").mkdir()
    (folder / "images/link.jpg").symlink_to("/etc/passwd")
    (folder / "images/loop").symlink_to("..")
    entries, may = {}, {"tar": [{"*", "ok"}] * sizes["tar"], "zip": [{"*", "ok"}] * len(names)}
    entries["tar"] = {"form": "folder", "images": str(folder / "pictures.tar"), "captions": None}
    entries["zip"] = {
        "form": "folder",
        "images": str(folder / "pictures.zip"),
        "captions": str(folder / "captions.csv"),
    }
    entries["webdataset"] = {"form": "webdataset", "shards": str(folder / "shards.tar")}
    images, said = [], []
    for number in range(sizes["coco"]):
        data, _ = hostile.image()
        (folder / f"images/{number}.jpg").write_bytes(data)
        name = hostile.random.choice(
            [f"{number}.jpg"] * 6 + ["../cc3m.tsv", "/etc/passwd", "link.jpg", "loop/cc3m.tsv", None, 7]
        )
        images.append(
            {"id": hostile.random.choice([number] * 9 + [None]), "file_name": name, "coco_url": "file:///etc/passwd"}
        )
        said.append({"image_id": number, "caption": hostile.random.choice(["a cat"] * 9 + [None, 5, "\0", ["a"]])})
    (folder / "coco.json").write_text(json.dumps({"images": images, "annotations": said}))
    entries["coco"] = {"form": "coco", "captions": str(folder / "coco.json"), "images": str(folder / "images")}
    return entries, may


def assault(folder: Path, items: int, seed: int) -> SimpleNamespace:
    """Everything hostile through `sources`, then through `filter`; what was there before and after."""
    for name in ("in", "sentinel", "cwd", "tmp"):
        (folder / name).mkdir()
    (folder / "sentinel/here.txt").write_text("untouched")
    (folder / "secret.jpg").write_bytes(web_of_failures.picture("secret"))
    sizes = {name: max(2, items * share // 100) for name, share in SHARES.items()}
    with web_of_failures.forbidden() as (port, knocked), web_of_failures.serve() as web:
        hostile = hostile_items.Hostile(seed, web, port, folder)
        entries, may = write_lists(folder / "in", hostile, sizes)
        archives, may_too = write_archives(folder / "in", hostile, sizes)
        entries, may, before = entries | archives, may | may_too, tree(folder)
        done = campaign.sources(web, folder, entries, 900, max_pixels=1_000_000, passes=1)
    made = folder / "sources"
    tables = [made / f"{name}.parquet" for name in entries]
    filtered = run("filter", pairs=tables, output=folder / "filter", state=folder / "state", min_side=8)
    inside = re.compile(r"(sources|state|filter)/")
    after = {name: size for name, size in tree(folder).items() if not inside.match(name)}
    ours = {"folder": folder, "made": made, "may": may, "sizes": sizes, "before": before, "after": after}
    return SimpleNamespace(done=done, filtered=filtered, knocked=knocked, asked=web.asked, names=list(entries), **ours)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return assault(tmp_path_factory.mktemp("few"), 500, seed=1)


def ends_well(what: SimpleNamespace) -> None:
    sound(what.done)
    sound(what.filtered)


def leaves_all_else_alone(what: SimpleNamespace) -> None:
    assert what.after == what.before


def asks_nobody_who_must_not_be_asked(what: SimpleNamespace) -> None:
    assert what.knocked == []
    assert sum(what.asked.values()) > 50, "others were asked"


def counts_each(what: SimpleNamespace) -> None:
    """Every item is a row with a status that it may have; manifest and table say the same."""
    manifest = json.loads((what.made / "manifest.json").read_text())["sources"]
    total = 0
    for name in what.names:
        table = schemas.read(what.made / f"{name}.parquet", schemas.PAIRS, ["url", "status", "image"]).to_pylist()
        got = [row["status"] for row in table]
        assert all(re.fullmatch(r"[a-z0-9_]+", status) for status in got)
        assert manifest[name]["status"] == campaign.counts(got) and manifest[name]["rows"] == len(got)
        assert all((row["image"] is not None) == (row["status"] == "ok") for row in table)
        total += len(got)
        if name in what.may:
            assert len(got) == len(what.may[name]), name
            wrong = [
                (row["url"], row["status"], sorted(may))
                for row, may in zip(table, what.may[name], strict=True)
                if not (row["status"] in may or ("*" in may and row["status"] != "ok"))
            ]
            assert wrong == [], name
        else:
            assert len(got) >= what.sizes[name]
    assert total >= sum(what.sizes.values())


def filters_each(what: SimpleNamespace) -> None:
    """What the filter keeps and drops adds up to what it was given."""
    report = pq.read_table(what.folder / "filter/report.parquet").to_pylist()
    rows = sum(pq.read_metadata(what.made / f"{name}.parquet").num_rows for name in what.names)
    assert sum(row["count"] for row in report if row["unit"] == "picture") == rows
    assert all(re.fullmatch(r"[a-z0-9_]+", row["reason"]) for row in report)


@pytest.mark.parametrize(
    "holds", [ends_well, leaves_all_else_alone, asks_nobody_who_must_not_be_asked, counts_each, filters_each]
)
def test_of_500_hostile_items(few, holds):
    holds(few)


def test_a_cut_file_is_refused_in_one_sentence_and_leaves_no_manifest(tmp_path):
    (tmp_path / "list.jsonl.gz").write_bytes(gzip.compress(b'{"url": "http://192.0.2.1/", "caption": "x"}\n' * 50)[:-9])
    entry = {"form": "list", "list": str(tmp_path / "list.jsonl.gz"), "url": "url", "caption": "caption"}
    done = campaign.sources(None, tmp_path, {"cut": entry})
    campaign.refused(done, "list.jsonl.gz", "fetch it again", "to repeat this step alone")
    assert not (tmp_path / "sources/manifest.json").exists()


def dialogues(folder: Path, items: int, seed: int) -> Path:
    """A file of hostile dialogues, one with a turn of ten megabytes."""
    hostile = hostile_items.Hostile(seed, SimpleNamespace(port=1, url=lambda *_: ""), 1, folder)
    drawn = [hostile.talk() for _ in range(items - 1)]
    drawn.append(json.dumps({"context": ["x" * (MEGABYTES << 20)], "response": "y"}).encode())
    return Path(lines(folder / "talks.jsonl", drawn))


def every_dialogue_is_counted(folder: Path, items: int, seed: int) -> None:
    path = dialogues(folder, items, seed)
    corpora = {"talk": {"form": "reddit", "train": str(path)}}
    sound(run("dialogues", corpora=corpora, output=folder / "dialogues"))
    said = json.loads((folder / "dialogues/manifest.json").read_text())["tasks"]["talk"]["splits"]["train"]
    assert said["read"] == items == said["kept"] + sum(said["dropped"].values())
    assert len(said["dropped"]) > 8 and 0 < said["kept"] < items


def test_of_500_hostile_dialogues_each_is_kept_or_dropped_with_its_reason(tmp_path):
    every_dialogue_is_counted(tmp_path, 500, seed=3)


@pytest.mark.parametrize("name", ["cc3m.tsv", "list.jsonl", "list.csv", "talks.jsonl"])
def test_validate_tells_of_hostile_lines_in_plain_characters(few, name):
    folder = few.folder / "in"
    path = dialogues(few.folder, 100, seed=4) if name == "talks.jsonl" else folder / name
    more = {"talks.jsonl": ["--form", "reddit"], "cc3m.tsv": ["--form", "cc3m"]}.get(name, ["--form", "list"])
    more += ["--url", "url", "--caption", "caption"] if name.startswith("list") else []
    done = campaign.vikdf("validate", path, *more, "--show", "1000")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    said = done.stdout + done.stderr
    assert name in said and not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", said), "a terminal obeys these"
    assert len(said) < 300_000


@pytest.mark.long
def test_10_000_hostile_items_crash_nothing_and_are_all_counted(tmp_path):
    many = assault(tmp_path, 10_000, seed=2)
    for holds in (ends_well, leaves_all_else_alone, asks_nobody_who_must_not_be_asked, counts_each, filters_each):
        holds(many)
