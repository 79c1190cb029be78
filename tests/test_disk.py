"""Disks: room is asked for before a long stage; one that is full, read-only or forbidden leaves whole files and a clear end.

In: disks of some kilobytes in memory, and small pieces of each stage's work. Out: nothing.
"""

import contextlib
import errno
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import packs
import pytest
import small_disk
import torch
from test_loop import run as train

from vikdf import features, files, packing, sampling, schemas, space, state, tracking
from vikdf.baselines.parts import product
from vikdf.baselines.parts.index import Index

ROOT = Path(__file__).resolve().parent.parent


# --- asked for before


def test_folders_on_one_disk_are_asked_for_together_and_the_disk_is_named(tmp_path):
    with small_disk.mounted(tmp_path / "disk", 1 << 20) as disk:
        space.need("both", {disk / "a/b": 500_000, disk / "c": 500_000, tmp_path: 1})
        with pytest.raises(
            OSError, match=f"both take about 1.2 MB, but the disk of {disk} has 1.05 MB free: make room there"
        ):
            space.need("both", {disk / "a/b": 600_000, disk / "c": 600_000})
        space.need("what is there already", {disk: -5})


def test_a_training_is_refused_before_its_first_step_and_goes_on_with_what_is_there(tmp_path):
    with small_disk.mounted(tmp_path / "disk", 2 * small_disk.PAGE) as disk:
        (disk / "other").write_bytes(bytes(2 * small_disk.PAGE - 100))
        with pytest.raises(OSError, match="checkpoints of 20 trained numbers take about 880 B, but the disk of"):
            train(disk / "work")
        assert not (disk / "work").exists()
        small_disk.changed(disk, f"size={1 << 20}")
        train(disk / "work")


def test_shards_ask_for_the_room_of_the_pictures_that_have_a_caption(tmp_path, monkeypatch):
    packs.tables(tmp_path)
    asked = []
    monkeypatch.setattr(space, "need", lambda what, wanted: asked.append((what, *wanted.values())))
    folder = packs.pack(tmp_path)
    [(what, count)] = asked
    wanted = (tmp_path / "pairs.parquet").stat().st_size * 7 // 8  # one of the eight has none
    assert what == "the shards of 7 pictures" and wanted - 400 < count < wanted  # what tells of the work is there
    whole = sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert count < 10 * whole  # headers weigh more than pictures of a page


def test_what_is_asked_for_is_what_a_training_then_takes(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(space, "need", lambda what, wanted: asked.extend(wanted.values()))
    objective = train(tmp_path / "work", validate=lambda: 1.0, validate_every=4, checkpoint_every=4)[0]
    count = sum(value.numel() for value in objective.parameters() if value.requires_grad)
    assert asked == [count * (3 * 16 + 8)]
    tensors = [path for path in (tmp_path / "work").glob("*/*.safetensors") if path.stem != "random"]
    numbers = [value.numel() for path in tensors for value in _tensors(path).values() if value.ndim]
    assert len(numbers) > 10 and 4 * sum(numbers) == 2 * count * 16


def _tensors(path: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(path)


# --- full in the middle


def _checkpoints(folder: Path) -> None:
    train(folder / "work", steps=7, checkpoint_every=2)


def _product(folder: Path) -> None:
    import checkpoints as backbones

    (folder / "llm").mkdir(exist_ok=True)
    (folder / "llm/config.json").write_text("{}")
    words = backbones.tokenizer({"pad_token": "<pad>", "eos_token": "<end>"})
    tensors = {"a": torch.ones(50, 50)}
    with files.whole(folder / "made") as aside:  # as state.Work.finish
        product.write(aside, "some", tensors, settings={}, frozen={"llm": folder / "llm"}, tokenizer=words)


def _index(folder: Path) -> None:
    vectors = np.ones((40, 64), np.float32) + np.arange(40, dtype=np.float32)[:, None]
    Index.build([f"{number:064}" for number in range(40)], vectors).save(folder / "index")


def _table(folder: Path) -> None:
    rows = [{"name": f"{number}", "image": np.random.default_rng(number).bytes(3000)} for number in range(20)]
    with schemas.writer(folder / "pictures.parquet", schemas.PICTURES) as add:
        for row in rows:
            add([row])


def _shards(folder: Path) -> None:
    if not (folder.parent / "pairs.parquet").exists():
        packs.tables(folder.parent)
    from vikdf.shards import shards

    paths = {name: folder.parent / f"{name}.parquet" for name in ("captions", "pairs")}
    shards(rows_per_shard=2, max_shard_bytes=10**6, output=folder / "shards", **paths)


def _features(folder: Path) -> None:
    pieces = features.Pieces(folder / "captions")
    for number in range(4):
        arrays = {"tokens": torch.arange(400, dtype=torch.int32), "states": torch.full((400, 8), float(number))}
        pieces.add([f"{number}"], [400], arrays)


def _captions(folder: Path) -> None:
    (folder / "work").mkdir(exist_ok=True)
    row = {"source": "a", "origin": "web", "score": 0.5, "rank": 0, "used": False, "dropped": ""}
    for number in range(3):
        noise = np.random.default_rng(number).bytes(4000).hex()
        sampling.keep(folder / "work", number, [row | {"key": f"{number}", "caption": noise}])


def _world(folder: Path) -> None:
    files.write_json(folder / "captions.json", [f"a red kettle on the table {number}" for number in range(900)])
    files.write_checked(folder / "state.json", {"answers": ["it is blue"] * 900})


WRITERS = [_checkpoints, _product, _index, _table, _shards, _features, _captions, _world]


@pytest.mark.parametrize("share", [0.15, 0.5, 0.85])
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__.strip("_"))
def test_a_disk_that_fills_up_leaves_whole_files_and_the_same_work_ends_it_when_there_is_room(
    write, share, tmp_path, monkeypatch
):
    monkeypatch.setattr(space, "need", lambda what, wanted: None)  # room is there at first; another one takes it
    (tmp_path / "sound").mkdir()
    write(tmp_path / "sound")
    expected = small_disk.whole_files(tmp_path / "sound")
    pages = sum(-(-len(data) // small_disk.PAGE) for data in expected.values())
    with small_disk.mounted(tmp_path / "disk", max(2, int(share * pages)) * small_disk.PAGE) as disk:
        with pytest.raises(OSError) as error:
            write(disk)
        assert (
            error.value.errno == errno.ENOSPC
            or "is the disk full?" in str(error.value)
            or "written" in str(error.value)
        )
        left = small_disk.whole_files(disk)
        assert left.items() <= expected.items() or write is _checkpoints
        assert not [path for path in disk.rglob(".*.part") if path.name != ".shards.part"]
        if write is _checkpoints:
            assert state.newest(disk / "work")[0] is not None or not left
        small_disk.changed(disk, f"size={64 << 20}")
        write(disk)
        assert small_disk.whole_files(disk) == expected


def test_a_journal_on_a_full_disk_costs_its_lines_alone_and_never_the_job(tmp_path, capsys):
    with small_disk.mounted(tmp_path / "disk", 6 * small_disk.PAGE) as disk:
        with tracking.Run("pretrain", "a", {}, disk / "work", store="http://127.0.0.1:9") as run:
            (disk / "other").write_bytes(bytes(2 * small_disk.PAGE))
            for step in range(400):
                run.log(step, {"loss": 1.0})
            (disk / "other").unlink()
            small_disk.changed(disk, f"size={1 << 20}")
        assert [line["step"] for line in tracking.read(disk / "work") if "step" in line] == list(range(400))
    assert "cannot be written" in capsys.readouterr().err


@contextlib.contextmanager
def small_files():
    """No file may grow beyond 3,000 bytes: how a full disk looks where none can be mounted. Not for longer than it must: the
    tests' own log is a file too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_rusts_libraries_raise_at_a_full_disk_is_an_error_of_the_disk_that_names_the_place(tmp_path):
    import checkpoints as backbones

    words = backbones.tokenizer({"pad_token": "<pad>", "eos_token": "<end>"})
    for tensors in ({"a": torch.ones(50, 50)}, {"a": np.ones((50, 50), np.float32)}):
        with pytest.raises(OSError, match=rf"{tmp_path}/a cannot be written .*is the disk full\?"), small_files():
            files.save_tensors(tensors, tmp_path / "a")
    with pytest.raises(OSError, match=rf"{tmp_path} cannot be written .*is the disk full\?"), small_files():
        with files.saving(tmp_path):
            words.save_pretrained(tmp_path)


def test_saving_leaves_every_other_error_as_it_is(tmp_path):
    for kind in (ValueError, KeyError, OSError, RuntimeError):
        with pytest.raises(kind, match="mine"), files.saving(tmp_path):
            raise kind("mine")


# --- read-only, forbidden, elsewhere


def stage(folder: Path, output: Path) -> subprocess.CompletedProcess:
    """The stage shards as its rule calls it."""
    made = {"captions": folder / "captions.parquet", "pairs": folder / "pairs.parquet", "output": output}
    made |= {"rows-per-shard": 3, "max-shard-bytes": 10**6}
    words = [word for name, value in made.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "vikdf.shards", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("options", "cause", "cure"), [
    ("ro", "Read-only file system", "mounted read-only: mount it for writing, or name a folder on another one"),
    ("size=8192", "the shards of 7 pictures take about|No space left on device", "make room"),
])  # fmt: skip
def test_a_stage_ends_with_one_sentence_that_says_what_to_do(options, cause, cure, tmp_path):
    import re

    packs.tables(tmp_path)
    with small_disk.mounted(tmp_path / "disk", 1 << 20) as disk:
        (disk / "kept").write_text("kept")
        (disk / "other").write_bytes(bytes(4096))
        small_disk.changed(disk, options)
        done = stage(tmp_path, disk / "shards")
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert re.search(cause, done.stderr) and cure in done.stderr, done.stderr
        assert small_disk.whole_files(disk).keys() == {"kept", "other"}
        small_disk.changed(disk, "rw,size=1m")
        assert stage(tmp_path, disk / "shards").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not write")
def test_a_folder_where_this_user_may_not_write_is_named_with_what_to_do():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        (Path(folder) / "kept").write_text("kept")
        os.seteuid(65534)
        try:
            for write in (lambda path: files.write_json(path, 1), lambda path: schemas.write([], path, schemas.PAIRS)):
                with pytest.raises(PermissionError) as error:
                    write(Path(folder) / "a/made")
                assert f"{folder}/a" in str(error.value) and "ls -ld" in space.told(error.value)
        finally:
            os.seteuid(0)
        assert [path.name for path in Path(folder).iterdir()] == ["kept"]


def test_what_a_stage_keeps_and_what_it_makes_may_lie_on_other_disks_each(tmp_path):
    with (
        small_disk.mounted(tmp_path / "state", 1 << 20) as kept,
        small_disk.mounted(tmp_path / "results", 1 << 20) as made,
        state.claim(kept, "some", ["files"], {"a": 1}, {}) as work,
    ):
        for name in ("first", "second"):
            with work.finish() as aside:
                (aside / "made.txt").write_text(name)
            work.export(made / "folder")
            work.export(made / "made.txt", "made.txt")
            assert small_disk.whole_files(made) == {"folder/made.txt": name.encode(), "made.txt": name.encode()}


def test_a_link_to_another_disk_in_the_place_of_results_is_followed(tmp_path):
    with small_disk.mounted(tmp_path / "large", 1 << 20) as large:
        (tmp_path / "results").symlink_to(large)
        files.write_json(tmp_path / "results/made.json", 1)
        assert (large / "made.json").read_text() == "1\n"


def test_nothing_is_renamed_but_beside_itself_or_where_another_disk_is_thought_of():
    """os.replace fails between disks; each of these stays in one folder, or copies then."""
    known = {"files.py", "raw.py", "fetch.py", "sources.py", "sampling.py", "progress.py", "unwanted.py", "harm.py"}
    found = {
        path.name
        for path in (ROOT / "vikdf").rglob("*.py")
        if any(word in path.read_text() for word in ("os.replace(", "os.rename(", "shutil.move(", ".rename("))
    }
    assert found - known == set()


def test_packing_asks_for_what_is_missing_alone(tmp_path, monkeypatch):
    packs.tables(tmp_path)
    wanted = []
    monkeypatch.setattr(space, "need", lambda what, places: wanted.append(sum(places.values())))
    (tmp_path / "begun").mkdir()
    size = (tmp_path / "pairs.parquet").stat().st_size * 7 // 8  # of the pictures that have a caption
    (tmp_path / "begun/other").write_bytes(bytes(size))
    paths = [tmp_path / "captions.parquet", tmp_path / "pairs.parquet", tmp_path / "begun"]
    list(packing.packed(*paths, per_shard=3, max_bytes=10**6))
    assert wanted == [0]
