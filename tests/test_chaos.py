"""The campaign of faults: what is drawn, what a fault does to a file, a tree cut back, and what counts as recovered or lost.

In: small made-up trees. Out: nothing; all is temporary. The campaign itself: `make chaos`.
"""

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from chaos import __main__ as campaign
from chaos import faults, table, trees, verdict
from chaos import trial as chaos_trial
from chaos.trial import Trial
from vikdf import files

ROOT = Path(__file__).resolve().parent.parent
GIVEN = argparse.Namespace(preset="tiny", seed=1, cores=2, chain=False, faults=3)


class Told(trees.Tree):
    """A tree whose commands do what the test says, in order: (exit status, words, what it does to the tree)."""

    def __init__(self, folder: Path, commands: list):
        super().__init__(folder, folder / "log", 1)
        self.measure, self.script, self.asked = trees.products(folder), commands, []

    def call(self, words):
        self.asked.append(words[3] if "vikdf.cli" in words else words[0])
        rc, said, does = self.script.pop(0)
        does()
        return rc, said


@pytest.fixture
def tree(tmp_path) -> Path:
    """Products of a system's whole way, and the work that made them."""
    made = {
        "data/sources/coco.parquet": b"rows",
        "data/reported/table1.csv": b"the paper's",
        "results/table1.csv": b"1,2",
    }
    for name in ("vikdf-zero-s1", "bart-zero-s1"):
        made |= {f"results/finetune/{name}/model.safetensors": name.encode() * 9, f"state/finetune/{name}/lock": b""}
        made |= {f"state/finetune/{name}/product/model.safetensors": name.encode() * 9}
        made |= {f"results/evaluate/{name}.parquet": b"scores", f"results/evaluate/examples/{name}.parquet": b"answers"}
    for name, content in made.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(content)
    return tmp_path / "tree"


def trial(tree: Path, *commands) -> Trial:
    return Trial(Told(tree, list(commands)), random.Random(1), 1.0)


def nothing():
    pass


def test_sixty_faults_hold_every_kind_as_often_as_it_says_and_the_same_seed_the_same_order():
    names = faults.drawn(60, 1, "", chained=False)
    assert {name: names.count(name) for name in faults.KINDS} == {
        name: kind.times for name, kind in faults.KINDS.items()
    }
    assert names == faults.drawn(60, 1, "", chained=False) != faults.drawn(60, 2, "", chained=False)
    assert set(faults.drawn(5, 1, "disk", chained=False)) == {"disk full"}


def test_a_name_of_no_kind_is_refused_and_the_kinds_are_named():
    with pytest.raises(ValueError, match="'earthquake' in its name; the kinds are: .*disk full"):
        faults.drawn(5, 1, "earthquake", chained=False)


def test_a_harm_deletes_the_file_or_turns_one_bit_of_it_and_may_keep_its_time(tree):
    seen = set()
    for number in range(20):
        one, path = Trial(Told(tree, []), random.Random(number), 1.0), tree / "harmed.bin"
        path.write_bytes(bytes(1000))
        os.utime(path, ns=(5, 5))
        how = faults.harmed(one, path).split(": ")[-1].split(" (")[0]
        seen.add(how)
        if path.exists():
            assert sum(byte.bit_count() for byte in path.read_bytes()) == 1 and path.stat().st_size == 1000
            assert (path.stat().st_mtime_ns == 5) == (how == "one bit, same time")
            assert one.harms == {path: files.sha256(path)}
        else:
            assert one.harms == {path: None}
    assert seen == {"harmed.bin deleted", "one bit", "one bit, same time"}


def test_a_tree_is_cut_back_by_one_job_with_the_work_that_made_it(tree):
    after = "rule evaluate:\n    output: results/evaluate/vikdf-zero-s1.parquet, results/table1.csv\n"
    cut = Told(tree, [(0, after, nothing), (0, "", nothing), (0, "", nothing)])
    assert cut.cut("finetune", "vikdf", random.Random(1)) == "finetune of vikdf-zero-s1"
    assert [path.name for path in (tree / "results/finetune").iterdir()] == ["bart-zero-s1"]
    assert [path.name for path in (tree / "state/finetune").iterdir()] == ["bart-zero-s1"]
    assert not (tree / "results/table1.csv").exists() and not (tree / "results/evaluate/vikdf-zero-s1.parquet").exists()
    assert cut.cut("evaluate", "bart", random.Random(1), again=False) == "evaluate of bart-zero-s1"
    assert sorted(path.name for path in (tree / "results/evaluate").rglob("*.parquet")) == ["vikdf-zero-s1.parquet"]
    assert cut.cut("sources", "", random.Random(1)) == "sources" and not (tree / "data/sources").exists()


def test_only_what_dvc_pins_is_compared(tree):
    (tree / "results/report.html").write_text("with the time of the day")
    (tree / "results/finetune/bart-zero-s1/.snakemake_timestamp").touch()
    one = Told(tree, [])
    assert "data/reported/table1.csv" not in one.measure and "results/report.html" not in one.measure
    assert not any(name.endswith("timestamp") for name in one.measure) and one.unequal() == []
    (tree / "results/table1.csv").write_text("1,3")
    (tree / "data/sources/coco.parquet").unlink()
    assert one.unequal() == ["data/sources/coco.parquet", "results/table1.csv"]


def test_the_plain_command_that_ends_well_with_equal_bytes_is_recovery_by_itself(tree):
    one = trial(tree, (0, "", nothing))
    assert verdict.mended(one) == (table.ITSELF, "") and one.tree.asked == ["snakemake"]


def test_what_only_the_documented_command_brings_to_its_end_counts_so(tree):
    one = trial(tree, (1, "locked", nothing), (0, "", nothing))
    assert verdict.mended(one)[0] == table.COMMAND and one.tree.asked == ["snakemake", "recover"]


def test_a_run_that_the_documented_command_cannot_end_is_lost(tree):
    with pytest.raises(trees.Lost, match="`vikdf recover` ended with 1"):
        verdict.mended(trial(tree, (1, "", nothing), (1, "", nothing)))


def test_a_command_that_hangs_is_lost_and_killed(tmp_path):
    command = trees.Command([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, tmp_path / "log", {})
    with pytest.raises(trees.Lost, match="hangs"):
        command.wait(0.5)
    assert not command.alive()


def test_equal_exit_status_but_other_bytes_are_lost(tree):
    changed = lambda: (tree / "results/table1.csv").write_text("1,3")  # noqa: E731
    with pytest.raises(trees.Lost, match="results/table1.csv"):
        verdict.mended(trial(tree, (0, "", changed), (0, "", nothing)))


def test_other_bytes_that_nobody_noticed_are_lost_though_a_second_run_mends_them(tree):
    path = tree / "data/sources/coco.parquet"
    path.write_bytes(b"harmed")
    one = trial(tree, (0, "", lambda: (tree / "results/table1.csv").write_text("1,3")), (0, "", nothing))
    one.tree.measure["data/sources/coco.parquet"] = files.sha256(path)
    one.harms = {path: "that of the harm, before it was written anew"}
    with pytest.raises(trees.Lost, match="the run ended well with other bytes in results/table1.csv"):
        verdict.mended(one)


def test_a_harm_is_noticed_as_it_is_read_where_a_line_that_is_no_echo_names_it(tree):
    path = tree / "data/sources/coco.parquet"
    one = trial(tree)
    assert verdict.noticed(one, "anything", 1) == ""
    one.harms = {path: None}
    name = "data/sources/coco.parquet"
    assert verdict.noticed(one, f"vikdf.filter: {name} has changed: `vikdf recover`", 1) == table.AS_READ
    for said in ("data/sources is damaged: it is made again", f"{name} was changed, its sha256 is not the manifest's"):
        assert verdict.noticed(one, said, 0) == table.AS_READ
    echo = f"    input: {name} is missing\nShell command: cat {name} damaged"
    assert (verdict.noticed(one, echo, 0), verdict.noticed(one, echo, 1)) == (table.UNSAID, table.STOPPED)


def test_a_harm_that_nothing_read_again_is_to_be_named_by_verify_and_then_mended(tree):
    path = tree / "state/finetune/bart-zero-s1/product/model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(b"harmed")
    name, mends = str(path.relative_to(tree)), lambda: path.write_bytes(whole)

    def judged(run: str, verify: str, does=nothing) -> str:
        one = trial(tree, (0, run, nothing), (1, verify, nothing), (0, "", does))
        one.harms = {path: files.sha256(path)}
        return verdict.mended(one)[0]

    with pytest.raises(trees.Lost, match="did not name"):
        judged("", "all is well")
    with pytest.raises(trees.Lost, match="was read, and nobody noticed"):
        judged(f"    input: data/a, {name}\n", f"{name} is harmed", mends)
    with pytest.raises(trees.Lost, match="after `vikdf recover` not as undisturbed"):
        judged("", f"{name} is harmed")
    assert judged("    input: data/a\n", f"{name} is harmed", mends) == table.COMMAND


def test_the_store_that_only_shows_may_stay_as_it_is(tree):
    (tree / "mlflow.db").write_bytes(b"harmed")
    one = trial(tree, (0, "", nothing))
    one.harms = {tree / "mlflow.db": files.sha256(tree / "mlflow.db")}
    assert verdict.mended(one)[0] == table.ITSELF


def test_the_table_counts_each_kind_and_stands_in_the_page_between_its_marks(tmp_path):
    one = {"what": "x", "noticed": "", "seconds": 30.0}
    done = [one | {"kind": "b", "verdict": table.ITSELF}, one | {"kind": "b", "verdict": table.LOST, "noticed": "why"}]
    done += [one | {"kind": "a", "verdict": table.COMMAND}, one | {"kind": "a", "verdict": table.UNTRIED}]
    text = table.markdown(done, GIVEN)
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == ["| a | 1 | 0 | 1 | 0 |", "| b | 2 | 1 | 0 | 1 |", "| all | 3 | 1 | 1 | 1 |"]
    assert "seed 1" in text and "2 minutes" in text and "- lost: b: x: why" in text
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- faults -->\nold\n<!-- faults end -->\nafter\n")
    table.put(page, text, "faults")
    assert page.read_text() == f"before\n<!-- faults -->\n{text}<!-- faults end -->\nafter\n"
    with pytest.raises(ValueError, match="no place for the table"):
        table.put(page, text, "chain")


SNAKEFILE = """
rule all:
    input: "results/table1.csv"

rule sources:
    output: "data/sources/a.txt"
    shell: "python -m vikdf.slow data/sources/a.txt"

rule tables:
    input: "data/sources/a.txt"
    output: "results/table1.csv"
    shell: "python -m vikdf.slow results/table1.csv"
"""
SLOW = "import pathlib, sys, time\ntime.sleep(1)\npathlib.Path(sys.argv[1]).write_text('made')\n"
RECOVER = """import os, shutil
shutil.rmtree(".snakemake/locks", ignore_errors=True)
os.execvp("snakemake", ["snakemake", "--cores", "1", "--rerun-incomplete"])
"""


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A project of two rules, whose `recover` is three lines."""
    project = tmp_path / "project"
    made = {"Snakefile": SNAKEFILE, "vikdf/__init__.py": "", "vikdf/slow.py": SLOW, "vikdf/cli.py": RECOVER}
    made |= {"presets/tiny.yaml": "sources:\n  world:\n    port: 8766\n", "data/reported/table1.csv": ""}
    made |= {"dvc.yaml": "stages: {a: {outs: [data/sources]}, b: {outs: [results/table1.csv]}}"}
    made |= {"workflow/a": "", "profiles/a": ""}
    for name, content in made.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)
    monkeypatch.setattr(trees, "ROOT", project)
    monkeypatch.setattr(chaos_trial, "CUTS", {"sources": 1})
    return tmp_path / "out"


def run(out: Path, *words: str) -> list[dict]:
    return campaign.campaign(
        campaign.parser().parse_args([*words, "--within", "0.5", "--cores", "1", "--out", str(out)])
    )


@pytest.mark.long
def test_a_run_of_a_small_tree_is_killed_and_its_lock_needs_the_documented_command(small):
    words = ["--faults", "1", "--only", "SIGKILL to all"]  # Snakemake's own lock outlives it
    done = run(small, *words)
    assert [each["verdict"] for each in done] == [table.COMMAND], done
    assert run(small, *words) == done, "what was done is not done again"
    assert "| SIGKILL to all processes of a run | 1 | 0 | 1 | 0 |" in next(small.rglob("table.md")).read_text()


def test_faults_in_one_tree_from_clean_are_judged_by_its_end(small):
    done = run(small, "--chain", "--faults", "2", "--only", "SIGTERM to all")
    assert [each["verdict"] for each in done] == [table.ITSELF] * 2, done


def stands(monkeypatch, *strikes) -> list[str]:
    """What a chain of these faults comes to where the run after them ends well."""
    names = [f"fault {number}" for number in range(len(strikes))]
    monkeypatch.setattr(
        faults, "KINDS", {name: faults.Kind(strike, 1) for name, strike in zip(names, strikes, strict=True)}
    )
    monkeypatch.setattr(campaign, "mended", lambda _: (table.ITSELF, ""))
    tree = argparse.Namespace(end=nothing)
    return [each["verdict"] for each in campaign.chained(tree, names, random.Random(1), 1.0)]


def late(trial: Trial) -> str:
    trial.by_command = True
    raise chaos_trial.Missed


def lost(trial: Trial) -> str:
    raise trees.Lost("why")


def test_in_a_chain_a_fault_that_did_not_strike_is_not_tried_and_a_loss_at_the_first_is_told(monkeypatch):
    strikes = lambda _: "struck"  # noqa: E731
    assert stands(monkeypatch, strikes, late, strikes) == [table.COMMAND, table.UNTRIED, table.ITSELF]
    assert stands(monkeypatch, lost, strikes) == [table.LOST]


def test_an_unfinished_run_is_no_measure(small):
    with pytest.raises(ValueError, match="no finished run: it has no"):
        run(small, "--chain", "--faults", "1", "--measure", str(small))


def test_a_signal_that_ended_nothing_is_no_fault(tree):
    one, deaf = Trial(Told(tree, []), random.Random(1), 1.0), argparse.Namespace
    one.moving = lambda: deaf(steps=lambda: (1, 2), signal=lambda number: None, wait=lambda: 0)
    with pytest.raises(chaos_trial.Missed):
        faults.KINDS["Ctrl-C"].strike(one)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, which takes root")
def test_a_small_disk_can_be_mounted_here_and_is_taken_away_at_the_end(tree):
    place = tree / "state"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if done.returncode:
        pytest.skip("no mounts here")
    Told(tree, []).end()
    assert not os.path.ismount(place)
