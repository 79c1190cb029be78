"""`vikdf verify`: every file that a tree keeps is looked at; `--mend` takes away what is harmed and nothing else."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import packs
import pytest
from test_seals import flip, make, read, tree  # noqa: F401 - a fixture

from vikdf import cli, files, seals, state, tracking, turns, verify
from vikdf.flags import printable
from vikdf.shards import shards


def said(capsys, *words: str) -> str:
    """What `vikdf verify` refuses to call whole."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["verify", *words])
    assert stop.value.code == 1
    return capsys.readouterr().err


def mended(capsys) -> str:
    """What `--mend` did; afterwards all is whole."""
    cli.main(["verify", "--mend"])
    told = capsys.readouterr().out
    seals._compared.clear()
    return told


def work(stage: str, name: str, finished: bool = True) -> Path:
    """A piece of work with its journal."""
    with state.claim(Path("state"), stage, ["files"], {"name": name}, {}) as begun:
        begun.checkpoints.mkdir()
        with begun.tracked(name, {}, {}) as journal:
            journal.log(1, {"loss": 0.5})
        if finished:
            with begun.finish() as product:
                (product / "weights").write_text("weights")
    return begun.folder


@pytest.fixture
def kept(tree, monkeypatch):  # noqa: F811
    """A tree with a bit of all that is kept in one."""
    monkeypatch.setattr(tracking, "try_send", lambda *_, **__: True)
    make(Path("results/table.csv"), "a,b\n1,2\n")
    make(Path("results/model"), "one", "two")
    tables = Path("data/sources")
    with seals.guarded({"output": tables}):
        for name in ("coco.parquet", "failures.txt"):
            with files.whole(tables / name) as aside:
                aside.write_text(name)
        digest = files.sha256(tables / "coco.parquet")
        files.write_json(tables / "manifest.json", {"sources": {"coco": {"rows": 1, "sha256": digest}}})
    work("pretrain", "done")
    half = work("pretrain", "half", finished=False)
    checkpoint = half / "checkpoints/00000008"
    checkpoint.mkdir()
    (checkpoint / "weights.safetensors").write_bytes(b"moments")
    files.write_checked(checkpoint / "state.json", {"step": 8, "sha256": {
        "weights.safetensors": files.sha256(checkpoint / "weights.safetensors")}})  # fmt: skip
    pieces = work("caption", "half", finished=False) / "checkpoints"
    (pieces / "rows").write_text("rows")
    (pieces / "rows").rename(pieces / f"000000-{files.sha256(pieces / 'rows')[:16]}.parquet")
    files.write_checked(work("generate", "half", finished=False) / "checkpoints/000000.json", {"answers": []})
    files.write_checked(Path("state/answers/0123456789abcdef/aa/aabb.json"), {"answer": "yes"})
    files.write_checked(half / "mlflow.json", {"store": "http://127.0.0.1:5000", "run": "0123"})
    return tree


def found(pattern: str) -> Path:
    [path] = Path().glob(pattern)
    return path


def test_what_is_whole_is_called_so_with_how_much_was_looked_at(kept, capsys):
    cli.main(["verify"])
    told = capsys.readouterr().out
    assert "1 manifests, 5 seals, 4 pieces of work, 1 answers, 4 journals below data, results, state" in told


HARMED = {  # what is flipped -> what is named, what goes
    "results/table.csv": ("results/table.csv", "results/table.csv"),
    "results/model/0.txt": ("results/model/0.txt", "results/model"),
    "data/sources/coco.parquet": ("data/sources/coco.parquet", "data/sources/coco.parquet"),
    "data/sources/failures.txt": ("data/sources/failures.txt", "data/sources/failures.txt"),
    "data/sources/manifest.json": ("data/sources/manifest.json", "data/sources/manifest.json"),
    "state/pretrain/*/product/weights": ("product", "state/pretrain/*/product"),
    "state/pretrain/*/product.json": ("product.json", "state/pretrain/*/product.json"),
    "state/pretrain/*/checkpoints/*/weights.safetensors": ("weights.safetensors", "state/pretrain/*/checkpoints/0*"),
    "state/pretrain/*/checkpoints/*/state.json": ("state.json", "state/pretrain/*/checkpoints/0*"),
    "state/caption/*/checkpoints/0*.parquet": ("checkpoints/000000-", "state/caption/*/checkpoints/0*"),
    "state/caption/*/work.json": ("work.json", "state/caption/*/work.json"),
    "state/generate/*/checkpoints/000000.json": ("000000.json", "state/generate/*/checkpoints/0*"),
    "state/pretrain/*/mlflow.json": ("mlflow.json", "state/pretrain/*/mlflow.json"),
    "state/answers/*/*/*.json": ("aabb.json", "state/answers/*/*/*.json"),
}


@pytest.mark.parametrize("pattern", HARMED)
def test_one_flipped_bit_anywhere_is_named_and_mended_and_nothing_else_is_touched(kept, capsys, pattern):
    named, goes = HARMED[pattern]
    flip(found(pattern))
    before = {path for path in Path().rglob("*") if path.is_file() and "seals" not in path.parts}
    told = said(capsys)
    assert named in told and "cure: `vikdf recover`" in told and told.count("\n  ") <= 3
    assert {path for path in Path().rglob("*") if path.is_file() and "seals" not in path.parts} == before
    gone = {path for whole in Path().glob(goes) for path in [whole, *whole.rglob("*")]}
    assert "taken away: " in mended(capsys)
    after = {path for path in Path().rglob("*") if path.is_file() and "seals" not in path.parts}
    allowed = {"manifest.json", "product.json", "at_work"}  # they said: complete; and whose turn it was
    assert not {path for path in before ^ after - gone if path not in gone and path.name not in allowed}
    assert not list(Path().glob(goes))
    cli.main(["verify"])


def test_a_file_that_a_manifest_of_dialogues_names_beside_its_tasks_is_looked_at(kept, capsys):
    folder = Path("data/dialogues")
    files.write_json(folder / "manifest.json", {"tasks": {}, "pictures.parquet": {"bytes": 1, "sha256": "0"}})
    assert "data/dialogues/pictures.parquet is missing" in said(capsys)


def test_what_is_sealed_and_missing_is_named_and_forgotten_by_mending(kept, capsys):
    Path("results/table.csv").unlink()
    assert "results/table.csv is missing" in said(capsys)
    mended(capsys)
    assert seals.sealed("results/table.csv") is None


def test_of_what_is_missing_the_manifest_goes_too_so_that_its_step_makes_all_of_it_again(kept, capsys):
    folder = Path("data/dialogues")
    with seals.guarded({"output": folder}):
        with files.whole(folder / "pictures.parquet") as aside:
            aside.write_text("pictures")
        digest = files.sha256(folder / "pictures.parquet")
        files.write_json(folder / "manifest.json", {"pictures.parquet": {"bytes": 8, "sha256": digest}})
    (folder / "pictures.parquet").unlink()
    assert "data/dialogues/pictures.parquet is missing" in said(capsys)
    mended(capsys)
    assert not (folder / "manifest.json").exists()
    cli.main(["verify"])


def test_finished_work_without_its_product_is_told_as_missing(kept, capsys):
    product = found("state/pretrain/*/product")
    shutil.rmtree(product)
    assert f"{product} is missing" in said(capsys)


def test_what_a_job_of_a_killed_run_puts_there_while_mending_waits_is_no_loss(kept, capsys, monkeypatch):
    look, alone = verify.look, []
    monkeypatch.setattr(verify, "look", lambda where: alone.append(files.holder(turns.LOCK)) or look(where))
    monkeypatch.setattr(turns, "EVERY", 0.1)
    Path("results/table.csv").rename("aside")
    puts = "import os, time; time.sleep(2); os.rename('aside', 'results/table.csv')"
    job = subprocess.Popen([sys.executable, "-c", puts, "-m", "vikdf.tables"])
    try:
        assert "every file is whole" in mended(capsys)
        assert job.wait() == 0 and seals.sealed("results/table.csv") and all(alone)
    finally:
        job.kill()


def test_of_a_harmed_seal_the_product_is_sealed_anew(kept, capsys):
    flip(seals.kept(Path("results/table.csv")))
    assert "state/seals/results/table.csv.json is" in said(capsys)
    assert "sealed as it is now: results/table.csv" in mended(capsys)
    assert Path("results/table.csv").exists()
    flip(Path("results/table.csv"))
    with pytest.raises(ValueError, match="has changed"):
        read(table=Path("results/table.csv"))


def test_a_change_on_purpose_is_sealed_by_name(kept, capsys):
    Path("results/table.csv").write_text("a,b\n5,6\n")
    with pytest.raises(ValueError, match="`vikdf verify --seal results/table.csv` and repeat"):
        read(table=Path("results/table.csv"))
    cli.main(["verify", "--seal", "results/table.csv"])
    read(table=Path("results/table.csv"))
    assert "nothing of data/raw is sealed" in said(capsys, "--seal", "data/raw")


def test_a_folder_that_was_copied_here_is_named_and_never_taken_away(kept, tmp_path_factory, capsys):
    copied = tmp_path_factory.mktemp("copied")
    (copied / "coco.parquet").write_text("rows")
    files.write_json(copied / "manifest.json", {"sha256": {"coco.parquet": "0"}})
    assert f"{copied / 'coco.parquet'} has changed" in said(capsys, "--mend", str(copied))
    assert (copied / "coco.parquet").exists() and (copied / "manifest.json").exists()


def test_what_is_being_worked_on_is_left_alone(kept, capsys):
    folder = found("state/generate/*")
    flip(folder / "checkpoints/000000.json")
    with files.alone(folder / "lock", "it"):
        cli.main(["verify"])
    assert f"{folder} is being worked on" in capsys.readouterr().err
    with files.alone(turns.LOCK, "it"):
        assert "is being worked on by another process" in said(capsys, "--mend")
    assert (folder / "checkpoints/000000.json").exists()


def test_a_journal_that_no_longer_tells_its_run_is_moved_aside_and_a_line_that_was_cut_is_none(kept, capsys):
    path = found("state/pretrain/*/product.json").with_name(tracking.JOURNAL)
    path.write_text(path.read_text() + '{"step": 3, "ti')
    cli.main(["verify"])
    path.write_text("\n".join(path.read_text().splitlines()[1:]))
    assert f"{path} no longer tells of which run it is" in said(capsys)
    points = path.read_bytes()
    assert f"{path} is {path}.harmed now, its points stay in there" in mended(capsys)
    assert not path.exists() and Path(f"{path}.harmed").read_bytes() == points
    cli.main(["verify"])


def test_a_journal_of_half_done_work_is_left_to_the_run_that_goes_on(kept, capsys):
    path = found("state/caption/*/journal.jsonl")
    path.write_text("\n".join(path.read_text().splitlines()[1:]) + "\n")
    points = path.read_bytes()
    mended(capsys)
    assert path.read_bytes() == points
    with tracking.Run("caption", "half", {}, path.parent, start=2):
        pass
    assert [line["step"] for line in tracking.read(path.parent) if "step" in line] == [1]
    assert tracking.read(path.parent)[0]["name"] == "half"


def test_a_harmed_store_is_moved_aside(kept, capsys):
    with sqlite3.connect("mlflow.db") as store:
        store.execute("create table runs (name text)")
        store.executemany("insert into runs values (?)", [(f"run {number}" * 50,) for number in range(200)])
    cli.main(["verify"])
    data = bytearray(Path("mlflow.db").read_bytes())
    data[4096:8192] = bytes(4096)
    Path("mlflow.db").write_bytes(data)
    assert "mlflow.db is damaged" in said(capsys)
    assert "mlflow.db.harmed" in mended(capsys)
    assert not Path("mlflow.db").exists() and Path("mlflow.db.harmed").read_bytes() == bytes(data)


def test_features_are_looked_at_piece_by_piece(kept, capsys):
    import torch

    from vikdf import features

    folder = Path("state/features/0123456789abcdef")
    pieces = features.Pieces(folder / "pictures")
    for key in ("a", "b"):
        pieces.add([key], [1], {"states": torch.zeros(1, 2)})
    files.write_checked(folder / "encoder.json", {})
    files.write_checked(folder / "product.json", {"pictures": 2, "captions": 0, "bytes": 0})
    cli.main(["verify"])
    harmed = next(folder.glob("pictures/*/states.npy"))
    flip(harmed)
    (folder / "encoder.json").write_text('{"another": "encoder"}')
    told = said(capsys)
    assert str(harmed.parent) in told and "encoder.json is damaged" in told
    mended(capsys)
    assert len(list(folder.glob("pictures/*"))) == 1


def test_strangers_words_in_a_manifest_cannot_move_the_terminal(kept, capsys):
    files.write_json(Path("data/other/manifest.json"), {"sha256": {"\x1b[2J.txt": "0"}})
    told = said(capsys)
    assert "\x1b" not in told and printable("\x1b[2J.txt") in told


def test_what_mending_tells_of_a_stranger_name_cannot_move_the_terminal_either(kept, capsys):
    make(Path("results/\x1b[2J.txt"), "text")
    flip(Path("results/\x1b[2J.txt"))
    told = mended(capsys)
    assert "\x1b" not in told and printable("\x1b[2J.txt has changed") in told


def test_a_harmed_product_of_work_is_copied_back_from_where_it_was_exported_to(kept, capsys):
    folder, copy = found("state/pretrain/*/product").parent, Path("results/pretrain/done")
    with seals.guarded({"output": copy}), files.whole(copy) as aside:
        shutil.copytree(folder / "product", aside)
    (copy / ".snakemake_timestamp").touch()
    flip(folder / "product/weights")
    assert f"{folder / 'product'} has changed" in said(capsys)
    assert f"copied back from {copy}" in mended(capsys)
    assert (folder / "product/weights").read_text() == "weights" and (folder / "product.json").exists()
    cli.main(["verify"])


@pytest.mark.parametrize("part", ["header", "manifest"])
def test_shards_of_a_run_are_taken_away_where_they_are_harmed_a_header_that_no_reader_reads_too(kept, capsys, part):
    given = {name: packs.tables(kept) / f"{name}.parquet" for name in ("captions", "pairs")}
    output = Path("data/shards")
    with seals.guarded({"output": output}):
        shards(rows_per_shard=3, max_shard_bytes=10**9, **given, output=output)
    read(shards=[output])
    harmed = output / ("00001.tar" if part == "header" else "manifest.json")
    data = bytearray(harmed.read_bytes())
    place = data.index(b"ustar") if part == "header" else data.index(b'"rows"') + 1
    data[place] ^= 1
    harmed.write_bytes(data)
    assert f"{harmed} " in said(capsys, "data/shards")
    assert "taken away: " in mended(capsys)
    assert not harmed.exists() and not (output / "manifest.json").exists() and (output / "00000.tar").exists()
    assert seals.sealed(output) is None
