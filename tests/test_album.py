"""Pictures of dialogues: found by name in a folder, zip or tar, never trusted, counted; the dialogue itself always stays."""

import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from members import tar, zipped
from packs import picture
from PIL import Image
from pyarrow import csv

from vikdf import files, schemas
from vikdf.corpora import talks
from vikdf.dialogues import dialogues

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared/data/image_chat"
CHAT = {"form": "image_chat", "turns": "all"}


def chat(name: str | None, number: int = 0) -> dict:
    said = {"dialog": [["Calm", f"hello {number}"], ["Kind", "what is it?"], ["Calm", "it is red."]]}
    return said if name is None else {"image_hash": name} | said


def made(folder: Path, names: list, pictures: Path | None, splits=("train",), **settings) -> tuple[list, dict, dict]:
    """Rows of the task, pictures by their name, and what the manifest counts of them."""
    entry = CHAT | {"pictures": str(pictures) if pictures else None}
    for split in splits:
        rows = [chat(name, number) for number, name in enumerate(names)]
        (folder / f"{split}.json").write_text(json.dumps(rows))
        entry[split] = str(folder / f"{split}.json")
    dialogues(seed=1, corpora={"chat": entry}, output=folder / "out", **settings)
    rows = schemas.read(folder / "out/chat.parquet", schemas.DIALOGUES).to_pylist()
    kept = schemas.read(folder / "out/pictures.parquet", schemas.PICTURES).to_pylist()
    manifest = json.loads((folder / "out/manifest.json").read_text())
    assert manifest["pictures.parquet"]["sha256"] == files.sha256(folder / "out/pictures.parquet")
    return rows, {row["name"]: row["image"] for row in kept}, manifest["tasks"]["chat"].get("pictures", {})


def packed(folder: Path, kind: str, members: dict[str, bytes]) -> Path:
    path = folder / f"pictures.{kind}"
    if kind == "folder":
        for name, data in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    else:
        path.write_bytes({"tar": tar, "zip": zipped}[kind](members))
    return path


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_dialogue_gets_the_bytes_of_the_picture_that_it_names(tmp_path, kind):
    pictures = packed(tmp_path, kind, {"deep/b.jpg": picture(2), "a.jpg": picture(1), "c.jpg": picture(3)})
    rows, kept, counts = made(tmp_path, ["a", "b"], pictures)
    assert [row["picture"] for row in rows] == ["chat/a", "chat/b"]
    assert kept == {"chat/a": picture(1), "chat/b": picture(2)} and counts == {"ok": 2}


def test_a_picture_of_several_dialogues_is_kept_once(tmp_path):
    rows, kept, counts = made(tmp_path, ["a", "a"], packed(tmp_path, "zip", {"a.jpg": picture(1)}))
    assert [row["picture"] for row in rows] == ["chat/a", "chat/a"]
    assert list(kept) == ["chat/a"] and counts == {"ok": 2}


def test_a_dialogue_without_its_picture_stays_and_is_counted_by_the_reason(tmp_path):
    cut = picture(4)[:-300]
    members = {
        "a.jpg": picture(1),
        "cut.jpg": cut,
        "page.jpg": b"<html>",
        "void.jpg": b"",
        "x/t.jpg": b"1",
        "y/t.jpg": b"2",
    }
    names = ["a", "gone", "cut", "page", "void", "t", None, "", 7]
    rows, kept, counts = made(tmp_path, names, packed(tmp_path, "zip", members))
    assert [row["picture"] for row in rows] == ["chat/a"] + [""] * 8 and list(kept) == ["chat/a"]
    reasons = {"ok": 1, "missing": 1, "broken": 1, "wrong_type": 1, "empty_file": 1, "ambiguous_name": 1, "unnamed": 3}
    assert counts == reasons


def test_only_train_sees_pictures(tmp_path):
    pictures = packed(tmp_path, "zip", {"a.jpg": picture(1)})
    rows, _, counts = made(tmp_path, ["a"], pictures, splits=("train", "valid", "test"))
    assert {row["split"]: row["picture"] for row in rows} == {"train": "chat/a", "valid": "", "test": ""}
    assert counts == {"ok": 1}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_only_train_must_name_its_pictures(tmp_path, ending):
    """Forms that have a header: a column that is not there is refused."""
    entry = CHAT | {"pictures": str(packed(tmp_path, "zip", {"a.jpg": picture(1)}))}
    for split, names in {"train": ["dialog", "image_hash"], "valid": ["dialog"], "test": ["dialog"]}.items():
        row = {"dialog": json.dumps(chat(None)["dialog"]), "image_hash": "a"}
        columns = pa.table({name: [row[name]] for name in names})
        entry[split] = str(tmp_path / f"{split}.{ending}")
        (csv.write_csv if ending == "csv" else pq.write_table)(columns, entry[split])
    dialogues(seed=1, corpora={"chat": entry}, output=tmp_path / "out")
    rows = schemas.read(tmp_path / "out/chat.parquet", schemas.DIALOGUES).to_pylist()
    assert {row["split"]: row["picture"] for row in rows} == {"train": "chat/a", "valid": "", "test": ""}
    with pytest.raises(ValueError, match="test.* has no column image_hash"):
        dialogues(seed=1, corpora={"chat": entry | {"train": entry["test"]}}, output=tmp_path / "out")


def test_names_that_lead_out_of_the_folder_find_nothing(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(picture(9))
    pictures = packed(tmp_path, "folder", {"a.jpg": picture(1)})
    (pictures / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    names = ["a", "../secret", str(tmp_path / "secret"), "link", "\0", "a" * 5000]
    _, kept, counts = made(tmp_path, names, pictures)
    assert list(kept) == ["chat/a"] and counts == {"ok": 1, "missing": 4, "link": 1}


def test_a_picture_larger_than_the_limits_is_refused(tmp_path):
    pictures = packed(tmp_path, "zip", {"a.jpg": picture(1), "b.jpg": picture(200)})
    _, kept, counts = made(tmp_path, ["a", "b"], pictures, max_pixels=1000)
    assert list(kept) == ["chat/a"] and counts == {"ok": 1, "too_many_pixels": 1}
    with pytest.raises(ValueError, match="too_many_bytes 2"):
        made(tmp_path, ["a", "b"], pictures, max_bytes=10)


def test_a_line_that_would_become_gigabytes_when_it_is_scaled_is_refused(tmp_path):
    def line(width: int, height: int) -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", (width, height)).save(stream, "PNG")
        return stream.getvalue()

    members = {"a.jpg": line(1, 101), "b.jpg": line(10_000, 99), "c.jpg": line(1, 100)}
    _, kept, counts = made(tmp_path, ["a", "b", "c"], packed(tmp_path, "zip", members))
    assert list(kept) == ["chat/c"] and counts == {"narrow": 2, "ok": 1}


def test_an_archive_without_any_of_the_pictures_is_named(tmp_path):
    with pytest.raises(ValueError, match="missing 1: .*pictures.zip holds none .*<image_hash>.jpg.*or write null"):
        made(tmp_path, ["gone"], packed(tmp_path, "zip", {"a.jpg": picture(1)}))
    assert not (tmp_path / "out/manifest.json").exists()


def test_without_pictures_the_table_is_there_and_empty(tmp_path):
    rows, kept, counts = made(tmp_path, ["a"], None)
    assert rows[0]["picture"] == "" and kept == {} and counts == {}


def test_the_bytes_do_not_depend_on_how_many_pictures_are_held(tmp_path, monkeypatch):
    pictures = packed(tmp_path, "zip", {f"{n}.jpg": picture(n) for n in range(5)})
    first, _, _ = made(tmp_path, list("01234"), pictures)
    digest = files.sha256(tmp_path / "out/pictures.parquet")
    made(tmp_path, list("01234"), pictures)
    assert files.sha256(tmp_path / "out/pictures.parquet") == digest
    monkeypatch.setattr("vikdf.corpora.album.BATCH", 2)
    again, kept, _ = made(tmp_path, list("01234"), pictures)
    assert again == first and [*kept.values()] == [picture(n) for n in range(5)]


def test_a_form_that_names_no_pictures_refuses_them():
    entry = {"form": "reddit", "context_turns": [2], "train": "x.json", "pictures": "images.zip"}
    with pytest.raises(ValueError, match="the form reddit names no pictures"):
        talks.check("mine", entry, [])


def test_a_task_called_pictures_would_take_their_table_and_is_refused():
    with pytest.raises(ValueError, match="'pictures'"):
        talks.check("pictures", {"form": "reddit", "context_turns": [2], "train": "x.json"}, [])


def test_a_published_dialogue_finds_its_published_picture(tmp_path):
    if not SHARED.exists():
        pytest.skip(f"no real sample here: {SHARED}")
    shutil.copytree(SHARED / "imgs", tmp_path / "imgs")
    name = next((tmp_path / "imgs").glob("*.jpg")).stem
    rows, kept, counts = made(tmp_path, [name, "fbb6235f465efc58fcd509cf787c450"], tmp_path / "imgs")
    assert list(kept) == [f"chat/{name}"] and counts == {"missing": 1, "ok": 1}
    assert len(rows) == 2
