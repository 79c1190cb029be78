"""shards: any sample is found by its number, the bytes depend on the rows alone, and what was changed is named."""

import os
import pickle
import re
import tarfile
from pathlib import Path

import packs
import pytest
from packs import ROWS, alter, key, pack

from vikdf import cli, files, schemas
from vikdf.samples import Shards, cure, harm


@pytest.fixture
def packed(tmp_path) -> Path:
    return pack(packs.tables(tmp_path))


def row_of(packed: Path, number: int) -> dict:
    return Shards(packed).index.slice(number, 1).to_pylist()[0]


def test_every_sample_is_found_by_its_number_with_its_used_captions_best_first(packed):
    opened = Shards(packed)
    assert len(opened) == ROWS
    for number in reversed(range(ROWS)):
        sample = opened[number]
        assert sample["key"] == key(number)
        assert sample["captions"] == [f"best {key(number)}", f"second {key(number)}"]
        assert sample["image"].size == (20 + number, 16) and sample["image"].mode == "RGB"
    with pytest.raises(IndexError):
        opened[ROWS]


def test_the_shards_are_plain_tars_of_bounded_length(packed):
    names = [tarfile.open(path).getnames() for path in sorted(packed.glob("*.tar"))]
    assert [len(each) for each in names] == [6, 6, 2]
    assert names[0][:2] == ["a-000000000.jpg", "a-000000000.json"] and names[0][2] == "a-000000001.png"


def test_no_tar_is_larger_than_allowed_but_for_one_sample_that_is_larger_itself(tmp_path):
    large = packs.picture(3) + bytes(30_000)  # a decoder stops at the picture's end
    made = pack(packs.tables(tmp_path, images={3: large}), rows_per_shard=100, max_shard_bytes=20_480)
    counts = {path.name: len(tarfile.open(path).getnames()) // 2 for path in sorted(made.glob("*.tar"))}
    sizes = {path.name: path.stat().st_size for path in sorted(made.glob("*.tar"))}
    assert [name for name, size in sizes.items() if size > 20_480] == ["00001.tar"] and counts["00001.tar"] == 1
    assert sum(counts.values()) == ROWS and Shards(made)[4]["key"] == key(4)


def test_stock_webdataset_reads_the_shards_decoded_and_in_their_order(packed):
    import webdataset

    urls = [str(path) for path in sorted(packed.glob("*.tar"))]
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil").rename(image="jpg;png"))
    opened = Shards(packed)
    assert [sample["__key__"] for sample in read] == [opened[number]["key"] for number in range(ROWS)]
    assert [sample["json"]["captions"] for sample in read] == [opened[number]["captions"] for number in range(ROWS)]
    assert all(sample["image"].tobytes() == opened[i]["image"].tobytes() for i, sample in enumerate(read))


def test_the_same_rows_give_the_same_bytes(packed):
    assert files.sha256(pack(packed.parent, "again")) == files.sha256(packed)


def test_the_manifest_counts_and_every_file_agrees_with_it(packed):
    manifest = files.read_json(packed / "manifest.json")
    assert (manifest["rows"], manifest["captions"], manifest["sources"]) == (ROWS, 2 * ROWS, {"a": ROWS})
    assert {path.name for path in packed.iterdir()} == {*manifest["files"], "manifest.json"}
    assert harm(packed) == []


@pytest.mark.parametrize("name", ["00001.tar", "index.parquet", "manifest.json"])
def test_a_missing_file_is_named_with_what_makes_it_again(packed, name):
    (packed / name).unlink()
    cure = (
        "`vikdf index .*` makes their index again"
        if name == "index.parquet"
        else "make the shards again: .*`vikdf recover`"
    )
    with pytest.raises(ValueError, match=rf"{name} is missing.*{cure}"):
        Shards(packed)


def test_the_cure_of_harmed_shards_is_a_command_of_ours(packed):
    command = re.search("of a run's own, `vikdf (.*)`", cure(packed)).group(1)
    assert cli.parser().parse_args([command]).options == []


def test_a_shard_of_another_size_is_named(packed):
    with open(packed / "00002.tar", "ab") as stream:
        stream.write(b"x")
    with pytest.raises(ValueError, match="00002.tar was changed.*make the shards again.*harmed='skip'"):
        Shards(packed)


def test_every_shard_of_another_size_is_named_at_once(packed):
    (packed / "00000.tar").unlink()
    os.truncate(packed / "00001.tar", 1000)
    with pytest.raises(ValueError, match="00000.tar is missing; .*00001.tar was changed, it is 1000 bytes long"):
        Shards(packed)


def test_a_folder_of_something_else_is_one_sentence(tmp_path):
    files.write_json(tmp_path / "manifest.json", {"sha256": "..."})
    with pytest.raises(ValueError, match="manifest.json names no index.parquet.*holds no shards"):
        Shards(tmp_path)


@pytest.mark.parametrize("part", ["image", "text"])
def test_an_altered_byte_is_seen_when_its_sample_is_read(packed, part):
    alter(packed, row_of(packed, 4), part)
    opened = Shards(packed)
    assert opened[3]["key"] == key(3)
    with pytest.raises(ValueError, match="00001.tar was changed at a-000000004"):
        opened[4]


def test_an_altered_index_is_seen_on_opening(packed):
    rows = schemas.read(packed / "index.parquet", schemas.INDEX).to_pylist()
    rows[0]["captions"] = ["something else"]
    schemas.write(rows, packed / "index.parquet", schemas.INDEX)
    for harmed in ("stop", "skip"):
        with pytest.raises(ValueError, match="index.parquet was changed"):
            Shards(packed, harmed=harmed)


HOSTILE = {
    "another folder": {"shard": "../00000.tar"},
    "no tar": {"shard": "index.parquet"},
    "nothing": {"shard": None},
    "before the tar": {"image_offset": -5},
    "negative": {"text_bytes": -1},
    "more than memory": {"image_bytes": 10**13},
    "beyond all numbers": {"image_offset": 2**63 - 1, "image_bytes": 5},
    "no captions": {"captions": None},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_index_of_strangers_that_leads_out_of_its_tars_is_refused_and_can_be_left_out(packed, what, capsys):
    rows = schemas.read(packed / "index.parquet", schemas.INDEX).to_pylist()
    rows[2] |= HOSTILE[what]
    (packed.parent / "00000.tar").write_bytes((packed / "00000.tar").read_bytes())
    schemas.write(rows, packed / "index.parquet", schemas.INDEX)
    manifest = files.read_json(packed / "manifest.json")
    fits = {"bytes": (packed / "index.parquet").stat().st_size, "sha256": files.sha256(packed / "index.parquet")}
    files.write_json(packed / "manifest.json", manifest | {"files": manifest["files"] | {"index.parquet": fits}})
    with pytest.raises(ValueError, match="index.parquet names what no tar of the manifest holds: 1 of its 7 samples"):
        Shards(packed)
    opened = Shards(packed, harmed="skip")
    assert [opened[number]["key"] for number in range(len(opened))] == [key(i) for i in (0, 1, 3, 4, 5, 6)]
    assert "1 samples are left out, 6 stay" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../00000.tar", "/etc/passwd", "a/b.tar"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(packed, name):
    manifest = files.read_json(packed / "manifest.json")
    elsewhere = {name: manifest["files"]["00000.tar"]}
    files.write_json(packed / "manifest.json", manifest | {"files": manifest["files"] | elsewhere})
    with pytest.raises(ValueError, match="manifest.json names .*expected a file of this folder"):
        Shards(packed, harmed="skip")


def test_harmed_samples_can_be_left_out_by_name_and_are_counted(packed, capsys):
    alter(packed, row_of(packed, 1))
    os.truncate(packed / "00001.tar", row_of_first(packed, "00001.tar")["text_offset"] + 600)  # one sample is whole
    (packed / "00002.tar").unlink()
    opened = Shards(packed, harmed="skip")
    assert [opened[number]["key"] for number in range(len(opened))] == [key(0), key(2), key(3)]
    said = capsys.readouterr().err
    assert "00000.tar was changed, its sha256 is not the manifest's: 1 of its 3 samples are harmed" in said
    assert "2 of its 3 samples" in said and "00002.tar is missing: all its 1 samples are harmed" in said
    assert "4 samples are left out, 3 stay" in said


def row_of_first(packed: Path, shard: str) -> dict:
    rows = schemas.read(packed / "index.parquet", schemas.INDEX).to_pylist()
    return next(row for row in rows if row["shard"] == shard)


def test_verify_names_all_harmed_files_at_once_and_how_many_samples_they_cost(packed, capsys):
    cli.main(["verify", str(packed)])
    alter(packed, row_of(packed, 1))
    os.truncate(packed / "00001.tar", 700)
    (packed / "00002.tar").unlink()
    with pytest.raises(SystemExit):
        cli.main(["verify", str(packed)])
    said = capsys.readouterr().err
    assert "00000.tar was changed, its sha256 is not the manifest's: 1 of its 3 samples" in said
    assert "00001.tar was changed, it is 700 bytes long" in said and "00002.tar is missing: all" in said
    assert "cure: copy the shards anew, or make the shards again" in said


def test_verify_of_a_harmed_index_names_the_command_that_makes_it_again(packed, capsys):
    (packed / "index.parquet").unlink()
    with pytest.raises(SystemExit):
        cli.main(["verify", str(packed)])
    assert f"cure: where the tars are whole, `vikdf index {packed}` makes" in capsys.readouterr().err
    cli.main(["index", str(packed)])
    cli.main(["verify", str(packed)])


def test_verify_without_a_sound_index_still_names_the_harmed_tars(packed, capsys):
    alter(packed, row_of(packed, 1))
    (packed / "index.parquet").unlink()
    with pytest.raises(SystemExit):
        cli.main(["verify", str(packed)])
    said = capsys.readouterr().err
    assert "index.parquet is missing" in said and "00000.tar was changed" in said and "samples" not in said


@pytest.mark.parametrize(
    "image",
    [b"\xff\xd8\xff no picture", packs.picture(2)[:300], packs.picture(2, "EPS")],
    ids=["none", "cut", "a program"],
)
def test_a_picture_that_cannot_be_decoded_is_named_with_its_shard(tmp_path, image):
    made = pack(packs.tables(tmp_path, images={2: image}))
    with pytest.raises(ValueError, match="the picture of a-000000002 in .*00000.tar cannot be decoded"):
        Shards(made)[2]


def test_a_pickled_reader_is_small_and_reads_the_same_rows(packed, capsys):
    (packed / "00001.tar").unlink()
    opened = Shards(packed, harmed="skip")
    sent = pickle.dumps(opened)
    other = pickle.loads(sent)
    assert len(sent) < 500
    assert [other[number]["key"] for number in range(len(other))] == [key(0), key(1), key(2), key(6)]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_loader_workers_read_what_the_main_process_reads(packed, start):
    import torch

    opened = Shards(packed)
    opened[0]  # what was open before a fork must not disturb
    loader = torch.utils.data.DataLoader(
        opened, batch_size=None, num_workers=1 + (start == "fork"), multiprocessing_context=start, collate_fn=dict
    )
    assert [sample["key"] for sample in loader] == [key(number) for number in range(ROWS)]


def test_no_file_stays_open_however_many_shards_are_read(tmp_path):
    opened = Shards(pack(packs.tables(tmp_path), rows_per_shard=1))
    assert [opened[number]["key"] for number in range(ROWS)] == [key(number) for number in range(ROWS)]
    held = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert not [path for path in held if os.path.realpath(path).endswith(".tar")]


def test_the_benchmark_compares_readers_that_give_the_same_bytes(capsys):
    """It stops where they do not; here it is so small that its figures mean nothing."""
    from benchmarks import shards as benchmark

    benchmark.main(samples=40, rows_per_shard=20, side=48, rounds=1)
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"shards [\d.]+x  ours \d+  plain \d+ samples a CPU second", last)
