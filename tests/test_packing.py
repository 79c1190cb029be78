"""packing: tables larger than memory are joined in their order, and a killed run goes on to the same bytes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import packs
import pytest
from packs import ROWS, key, pack

from vikdf import files, packing, schemas
from vikdf.samples import Shards

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import packs
from vikdf import tars
close, left = tars.Tar.close, iter(range(int(sys.argv[3])))
def killed(self):
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    close(self)
tars.Tar.close = killed
packs.pack(Path(sys.argv[1]))
"""


SWAPPED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import packs
rename = os.replace
def killed(source, target):
    if Path(source).name == ".shards.part":
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = killed
packs.pack(Path(sys.argv[1]))
"""


@pytest.fixture
def tables(tmp_path) -> Path:
    return packs.tables(tmp_path)


def change(path: Path, schema, edit) -> None:
    schemas.write(edit(schemas.read(path, schema).to_pylist()), path, schema)


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.name.startswith("."))


def kill_after(tables: Path, shards: int, script: str = KILLED) -> None:
    command = [sys.executable, "-c", script, str(tables), str(Path(__file__).parent), str(shards)]
    assert subprocess.run(command, capture_output=True, timeout=100).returncode == -signal.SIGKILL


def test_a_run_that_is_killed_twice_goes_on_to_the_same_bytes_and_leaves_nothing_behind(tables):
    whole = files.sha256(pack(tables, "whole"))
    kill_after(tables, 1)
    assert not (tables / "shards").exists()
    kept = tables / ".shards.part/00000.tar"
    first = os.stat(kept).st_ino
    kill_after(tables, 1)  # one more
    assert os.stat(kept).st_ino == first and (tables / ".shards.part/00001.parquet").exists()
    assert files.sha256(pack(tables)) == whole
    assert os.stat(tables / "shards/00000.tar").st_ino == first  # taken over, not packed again
    assert hidden(tables) == []


def test_what_was_begun_of_other_tables_is_packed_anew(tables):
    kill_after(tables, 1)
    change(tables / "captions.parquet", schemas.CAPTIONS, lambda rows: rows[4:])
    made = pack(tables)
    assert Shards(made)[0]["key"] == key(1) and files.sha256(made) == files.sha256(pack(tables, "whole"))


def test_a_second_process_is_refused_while_the_first_packs(tables):
    with packing.begun(tables / "shards", {}) as folder:
        with pytest.raises(ValueError, match="is being worked on by another process"):
            pack(tables)
        (folder / "index.parquet").write_bytes(b"")


def test_an_input_that_would_block_is_not_taken_for_another_process(tables):
    with pytest.raises(BlockingIOError, match="the disk"), packing.begun(tables / "shards", {}):
        raise BlockingIOError("the disk would block")


def test_shards_that_were_there_are_replaced_only_when_the_new_ones_are_whole(tables):
    before = files.sha256(pack(tables))
    kept = (tables / "pairs.parquet").read_bytes()
    (tables / "pairs.parquet").write_bytes(kept[:-100])
    with pytest.raises(ValueError, match="pairs.parquet is damaged"):
        pack(tables)
    assert files.sha256(tables / "shards") == before


def test_old_shards_that_a_kill_between_two_renames_left_hidden_come_back_and_nothing_stays_behind(tables):
    before = files.sha256(pack(tables))
    kill_after(tables, 0, SWAPPED)
    assert not (tables / "shards").exists() and hidden(tables)
    with pytest.raises(ZeroDivisionError), packing.begun(tables / "shards", {}):
        raise ZeroDivisionError  # who comes next puts them back, even if nothing new is made
    assert files.sha256(tables / "shards") == before
    kill_after(tables, 0, SWAPPED)
    assert files.sha256(pack(tables)) == before and hidden(tables) == []


def test_an_error_of_the_disk_that_may_pass_takes_no_tar_for_damaged(tables, monkeypatch, capfd):
    def fails(*_) -> None:
        raise OSError("Input/output error")

    kill_after(tables, 2)
    with monkeypatch.context() as disk, pytest.raises(OSError, match="Input/output error"):
        disk.setattr("vikdf.index.read_tar", fails)
        pack(tables)
    assert "is damaged" not in capfd.readouterr().err
    assert len(list((tables / ".shards.part").glob("*.tar"))) == 2


@pytest.mark.parametrize("name", ["captions", "pairs"])
def test_a_missing_table_is_named_with_its_cure(tables, name):
    (tables / f"{name}.parquet").unlink()
    with pytest.raises(ValueError, match=rf"{name}.parquet is missing: run `snakemake"):
        pack(tables)


def test_captions_of_an_unknown_picture_are_refused_before_anything_is_packed(tables):
    other = {"key": "b-1", "used": True, "dropped": ""}
    change(tables / "captions.parquet", schemas.CAPTIONS, lambda rows: rows + [rows[0] | other])
    with pytest.raises(ValueError, match="captions for b-1, which .*pairs.parquet does not hold"):
        pack(tables)
    assert not (tables / "shards").exists() and not list(tables.glob(".shards.part/*.tar"))


def test_tables_in_different_orders_are_refused(tables):
    change(tables / "pairs.parquet", schemas.PAIRS, lambda rows: rows[::-1])
    with pytest.raises(ValueError, match="both are to be in the same order"):
        pack(tables)


def test_no_caption_in_use_is_one_sentence(tables):
    change(
        tables / "captions.parquet",
        schemas.CAPTIONS,
        lambda rows: [row | {"used": False, "caption": " "} for row in rows],
    )
    with pytest.raises(ValueError, match="has no caption in use"):
        pack(tables)


def test_a_blank_caption_is_no_caption(tables):
    change(tables / "captions.parquet", schemas.CAPTIONS, lambda rows: [rows[0] | {"caption": " "}, *rows[1:]])
    assert Shards(pack(tables))[0]["captions"] == [f"second {key(0)}"]


def test_pictures_are_taken_one_by_one_and_never_all_at_once(tables, monkeypatch):
    """What is read ahead of what is written is one batch of the table, here of a single row."""
    batches, read = schemas.batches, []

    def one_by_one(path, schema, rows=1000):
        for batch in batches(path, schema, 1):
            read.append(path.name)
            yield batch

    monkeypatch.setattr(schemas, "batches", one_by_one)
    for number, _ in enumerate(packing.samples(tables / "captions.parquet", tables / "pairs.parquet"), 1):
        assert read.count("pairs.parquet") == number and read.count("captions.parquet") <= 4 * number + 5
    assert number == ROWS


@pytest.mark.parametrize("harm", ["a byte of a picture", "a byte of the rows", "cut", "gone", "what began it"])
def test_what_a_killed_run_left_is_taken_over_only_as_it_was_written(tables, harm, capfd):
    whole = files.sha256(pack(tables, "whole"))
    kill_after(tables, 2)
    folder = tables / ".shards.part"
    tar, rows, work = folder / "00000.tar", folder / "00000.parquet", folder / "work.json"
    path = {"a byte of the rows": rows, "what began it": work}.get(harm, tar)
    if harm == "gone":
        path.unlink()
    else:
        kept = bytearray(path.read_bytes())
        kept[700 if path == tar else len(kept) // 3] ^= 1  # of a tar: behind the first member's name
        path.write_bytes(kept[:-2000] if harm == "cut" else kept)
    assert files.sha256(pack(tables)) == whole and hidden(tables) == []
    assert ("00000.tar is damaged: it is packed again" in capfd.readouterr().err) == (path != work)
