"""fetched: a shard is read in its list's order, whatever its own order is, and never more of it is held than was said."""

import random
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from img2dataset.writer import ParquetSampleWriter

from vikdf import files, schemas
from vikdf.corpora import fetched, preflight, progress
from vikdf.corpora.fetch import URLS, List, Manner, answers

SCHEMA = pa.schema([("id", pa.string()), ("url", pa.string()), ("error_message", pa.string())])
SCHEMA = pa.schema([("key", pa.string()), *SCHEMA, ("width", pa.int32()), ("height", pa.int32())])


@pytest.fixture
def one(tmp_path) -> List:
    """Two shards of 300 urls whose answers came in any order; every seventh failed, one was never answered."""
    rows = [{"id": f"{n:04d}", "url": f"http://x.example/{n}"} for n in range(600)]
    schemas.write(rows, tmp_path / "list.parquet", URLS)
    (tmp_path / "list/pass1").mkdir(parents=True)
    for shard in (0, 1):
        came = rows[shard * 300 : (shard + 1) * 300]
        random.Random(shard).shuffle(came)
        _write(tmp_path, shard, [row for row in came if row["id"] != "0005"])
    return List("list", tmp_path / "list.parquet", tmp_path / "list", 300)


def _write(folder, shard: int, came: list[dict]) -> None:
    run = folder / f"run{shard}"
    run.mkdir()
    (run / "go").touch()
    kind = progress.writer_of(progress.Tally(run, shard), ParquetSampleWriter, lambda: None)
    writer = kind(shard, str(folder / "list/pass1"), False, 5, SCHEMA, "image")
    for row in came:
        lost = int(row["id"]) % 7 == 0
        about = row | {"error_message": "http_404" if lost else None, "width": 1, "height": 1}
        writer.write(None if lost else _image(row["id"]), row["id"], None, about)
    writer.close()


def _image(name: str) -> bytes:
    return random.Random(name).randbytes(1000)


def test_answers_are_the_same_however_few_bytes_are_held(one, monkeypatch):
    whole = list(answers(one, 1))
    assert [row["id"] for row in whole] == [f"{n:04d}" for n in range(600)]
    for row in whole:
        lost = "failed" if row["id"] == "0005" else "http_404" if int(row["id"]) % 7 == 0 else "ok"
        assert (row["status"], row["image"]) == (lost, _image(row["id"]) if lost == "ok" else None)
    for held in (1, 2500, 100_000):
        monkeypatch.setattr(fetched, "HELD", held)
        assert list(answers(one, 1)) == whole


def test_never_more_pictures_are_held_than_was_said(one, monkeypatch):
    monkeypatch.setattr(fetched, "HELD", 20_000)
    rounds = []
    pictures = fetched._pictures

    def counted(*about):
        rounds.append(pictures(*about))
        return dict(rounds[-1])

    monkeypatch.setattr(fetched, "_pictures", counted)
    assert sum(1 for _ in answers(one, 1)) == 600
    sizes = [sum(len(image or b"") for image in found.values()) for found in rounds]
    assert max(sizes) <= 20_000 and len(sizes) > 20


def test_a_row_group_of_a_shard_is_bounded_by_bytes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "WAITING", 10_000)
    (tmp_path / "list/pass1").mkdir(parents=True)
    _write(tmp_path, 0, [{"id": f"{n:04d}", "url": "x"} for n in range(300)])
    about = pq.read_metadata(tmp_path / "list/pass1/00000.parquet")
    assert about.num_rows == 300
    assert max(about.row_group(number).num_rows for number in range(about.num_row_groups)) <= 14


@pytest.mark.parametrize(
    "harmed", ["[]", "null", "{", "", '{"bytes": "x"}', '{"said": {"ok": 3}, "bytes": 30}', "other"]
)
def test_a_harmed_memory_of_a_look_beforehand_counts_for_nothing_and_the_sample_is_asked_again(
    one, monkeypatch, capsys, harmed
):
    given = {"said": Counter(ok=3), "bytes": 30, "seconds": 1.0, "hosts": Counter(x=3)}
    asked, about = [], Manner("multiprocessing", 1, 0, 0.5)
    monkeypatch.setattr(preflight, "ask", lambda urls, worker: asked.append(len(urls)) or given)
    monkeypatch.setattr(preflight, "report", lambda *_: "good")
    told = one.folder / "preflight.json"
    for _ in range(2):
        preflight.foretell([one], None, about, 3)
    assert asked == [3] and files.read_checked(told)["bytes"] == 3000 * 2
    told.write_text(told.read_text().replace("6000", "7000") if harmed == "other" else harmed)
    for _ in range(2):
        preflight.foretell([one], None, about, 3)
    assert asked == [3, 3] and files.read_checked(told)["bytes"] == 6000
    assert capsys.readouterr().err.count("it counts for nothing") == 1
