"""shards: any sample is found by its number, the bytes depend on the rows alone, and what was changed is named."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from vikdf import files, schemas
from vikdf.shards import Shards, shards, verify

ROWS = 7


def picture(number: int, form: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20 + number, 16), (number * 30, 0, 0)).save(stream, form)
    return stream.getvalue()


@pytest.fixture
def packed(tmp_path) -> Path:
    images = {f"a-{number:09d}": picture(number, "PNG" if number % 2 else "JPEG") for number in range(ROWS + 1)}
    pairs = [
        {
            "key": key,
            "source": "a",
            "url": "",
            "captions": ["web"],
            "status": "ok",
            "width": 1,
            "height": 1,
            "image": image,
        }
        for key, image in images.items()
    ]
    captions = []
    for key in list(images)[:ROWS]:  # the last picture has no caption in use
        for rank, (text, used, dropped) in enumerate(
            [("best", True, ""), ("second", True, ""), ("joined", True, "names_noun_and_look"), ("spare", False, "")]
        ):
            said = {"key": key, "source": "a", "caption": f"{text} {key}", "origin": "web", "score": 0.5}
            captions.insert(0, said | {"rank": rank, "used": used, "dropped": dropped})
    schemas.write(pairs, tmp_path / "pairs.parquet", schemas.PAIRS)
    schemas.write(captions, tmp_path / "captions.parquet", schemas.CAPTIONS)
    return pack(tmp_path, "shards")


def pack(folder: Path, name: str) -> Path:
    shards(rows_per_shard=3, captions=folder / "captions.parquet", pairs=folder / "pairs.parquet", output=folder / name)
    return folder / name


def test_every_sample_is_found_by_its_number_with_its_used_captions_best_first(packed):
    opened = Shards(packed)
    assert len(opened) == ROWS
    for number in reversed(range(ROWS)):
        sample, key = opened[number], f"a-{number:09d}"
        assert sample["key"] == key and sample["captions"] == [f"best {key}", f"second {key}"]
        assert sample["image"].size == (20 + number, 16) and sample["image"].mode == "RGB"
    with pytest.raises(IndexError):
        opened[ROWS]


def test_the_shards_are_plain_tars_of_bounded_length(packed):
    names = [tarfile.open(path).getnames() for path in sorted(packed.glob("*.tar"))]
    assert [len(each) for each in names] == [6, 6, 2]
    assert names[0][:2] == ["a-000000000.jpg", "a-000000000.json"] and names[0][2] == "a-000000001.png"


def test_stock_webdataset_reads_the_shards(packed):
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(packed.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"a-{number:09d}" for number in range(ROWS)]


def test_the_same_rows_give_the_same_bytes(packed):
    assert files.sha256(pack(packed.parent, "again")) == files.sha256(packed)


def test_the_manifest_counts_and_every_file_agrees_with_it(packed):
    manifest = files.read_json(packed / "manifest.json")
    assert (manifest["rows"], manifest["captions"], manifest["sources"]) == (ROWS, 2 * ROWS, {"a": ROWS})
    assert verify(packed) == ROWS


@pytest.mark.parametrize("name", ["00001.tar", "index.parquet", "manifest.json"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(packed, name):
    (packed / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} is missing.*snakemake --cores all --force .*manifest.json"):
        Shards(packed)


def test_a_shard_of_another_size_is_named(packed):
    with open(packed / "00002.tar", "ab") as stream:
        stream.write(b"x")
    with pytest.raises(ValueError, match="00002.tar was changed.*snakemake"):
        Shards(packed)


def test_an_altered_byte_is_seen_when_its_sample_is_read_and_by_verify(packed):
    opened = Shards(packed)
    row = opened.index.slice(4, 1).to_pylist()[0]
    with open(packed / row["shard"], "r+b") as stream:
        stream.seek(row["image_offset"] + 5)
        stream.write(b"\xff\x00\xff")
    opened = Shards(packed)
    assert opened[3]["key"] == "a-000000003"
    with pytest.raises(ValueError, match="00001.tar was changed at a-000000004"):
        opened[4]
    with pytest.raises(ValueError, match="00001.tar was changed, its sha256"):
        verify(packed)


def test_captions_of_an_unknown_picture_are_an_error(packed):
    rows = schemas.read(packed.parent / "captions.parquet", schemas.CAPTIONS).to_pylist()
    schemas.write(
        rows + [rows[0] | {"key": "b-1", "used": True, "dropped": ""}],
        packed.parent / "captions.parquet",
        schemas.CAPTIONS,
    )
    with pytest.raises(ValueError, match="captions for b-1"):
        pack(packed.parent, "wrong")
    assert not (packed.parent / "wrong").exists()
