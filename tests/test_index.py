"""index: shards that other tools made are read as ours are, without unpacking them; what cannot be read is counted."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import packs
import pytest

from vikdf import cli, files
from vikdf.samples import Shards, harm


def write(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as stream:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            stream.addfile(member, io.BytesIO(data))
    return path.parent


def index(folder: Path) -> dict:
    cli.main(["index", str(folder)])
    return files.read_json(folder / "manifest.json")


@pytest.fixture
def fetched(tmp_path, monkeypatch) -> Path:
    """What img2dataset itself writes with output_format webdataset, of six files and one that is not there."""
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version
    import pyarrow as pa
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    rows = []
    for number in range(7):
        (tmp_path / f"{number}.jpg").write_bytes(packs.picture(number)) if number != 5 else None
        rows.append([f"caption {number}", (tmp_path / f"{number}.jpg").as_uri()])
    output = tmp_path / "fetched"
    output.mkdir()
    for shard, part in enumerate((rows[:4], rows[4:])):
        with pa.ipc.new_file(tmp_path / "part", pa.schema({"caption": pa.string(), "url": pa.string()})) as stream:
            stream.write_table(pa.table(dict(zip(("caption", "url"), map(list, zip(*part, strict=True)), strict=True))))
        Downloader(
            sample_writer_class=WebDatasetSampleWriter,
            resizer=Resizer(256, "no", False),
            thread_count=1,
            save_caption=True,
            extract_exif=False,
            output_folder=str(output),
            column_list=["caption", "url"],
            timeout=5,
            number_sample_per_shard=4,
            oom_shard_count=5,
            compute_hash="sha256",
            verify_hash_type=None,
            encode_format="jpg",
            retries=0,
            user_agent_token=None,
            disallowed_header_directives=[],
        )((shard, str(tmp_path / "part")))
    return output


def test_the_shards_of_img2dataset_are_read_at_random_and_checked(fetched):
    made = index(fetched)
    assert (made["rows"], made["captions"], made["dropped"], made["sources"]) == (6, 6, {}, {"fetched": 6})
    opened = Shards(fetched)
    assert [opened[number]["captions"] for number in reversed(range(6))] == [
        [f"caption {i}"] for i in (6, 4, 3, 2, 1, 0)
    ]
    assert [opened[number]["image"].width for number in range(6)] == [20, 21, 22, 23, 24, 26]
    packs.alter(fetched, opened.index.slice(2, 1).to_pylist()[0])
    with pytest.raises(ValueError, match="00000.tar was changed at 0+2: copy the tars anew, or run `vikdf index"):
        opened[2]
    assert [(each.path.name, each.lost, each.samples) for each in harm(fetched)] == [("00000.tar", [2], 4)]


def test_the_index_made_from_our_tars_is_the_one_that_packing_made(tmp_path):
    packed = packs.pack(packs.tables(tmp_path))
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    (copy / "index.parquet").unlink()
    index(copy)
    assert (copy / "index.parquet").read_bytes() == (packed / "index.parquet").read_bytes()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"b.jpg": b"x"}, "no_caption"),
        ({"b.jpg": b"x", "b.txt": b" \n"}, "no_caption"),
        ({"b.jpg": b"x", "b.txt": b"\xff\xfe"}, "not_utf8"),
        ({"b.jpg": b"x", "b.json": b"{"}, "not_json"),
        ({"b.jpg": b"x", "b.json": b"[" * 100_000}, "not_json"),
        ({"b.jpg": b"x", "b.json": b"[1]"}, "not_json"),
        ({"b.jpg": b"x", "b.json": b'{"captions": 3}'}, "no_caption"),
        ({"b.jpg": b"x", "b.json": b'{"caption": "\\ud800"}'}, "no_caption"),
        ({"b.jpg": b"x", "b.txt": bytes(2_000_000)}, "too_long"),
        ({"b.txt": b"hello"}, "no_picture"),
        ({"../b.jpg": b"x"}, "unsafe_name"),
    ],
)
def test_a_sample_that_cannot_be_used_is_counted_and_the_others_are_read(tmp_path, capsys, members, reason):
    image, folder = packs.picture(1), tmp_path / "tars"
    folder.mkdir()
    write(folder / "0.tar", {"a.jpg": image, "a.txt": b"first", **members, "c.JPEG": image, "c.txt": "größer".encode()})
    assert index(folder)["dropped"] == {reason: 1} and f"left out, {reason}: 1" in capsys.readouterr().out
    opened = Shards(folder)
    assert [opened[number]["captions"] for number in range(len(opened))] == [["first"], ["größer"]]
    assert not (tmp_path / "b.jpg").exists()


def test_a_json_that_tells_of_no_caption_leaves_the_word_to_the_txt(tmp_path):
    about = json.dumps({"width": 3}).encode()
    index(write(tmp_path / "0.tar", {"a.png": packs.picture(1, "PNG"), "a.json": about, "a.txt": b"said\n"}))
    assert Shards(tmp_path)[0]["captions"] == ["said"]


def test_of_a_truncated_tar_the_whole_samples_are_used_and_the_end_is_counted(tmp_path):
    folder = write(tmp_path / "0.tar", {"a.jpg": packs.picture(1), "a.txt": b"first", "b.jpg": packs.picture(2)})
    path = folder / "0.tar"
    path.write_bytes(path.read_bytes()[:2600])
    assert index(folder)["dropped"] == {"truncated": 1} and len(Shards(folder)) == 1


def test_a_folder_without_tars_is_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit):
        index(tmp_path)
    assert "holds no .tar: name a folder of shards" in capsys.readouterr().err


def test_tars_that_were_never_indexed_are_refused_with_the_command_that_does_it(tmp_path):
    write(tmp_path / "0.tar", {"a.jpg": b"x"})
    with pytest.raises(ValueError, match="manifest.json is missing.*`vikdf index"):
        Shards(tmp_path)
