"""vikdf/seals.py: what a stage made is sealed, and compared when a later stage reads it."""

import os
from pathlib import Path

import pytest

from vikdf import files, seals, state


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """An empty tree, as the working folder."""
    (tmp_path / "Snakefile").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(seals, "_compared", set())
    return tmp_path


def make(output: Path, *said: str) -> None:
    """A stage that makes a file, or a folder of files."""
    with seals.guarded({"output": output}), files.whole(output) as aside:
        if len(said) == 1:
            aside.write_text(said[0])
        else:
            aside.mkdir()
            for number, text in enumerate(said):
                (aside / f"{number}.txt").write_text(text)


def read(**values) -> None:
    """A stage that makes nothing; what other processes compared is not known to it."""
    seals._compared.clear()
    with seals.guarded(values):
        pass


def flip(path: Path) -> None:
    """Changes one bit, and leaves the times as they were."""
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_flipped_bit_is_named_with_its_cure_before_a_stage_reads_the_product(tree):
    make(Path("results/table.csv"), "a,b\n1,2\n")
    read(table=Path("results/table.csv"))
    flip(Path("results/table.csv"))
    with pytest.raises(ValueError, match=r"^results/table.csv has changed since it was made: `vikdf recover` takes"):
        read(table=Path("results/table.csv"))


def test_of_a_folder_each_harmed_file_is_named(tree):
    make(Path("results/model"), "one", "two", "three")
    flip(Path("results/model/0.txt"))
    Path("results/model/1.txt").unlink()
    Path("results/model/new.txt").touch()
    with pytest.raises(ValueError) as error:
        read(start=[Path("results/model")])
    assert "results/model/0.txt has changed since" in str(error.value)
    assert "results/model/1.txt is missing" in str(error.value)
    assert "results/model/new.txt was not there when it was made" in str(error.value)


def test_a_file_in_a_sealed_folder_is_compared_with_the_folder(tree):
    make(Path("results/model"), "one", "two")
    flip(Path("results/model/0.txt"))
    with pytest.raises(ValueError, match="results/model/0.txt has changed"):
        read(curves=[Path("results/model/0.txt")])


def test_snakemakes_time_stamp_is_no_change(tree):
    make(Path("results/model"), "one", "two")
    Path("results/model/.snakemake_timestamp").touch()
    read(start=Path("results/model"))


@pytest.mark.parametrize("values", [
    {"corpora": {"mine": {"list": "data/list.tsv"}}},
    {"paths": ["other", "data/list.tsv"]},
    {"path": Path("data/list.tsv").absolute},
    {"path": Path("data/../data/list.tsv")},
])  # fmt: skip
def test_a_path_is_found_wherever_it_stands_among_the_arguments(tree, values):
    make(Path("data/list.tsv"), "url\tcaption\n")
    flip(Path("data/list.tsv"))
    with pytest.raises(ValueError, match="data/list.tsv has changed"):
        read(**{name: value() if callable(value) else value for name, value in values.items()})


@pytest.mark.parametrize("text", ["", "\0", "x" * 5000, "../..", "a\nb", "🙂", "/", "."])
def test_any_text_among_the_arguments_is_no_path_and_no_fault(tree, text):
    make(Path("data/list.tsv"), "url\tcaption\n")
    read(entry={"instruction": text, "count": 3, "none": None, "parts": [text, 0.5]})


def test_what_a_stage_makes_is_not_compared_and_is_sealed_anew(tree):
    make(Path("results/table.csv"), "a,b\n1,2\n")
    flip(Path("results/table.csv"))
    make(Path("results/table.csv"), "a,b\n3,4\n")
    read(table=Path("results/table.csv"))


def test_to_go_back_to_an_older_product_is_no_damage(tree):
    for text in ("one", "two", "three"):
        make(Path("results/table.csv"), text)
    for text in ("one", "three", "two"):
        Path("results/table.csv").write_text(text)
        read(table=Path("results/table.csv"))
    Path("results/table.csv").write_text("four")
    with pytest.raises(ValueError, match="has changed"):
        read(table=Path("results/table.csv"))


def test_a_stage_that_fails_seals_nothing(tree):
    with pytest.raises(ZeroDivisionError), seals.guarded({"output": Path("results")}):
        with files.whole(Path("results/table.csv")) as aside:
            aside.write_text("half of it")
        raise ZeroDivisionError
    assert seals.sealed("results/table.csv") is None


def test_only_what_lies_at_an_output_is_sealed(tree):
    with seals.guarded({"output_examples": Path("results/examples.csv"), "path": Path("data/raw/list.tsv")}):
        for path in ("results/examples.csv", "data/raw/list.tsv", "state/tables/journal.jsonl", "results/other.csv"):
            with files.whole(Path(path)) as aside:
                aside.write_text(path)
    assert seals.units(Path("results")) == [Path("results/examples.csv")]
    assert seals.units(Path("data")) == seals.units(Path("state")) == []


def test_nothing_is_sealed_outside_of_a_tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(Path("results/table.csv"), "one")
    (tmp_path / "Snakefile").touch()
    make(tmp_path.parent / f"{tmp_path.name}-outside.csv", "one")
    assert not (tmp_path / "state").exists()


def test_of_shards_the_manifest_alone_is_sealed(tree):
    folder = Path("data/shards")
    with seals.guarded({"output": folder}), files.whole(folder) as aside:
        aside.mkdir()
        for name in ("00000.tar", "index.parquet", "manifest.json"):
            (aside / name).write_text(name)
    flip(folder / "00000.tar")
    (folder / "index.parquet").unlink()
    read(shards=[folder])  # vikdf.samples compares each sample that it reads, and the index as it opens it
    flip(folder / "manifest.json")
    with pytest.raises(ValueError, match="data/shards/manifest.json has changed"):
        read(shards=[folder])


def test_what_is_written_into_a_sealed_folder_is_sealed_with_it(tree):
    make(Path("data/shards"), "one", "two")
    make(Path("data/shards/0.txt"), "another")
    assert seals.units(Path("data")) == [Path("data/shards")]
    read(shards=Path("data/shards"))


def test_a_folder_that_was_files_before_is_one_product(tree):
    for name in ("0", "1"):
        make(Path(f"data/caption/{name}.txt"), name)
    make(Path("data/caption"), "one", "two")
    assert seals.units(Path("data")) == [Path("data/caption")]
    read(captions=Path("data/caption/0.txt"))


def test_a_harmed_seal_is_named_too(tree):
    make(Path("results/table.csv"), "one")
    flip(seals.kept(Path("results/table.csv")))
    with pytest.raises(ValueError, match=r"state/seals/results/table.csv.json is (damaged|not valid JSON)"):
        read(table=Path("results/table.csv"))


def test_the_inputs_of_a_piece_of_work_are_compared_wherever_they_lie(tree):
    """Backbones are named by the folder of all of them: the work says which it reads."""
    make(Path("data/backbones/llm"), "one", "two")
    read(backbones=Path("data/backbones"))
    flip(Path("data/backbones/llm/1.txt"))
    read(backbones=Path("data/backbones"))
    work = state.claim(Path("state"), "finetune", ["files"], {}, {"llm": Path("data/backbones/llm")})
    with pytest.raises(ValueError, match="data/backbones/llm/1.txt has changed"), work:
        pass


def test_of_several_processes_one_compares(tree, monkeypatch):
    make(Path("results/table.csv"), "one")
    flip(Path("results/table.csv"))
    monkeypatch.setenv("RANK", "1")
    read(table=Path("results/table.csv"))
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="has changed"):
        read(table=Path("results/table.csv"))


def test_a_model_that_a_person_asks_is_compared_too(tree):
    from vikdf.model import checkpoint

    make(Path("results/finetune/vikdf-zero-s1"), "one", "two")
    files.write_json(Path("results/finetune/vikdf-zero-s1/config.json"), {})
    with pytest.raises(ValueError, match="config.json was not there when it was made: `vikdf recover`"):
        checkpoint.read_config(Path("results/finetune/vikdf-zero-s1"))
