"""The real samples go through the whole data half by its command lines, and every row of them is accounted for.

In: ../shared/data (each test says what it lacks and skips). Out: nothing; all is written to temporary folders.
Run: pytest tests/test_real_data.py; the whole of CC3M's validation list with `pytest -m long tests/test_real_data.py`.
"""

import csv
import gzip
import hashlib
import itertools
import json
import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import campaign
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import web_of_failures
from campaign import counts, run, sample, sound, vikdf
from checkpoints import write_clip

from vikdf import schemas
from vikdf.samples import Shards

CC3M = "cc3m/Validation_GCC-1.1.0-Validation.tsv"
PICTURES = {"image/jpeg", "image/png", "image/gif"}  # what the report's programme found in the answers, by their bytes
SILENT = 3  # every third 408 of the report: its programme wrote 408 for hosts that never answered, too


def reported() -> dict[str, tuple[str, str]]:
    """What a real download of the list met, by url: (code, kind of the bytes that came)."""
    with gzip.open(sample("cc3m/downloaded_validation_report.tsv.gz"), "rt", newline="") as stream:
        return {row[0]: (row[2], row[3]) for row in csv.reader(stream, delimiter="\t")}


def fate(number: int, code: str, kind: str) -> tuple[str, str]:
    """(the web's word for what the report says of a url, the status that `sources` must give it)."""
    if code == "408" and number % SILENT == 0:
        return "silent", "timeout"
    if code != "200":
        return code, "wrong_type" if code == "204" else f"http_{code}"
    if kind in PICTURES:
        return "ok", "ok"
    return ("html" if kind.startswith("text/") else "empty"), "wrong_type"


def rewritten(web, path: Path, rows: int) -> list[str]:
    """Writes the list's first rows with addresses of this web; gives the status that each must end with.

    A row without a line in the report would be a picture; there is none (the report has all 15,833 urls, and 7 more).
    """
    report, expected = reported(), []
    with open(sample(CC3M), encoding="utf-8") as source, open(path, "w", encoding="utf-8") as target:
        for number, line in zip(range(rows), source, strict=False):
            caption, url = line.rstrip("\n").split("\t")
            what, status = fate(number, *report.get(url, ("200", "image/jpeg")))
            target.write(f"{caption}\t{web.url(what, f'{number}.jpg')}\n")
            expected.append(status)
    return expected


def fetched(web, folder: Path, rows: int, others: dict | None = None, **flags) -> tuple[list[str], Path]:
    expected = rewritten(web, folder / "cc3m.tsv", rows)
    corpora = {"cc3m": {"form": "cc3m", "list": str(folder / "cc3m.tsv")}} | (others or {})
    sound(campaign.sources(web, folder, corpora, 900, timeout=0.3, **flags))
    return expected, folder / "sources"


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """A thousand rows of CC3M's list and the samples of the other lists, fetched in one run: (expected, folder, asked)."""
    folder = tmp_path_factory.mktemp("lists")
    with web_of_failures.serve() as web:
        others = {"cc12m": {"form": "cc12m", "list": str(local(web, sample("cc12m_sample/cc12m.tsv"), folder))}}
        others["sbu"] = {"form": "sbu", "list": str(local(web, sample("sbu_sample/sbu-captions-all.json"), folder))}
        parquet = local_parquet(web, sample("img2dataset_sample/test_1000.parquet"), folder)
        others["urls"] = {"form": "list", "list": str(parquet), "url": "URL", "caption": "TEXT"}
        expected, made = fetched(web, folder, 1000, others)
    return expected, made, web.asked


def check(expected: list[str], made: Path) -> None:
    """Table, manifest and report of failures say the same of every row."""
    table = schemas.read(made / "cc3m.parquet", schemas.PAIRS, ["key", "status", "width"]).to_pylist()
    assert [row["key"] for row in table] == [f"cc3m-{number:09d}" for number in range(len(expected))]
    wrong = [(row["key"], row["status"], wanted) for row, wanted in zip(table, expected, strict=True)]
    assert [each for each in wrong if each[1] != each[2]] == []
    manifest = json.loads((made / "manifest.json").read_text())["sources"]["cc3m"]
    assert manifest["status"] == counts(expected) and manifest["rows"] == len(expected)


def test_a_thousand_rows_of_cc3m_fail_as_the_web_failed_and_each_is_counted(lists):
    expected, made, _ = lists
    check(expected, made)
    assert len(counts(expected)) > 6, "the sample holds failures of many kinds"


def test_only_what_may_pass_is_asked_again(lists):
    *_, asked = lists
    times = {}
    for path, count in asked.items():
        times.setdefault(path.split("/")[1], set()).add(count)
    may_pass = {"408", "500", "502", "503", "520", "523", "silent"}
    passes = campaign.shipped("sources")["passes"]
    assert times == {what: {passes if what in may_pass else 1} for what in times}
    assert len(times.keys() & may_pass) > 1


@pytest.mark.long
def test_all_15_833_rows_of_cc3m_fail_as_the_web_failed_and_add_up(tmp_path):
    with web_of_failures.serve() as web:
        expected, made = fetched(web, tmp_path, 20_000, urls_per_shard=1000)
    check(expected, made)
    assert len(expected) == 15_833
    urls = [line.rstrip("\n").split("\t")[1] for line in open(sample(CC3M), encoding="utf-8")]
    codes = Counter(code for url, (code, _) in reported().items() if url in set(urls))
    got = counts(expected)
    assert got["http_404"] == codes["404"] and got["http_403"] == codes["403"] and got["http_405"] == codes["405"]
    assert got["http_408"] + got["timeout"] == codes["408"] and got["http_503"] == codes["503"]


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """coco_tiny from its published form to shards, each stage by its command line; gives the folder of all products."""
    folder = tmp_path_factory.mktemp("coco")
    root = sample("coco_tiny")
    corpora = {
        name: {"form": "coco", "captions": str(root / f"annotations/captions_{name}2017.json"), "images": str(images)}
        for name, images in {"train": root / "train2017", "val": zipped(root / "val2017", folder / "val.zip")}.items()
    }
    sound(campaign.sources(None, folder, corpora))
    pairs = [folder / f"sources/{name}.parquet" for name in corpora]
    sound(run("filter", pairs=pairs, output=folder / "filter", state=folder / "state"))
    texts = [text for path in pairs for row in pq.read_table(path)["captions"].to_pylist() for text in row]
    models = {"captioner": campaign.write_captioner(folder / "captioner", texts), "clip": write_clip(folder / "clip")}
    settings = {"forbid_joint": {"lexicon": None}, "batch": 25, "max_new_tokens": 8}
    where = {"output": folder / "caption", "state_root": folder / "state"}
    sound(run("caption", pairs=folder / "filter/pairs.parquet", **models, **settings, **where))
    made = {"captions": folder / "caption/captions.parquet", "pairs": folder / "filter/pairs.parquet"}
    sound(run("shards", **made, output=folder / "shards"))
    return folder


def zipped(images: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for image in sorted(images.iterdir()):
            archive.write(image, f"val2017/{image.name}")
    return path


def test_coco_tiny_keeps_every_picture_or_says_why_it_went(coco):
    report = pq.read_table(coco / "filter/report.parquet").to_pylist()
    pictures = [row for row in report if row["unit"] == "picture"]
    assert {s: sum(row["count"] for row in pictures if row["source"] == s) for s in ("train", "val")} == {
        "train": 50,
        "val": 50,
    }
    kept = sum(row["count"] for row in pictures if row["reason"] == "kept")
    assert kept == pq.read_metadata(coco / "filter/pairs.parquet").num_rows > 80


def test_coco_tiny_has_sampled_and_published_captions_ranked(coco):
    table = pq.read_table(coco / "caption/captions.parquet").to_pylist()
    assert {row["origin"] for row in table} == {"web", "synthetic"}
    assert len({row["key"] for row in table}) == pq.read_metadata(coco / "filter/pairs.parquet").num_rows


def test_coco_tiny_is_read_back_from_its_shards_picture_by_picture(coco):
    index = schemas.read(coco / "shards/index.parquet", schemas.INDEX).to_pylist()
    pairs = {row["key"]: row for row in schemas.read(coco / "filter/pairs.parquet", schemas.PAIRS).to_pylist()}
    opened = Shards(coco / "shards")
    assert len(opened) == len(index) == len({row["key"] for row in index}) > 80
    for number, row in enumerate(index):
        held = opened[number]
        assert held["key"] == row["key"] and held["image"].size == (
            pairs[row["key"]]["width"],
            pairs[row["key"]]["height"],
        )
        assert row["image_sha256"] == hashlib.sha256(pairs[row["key"]]["image"]).hexdigest()


def test_coco_tiny_s_shards_are_verified_by_the_command_and_one_changed_byte_is_found(coco, tmp_path):
    done = vikdf("verify", coco / "shards")
    sound(done)
    copy = shutil.copytree(coco / "shards", tmp_path / "shards")
    tar = sorted(copy.glob("*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[3000] ^= 1
    tar.write_bytes(data)
    done = vikdf("verify", copy)
    assert done.returncode != 0 and tar.name in done.stdout + done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name,rows", [("cc12m", 5), ("sbu", 5), ("urls", 1000)])
def test_the_samples_of_the_other_lists_are_fetched_whole(name, rows, lists):
    _, made, _ = lists
    table = schemas.read(made / f"{name}.parquet", schemas.PAIRS, ["status", "captions"]).to_pylist()
    assert [row["status"] for row in table] == ["ok"] * rows
    assert all(len(row["captions"]) == 1 and row["captions"][0] for row in table)


def local(web, source: Path, folder: Path) -> Path:
    """The file with each of its addresses changed to one of this web, and nothing else."""
    numbers = itertools.count()
    text = re.sub(
        r'https?://[^\t"\n]+', lambda _: web.url("ok", f"{source.stem}-{next(numbers)}.jpg"), source.read_text()
    )
    path = folder / source.name
    path.write_text(text)
    return path


def local_parquet(web, source: Path, folder: Path) -> Path:
    table = pq.read_table(source)
    urls = pa.array([web.url("ok", f"p{number}.jpg") for number in range(table.num_rows)])
    pq.write_table(table.set_column(table.column_names.index("URL"), "URL", urls), folder / source.name)
    return folder / source.name


def talks(folder: Path, task: str, split: str, file: str) -> tuple[dict, list[dict]]:
    """One file through `dialogues` with the shipped settings of its task: (the counts of its split, its rows)."""
    entry = campaign.shipped("dialogues")["corpora"][task]
    entry = {name: value for name, value in entry.items() if name not in ("train", "valid", "test")}
    sound(run("dialogues", corpora={task: entry | {split: str(sample(file))}}, output=folder))
    said = json.loads((folder / "manifest.json").read_text())["tasks"][task]["splits"][split]
    return said, schemas.read(folder / f"{task}.parquet", schemas.DIALOGUES).to_pylist()


@pytest.mark.parametrize(
    "task,split,file,rows",
    [
        ("image_chat", "valid", "image_chat/valid.json", 5000),
        ("reddit", "train", "reddit_stylefusion/train.json", 7652),
    ],
)
def test_real_dialogues_are_kept_or_dropped_and_counted(task, split, file, rows, tmp_path):
    said, table = talks(tmp_path, task, split, file)
    assert said["read"] == rows == said["kept"] + sum(said["dropped"].values())
    assert said["kept"] == len(table) == len({row["id"] for row in table}) > 0
    assert sorted(row["position"] for row in table) == list(range(len(table)))
    assert all(row["response"] and row["context"] and all(row["context"]) for row in table)
