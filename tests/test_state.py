"""Resumable work: done once, exported again at no cost, redone or refused when the code has changed."""

import pytest

from vikdf import files, kept, state, tracking


@pytest.fixture
def claim(tmp_path, monkeypatch):
    """claim(code=..., **params): the work of a stage whose only input is a file, under a code digest of our choice."""
    (tmp_path / "input.txt").write_text("input")

    def claimed(code="code", **params):
        monkeypatch.setattr(state, "code_digest", lambda modules: code)
        return state.claim(tmp_path / "state", "stage", ["stage"], params, {"input": tmp_path / "input.txt"})

    return claimed


def finish(claim, text="product", **arguments):
    with claim(**arguments) as work:
        assert not work.finished
        with work.finish() as product:
            (product / "model.txt").write_text(text)
    return work


def test_finished_work_is_exported_not_repeated(claim, tmp_path):
    finish(claim, steps=5)
    with claim(steps=5) as work:
        assert work.finished
        work.export(tmp_path / "results")
        work.export(tmp_path / "one.txt", "model.txt")
    assert (tmp_path / "results/model.txt").read_text() == (tmp_path / "one.txt").read_text() == "product"


def test_other_params_or_other_inputs_are_other_work(claim, tmp_path):
    first = finish(claim, steps=5)
    with claim(steps=6) as work:
        assert not work.finished and work.folder != first.folder
    (tmp_path / "input.txt").write_text("changed")
    with claim(steps=5) as work:
        assert not work.finished and work.folder != first.folder


def test_finished_work_of_other_code_is_done_again(claim, capfd):
    finish(claim)
    with claim(code="changed") as work:
        assert not work.finished and not work.product.exists()
    assert "was finished by other code: it is done again" in capfd.readouterr().err


def test_unfinished_work_of_other_code_is_refused_until_someone_says_so(claim):
    with claim() as work:
        work.checkpoints.mkdir()
    with pytest.raises(ValueError, match=f"`vikdf state --go-on {work.folder}`"), claim(code="changed"):
        pass
    kept.go_on(work.folder)  # records the code digest as it is now: "changed"
    with claim(code="changed") as again:
        assert again.folder == work.folder and again.checkpoints.exists()


def test_work_without_a_checkpoint_has_nothing_to_lose(claim):
    with claim():
        pass
    with claim(code="changed") as work:
        assert not work.finished


def test_a_damaged_product_is_made_again(claim, capfd):
    work = finish(claim)
    (work.product / "model.txt").write_text("produce")
    with claim() as work:
        assert not work.finished
    assert "has a damaged product: it is made again" in capfd.readouterr().err


HARMS = {
    "a flipped bit": lambda path: path.write_bytes(path.read_bytes().replace(b'"code', b'"cnde', 1)),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
    "no text": lambda path: path.write_bytes(b"\xff" * 40),
    "another form": lambda path: path.write_text("[7]"),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("harm", HARMS)
def test_unfinished_work_goes_on_though_what_tells_of_it_is_harmed(claim, harm):
    with claim() as work:
        work.checkpoints.mkdir()
    HARMS[harm](work.folder / "work.json")
    with claim() as again:
        assert again.checkpoints.exists() and not again.finished
    HARMS[harm](work.folder / "work.json")
    with pytest.raises(ValueError, match="unfinished work that other code began"), claim(code="changed"):
        pass


@pytest.mark.parametrize("harm", HARMS)
def test_unfinished_work_of_which_nothing_tells_any_more_is_begun_anew_with_a_word(claim, harm, capfd):
    with claim() as work:
        work.checkpoints.mkdir()
    for name in state.WORK:
        HARMS[harm](work.folder / name)
    with claim() as again:
        assert not again.checkpoints.exists()
    assert "does not tell any more what began it: it is begun anew" in capfd.readouterr().err


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["product.json", "product/model.txt"])
def test_a_product_that_is_harmed_or_of_which_nothing_tells_is_made_again(claim, tmp_path, name, harm):
    work = finish(claim, '"code of a model, and some more"')
    HARMS[harm](work.folder / name)
    finish(claim, "again")
    with claim() as made:
        assert made.finished
        made.export(tmp_path / "out", "model.txt")
    assert (tmp_path / "out").read_text() == "again"


@pytest.mark.parametrize("name", state.WORK)
def test_a_finished_product_does_not_depend_on_what_began_it(claim, name):
    work = finish(claim)
    (work.folder / name).write_bytes(b"harmed")
    with claim() as again:
        assert again.finished


def test_a_run_goes_on_in_its_journal_where_the_newest_whole_checkpoint_stands(claim, monkeypatch):
    monkeypatch.setattr("vikdf.tracking.Run._send", lambda self: None)
    with claim() as work:
        for step in (2, 4):
            files.write_checked(work.checkpoints / f"{step:08d}/state.json", {"step": step, "sha256": {}})
        with work.tracked("name", {}, {}) as run:
            for step in range(1, 6):
                run.log(step, {"loss": step})
    (work.checkpoints / "00000004/state.json").write_bytes(b"harmed")
    with claim() as work, work.tracked("name", {}, {}) as run:
        run.log(3, {"loss": 3})
    lines = tracking.read(work.folder)
    assert [line["step"] for line in lines if "step" in line] == [1, 2, 3]


def test_checkpoints_go_when_the_product_is_there(claim):
    with claim() as work:
        work.checkpoints.mkdir()
        with work.finish() as product:
            (product / "model.txt").write_text("product")
    assert not work.checkpoints.exists()


def test_checkpoints_that_a_kill_left_beside_a_finished_product_go_when_it_is_claimed_again(claim):
    work = finish(claim)
    work.checkpoints.mkdir()
    (work.checkpoints / "000001").write_text("left")
    with claim() as again:
        assert again.finished and not again.checkpoints.exists()


def test_a_second_process_on_the_same_work_is_refused(claim):
    with claim(), pytest.raises(ValueError, match="is being worked on by another process"), claim():
        pass


def test_a_folders_manifest_stands_for_the_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/part.bin").write_text("part")
    assert state.digest_of(tmp_path / "a") == files.sha256(tmp_path / "a")
    files.write_json(tmp_path / "a/manifest.json", {"part.bin": "digest"})
    assert state.digest_of(tmp_path / "a") == files.sha256(tmp_path / "a/manifest.json")


PLAIN = "def f(x):\n    return x + 1\n"
SHOWING = '''"""A docstring."""
from vikdf import tracking


def f(x):
    """What f does."""
    with tracking.Run("stage", "name"):  # a comment
        tracking.close_dead(x)
    bar.update(1)
    return x + 1
'''


def test_docstrings_comments_tracking_and_progress_are_no_change_of_code():
    with_block = PLAIN.replace("    return", "    with None:\n        pass\n    return")
    assert state.bare('"""Other words."""\n' + PLAIN.replace("1", "1  # why")) == state.bare(PLAIN)
    assert "update" not in state.bare(SHOWING) and "tracking" not in state.bare(SHOWING)
    assert state.bare(with_block) != state.bare(PLAIN)


def test_another_number_is_a_change_of_code():
    assert state.bare(PLAIN) != state.bare(PLAIN.replace("1", "2"))


def test_the_code_of_a_stage_includes_what_it_imports(tmp_path):
    package = tmp_path / "vikdf"
    package.mkdir()
    for name, text in {"__init__": "", "a": "from vikdf import b\n", "b": "x = 1\n", "c": "y = 1\n"}.items():
        (package / f"{name}.py").write_text(text)
    first = state.code_digest(["a"], tmp_path)
    (package / "c.py").write_text("y = 2\n")
    assert state.code_digest(["a"], tmp_path) == first
    (package / "b.py").write_text("x = 2\n")
    state.code.__globals__["_imports"].cache_clear()
    assert state.code_digest(["a"], tmp_path) != first
