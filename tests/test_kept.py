"""`vikdf state`: what work is kept, what a piece of it is, and what may go; never what anyone works on."""

import json
import os
import re
import time

import held
import pytest

from vikdf import cli, files, kept, state, tracking, turns, unwanted

CLAIM = "from vikdf import state; state.code_digest = lambda modules: 'code'; "
CLAIM += "hold(state.claim(root, 'finetune', ['finetune'], {'seed': 1}, {'start': given}))"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "start.txt").write_text("start")
    return tmp_path / "state"


@pytest.fixture
def claim(root, monkeypatch):
    """claim(stage, code=..., **params): a piece of work whose only input is start.txt."""

    def claimed(stage="finetune", code="code", **params):
        kept.code.cache_clear()
        monkeypatch.setattr(state, "code_digest", lambda modules: code)
        return state.claim(root, stage, [stage], params, {"start": root.parent / "start.txt"})

    return claimed


@pytest.fixture
def done(claim):
    """done(name, age=hours, finished=..., **as claim): work with the journal of a run of that name, which MLflow has."""

    def made(name="vikdf-zero-s1", age=1, finished=True, stage="finetune", **more):
        with claim(stage, **more) as work:
            head = {
                "stage": stage,
                "name": f"{stage}-{name}",
                "time": 1,
                "params": {},
                "data": {},
                "tags": {"stage": stage},
            }
            lines = [head, {"step": 7, "time": 2, "values": {"nll": 1.0}}, {"end": "FINISHED", "time": 3}]
            (work.folder / tracking.JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
            files.write_checked(work.folder / "mlflow.json", {"ended": True, "last": {}, "lines": 3})
            work.checkpoints.mkdir(exist_ok=True)
            if finished:
                with work.finish() as product:
                    (product / "model.txt").write_text("product")
        _asked(work.folder, age)
        return work.folder

    return made


def _asked(folder, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(folder / "lock", (then, then))


def vikdf_state(capsys, root, *words: str) -> str:
    cli.main(["state", str(root), *words])
    return capsys.readouterr().out


def cleaned(root, *words: str) -> str:
    return unwanted.clean(root, root.parent / "backbones", [root.parent / "results"], "--yes" in words)


def test_a_line_a_piece_of_work_says_what_it_is_how_far_it_is_how_large_and_how_old(root, done, capsys):
    done("vikdf-zero-s1", age=50, seed=1)
    done("vikdf-full-s1", finished=False, seed=2)
    files.write_json(root / "evaluate/vikdf-zero-s1/journal.json", {})  # no work, only what MLflow shows of a job
    lines = vikdf_state(capsys, root).splitlines()
    assert re.fullmatch(
        rf"half done +0\.0 MB +1 hour ago +finetune +vikdf-full-s1 +{root}/finetune/[0-9a-f]{{16}}", lines[0]
    )
    assert re.match(r"finished +0\.0 MB +2 days ago +finetune +vikdf-zero-s1 ", lines[1])
    assert lines[2].startswith("2 pieces of work, 0.0 MB") and len(lines) == 3


def test_work_without_a_run_is_named_after_what_it_was_made_of_and_what_came_from_elsewhere_after_that(root, claim):
    with claim("sources"):
        pass
    for stage, about, rest in (
        ("answers", {"url": "https://host/v1", "model": "any"}, ""),
        ("raw", {"url": "https://host/cc3m.tsv"}, "part"),
        ("raw", {"url": "https://host/coco.zip"}, "whole"),
    ):
        folder = root / stage / files.digest(about)[:16]
        files.write_json(folder / "about.json", about)
        (folder / (rest or "lock")).write_text("")
    files.write_checked(root / "features/0123456789abcdef/product.json", {"pictures": 12, "captions": 30, "bytes": 1})
    assert sorted((one.stage, one.names, one.status) for one in kept.pieces(root)) == [
        ("answers", ("any",), "finished"), ("features", ("12 pictures, 30 captions",), "finished"),
        ("raw", ("https://host/cc3m.tsv",), "half done"), ("raw", ("https://host/coco.zip",), "finished"),
        ("sources", ("start",), "half done"),
    ]  # fmt: skip


def test_no_work_is_one_sentence(root, capsys):
    assert vikdf_state(capsys, root) == f"no work is kept in {root}\n"


def test_work_is_explained_with_its_params_its_inputs_its_code_and_its_last_step(root, done):
    folder = done(seed=1, entry={"lora": False})
    text = kept.explain(folder)
    assert f"{folder}: finetune vikdf-zero-s1, finished, 0.0 MB, last asked for 1 hour ago\n" in text
    assert f"input start: {root.parent}/start.txt is the same\n" in text and "code: the same\n" in text
    assert "journal: last step 7, FINISHED\n" in text and "\n  entry.lora: False\n  seed: 1\n" in text.replace(
        ": 0", ""
    )
    assert text.endswith("the next run: takes the product as it is")


def test_an_input_that_changed_and_one_that_is_gone_are_named(root, done):
    folder = done(seed=1)
    (root.parent / "start.txt").write_text("other")
    assert "start.txt has changed\n" in kept.explain(folder) and "is other work, since start changed" in kept.explain(
        folder
    )
    (root.parent / "start.txt").rename(folder / "moved.txt")
    assert "start.txt is not there\n" in kept.explain(folder)
    (folder / "moved.txt").write_text("start")
    assert f"is the same, and lies at {folder}/moved.txt\n" in kept.explain(folder)


@pytest.mark.parametrize(("finished", "code", "said"), [
    (True, "changed", "does it again, since the code has changed"), (False, "code", "goes on"),
    (False, "changed", "is refused, since the code has changed, until you say `vikdf state --go-on {folder}` or delete"),
])  # fmt: skip
def test_what_the_next_run_does_is_told(done, claim, finished, code, said):
    folder = done(finished=finished, seed=1)
    claim(code=code)
    assert f"the next run: {said.format(folder=folder)}" in kept.explain(folder)


def test_who_works_on_it_is_told_with_the_number_of_the_process(root):
    with held.process(CLAIM, root=root, given=root.parent / "start.txt") as other:
        [one] = kept.pieces(root)
        assert one.status == "being worked on"
        assert f"is held by another process ({other.pid})" in kept.explain(one.folder)
        other.kill()
        other.wait()
        assert [one.status for one in kept.pieces(root)] == ["half done"] and "is held" not in kept.explain(one.folder)


@pytest.mark.parametrize("does", [kept.explain, kept.go_on])
def test_a_folder_that_is_no_work_is_one_sentence(root, tmp_path, does):
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(ValueError, match="no work: expected a folder that `vikdf state` lists"):
            does(folder)
    assert not (tmp_path / "none").exists()


def test_only_unfinished_work_that_nobody_works_on_goes_on_under_other_code(root, done, claim):
    with pytest.raises(ValueError, match="is finished: there is nothing to go on with"):
        kept.go_on(done(seed=1))
    folder = done(finished=False, seed=2)
    with claim(seed=2), pytest.raises(ValueError, match="is being worked on by another process"):
        kept.go_on(folder)
    assert "repeat the command" in kept.go_on(folder)


def test_a_dry_run_says_what_would_go_and_deletes_nothing(root, done, capsys):
    old, new = done(age=5, steps=1), done(age=1, steps=2)
    text = vikdf_state(capsys, root, "--clean")
    assert f"vikdf-zero-s1: {new.name} was finished later under the same name; {old}\n" in text
    assert "1 folders, 0.0 MB would go; nothing was deleted: `vikdf state --clean --yes` does it" in text
    assert old.exists() and new.exists()
    assert "1 folders, 0.0 MB went" in vikdf_state(capsys, root, "--clean", "--yes")
    assert not old.exists() and new.exists() and list(root.rglob("*.part")) == []
    assert vikdf_state(capsys, root, "--clean", "--yes") == f"nothing in {root} may go\n"


def test_work_stays_while_the_newer_one_of_its_name_is_unfinished_or_of_another_name_or_asked_for_again(root, done):
    old = done(age=5, steps=1)
    done(age=1, finished=False, steps=2)
    done("vikdf-zero-s2", age=1, steps=3)
    assert cleaned(root) == f"nothing in {root} may go"
    done("vikdf-zero-s1", age=1, steps=2)
    assert str(old) in cleaned(root)
    _asked(old, 0.5)
    assert str(old) not in cleaned(root)


def test_finished_work_of_other_code_goes_and_half_done_work_of_other_code_stays(root, done, claim):
    finished, half = done("a", seed=1), done("b", seed=2, finished=False)
    claim(code="changed")
    assert f"finished by other code: it would be done again; {finished}" in cleaned(root, "--yes")
    assert half.exists() and not finished.exists()


def test_what_mlflow_does_not_have_yet_stays(root, done):
    old = done(age=5, steps=1)
    done(age=1, steps=2)
    (old / "mlflow.json").unlink()
    text = cleaned(root, "--yes")
    assert f"{old}: stays, since MLflow does not have all of it; `vikdf track replay` sends it" in text and old.exists()


def test_what_is_being_worked_on_stays(root, done):
    old = done(age=5, seed=1)
    done(age=1, seed=2)
    with held.process(CLAIM, root=root, given=root.parent / "start.txt"):
        _asked(old, 5)
        assert cleaned(root, "--yes") == f"nothing in {root} may go" and (old / "product/model.txt").exists()


def test_work_that_is_taken_up_between_the_look_and_the_deed_stays(root, done, claim, capsys):
    folder = done(seed=1)
    with claim(seed=1):
        assert not unwanted._gone(folder)
    assert "is being worked on by another process" in capsys.readouterr().out and folder.exists()


def test_answers_and_downloads_never_go(root):
    for stage in ("answers", "raw"):
        files.write_json(root / stage / "0123456789abcdef/about.json", {"url": "https://host", "model": "any"})
    assert cleaned(root, "--yes") == f"nothing in {root} may go"


def test_features_go_when_no_folder_is_their_encoder_any_more_and_no_training_runs(root, claim):
    clip = root.parent / "backbones/clip"
    clip.mkdir(parents=True)
    (clip / "weights.bin").write_text("weights")
    folder = root / "features/0123456789abcdef"
    told = {f"the file {name}": digest for name, digest in files.contents(clip).items()} | {
        "the encoder's code": "code"
    }
    files.write_json(folder / "encoder.json", told | {"the numbers": "float32 on cpu"})
    with claim(seed=1):
        pass
    assert cleaned(root) == f"nothing in {root} may go"
    (clip / "weights.bin").write_text("others")
    with claim(seed=1):
        assert cleaned(root) == f"nothing in {root} may go"
    assert f"no encoder below {root.parent}/backbones makes these features any more; {folder}" in cleaned(root, "--yes")
    assert not folder.exists()


def test_features_stay_where_there_is_no_backbone_to_compare_with(root):
    files.write_json(root / "features/0123456789abcdef/encoder.json", {"the file a": "b"})
    assert cleaned(root) == f"nothing in {root} may go"


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(root):
    code = "from vikdf import files\nwith files.whole(path) as aside: aside.write_text('half'); hold(files.alone(lock, 'it'))"
    for path in (root / "finetune/a.txt", root.parent / "results/b.txt"):
        with held.process(code, path=path, lock=root / "lock") as writer:
            assert cleaned(root, "--yes") == f"nothing in {root} may go" and len([*root.parent.rglob("*.part")]) == 1
            writer.kill()
            writer.wait()
        assert cleaned(root).count(f"left by a writer that was killed; {path.parent}/.{path.name}.") == 1
        assert "1 folders, 0.0 MB went" in cleaned(root, "--yes") and [*root.parent.rglob("*.part")] == []


def test_nothing_goes_while_a_run_is_at_work_in_the_folder(root, done, monkeypatch, capsys):
    old = done(age=5, steps=1)
    done(age=1, steps=2)
    monkeypatch.chdir(root.parent)
    with files.alone(turns.LOCK, "the run"), pytest.raises(SystemExit):
        cli.main(["state", str(root), "--clean", "--yes"])
    assert (
        f"{root.parent} is being worked on by another process ({os.getpid()})" in capsys.readouterr().err
        and old.exists()
    )


def test_no_run_begins_while_work_goes(root, monkeypatch, capsys):
    held = []
    monkeypatch.chdir(root.parent)
    monkeypatch.setattr(unwanted, "clean", lambda *_: held.append(files.holder(turns.LOCK)) or "")
    vikdf_state(capsys, root, "--clean")
    vikdf_state(capsys, root, "--clean", "--yes")
    assert held == ["", f"another process ({os.getpid()})"]


def test_yes_alone_is_refused(root, capsys):
    with pytest.raises(SystemExit):
        cli.main(["state", str(root), "--yes"])
    assert "--yes was given without --clean" in capsys.readouterr().err
