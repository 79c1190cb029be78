"""`vikdf recover` in a small real tree: whatever was done to a run, the one command brings it to its end, to the same bytes.

Two stages of ours stand for all: each is a function behind vikdf.flags, so that it compares what it reads and seals what it makes.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_seals import flip

from vikdf import files, seals
from vikdf.flags import printable

ROOT = Path(__file__).resolve().parent.parent
STAGE = '''"""A stage: doubles a text, in a file or a folder."""
from pathlib import Path
from vikdf import files, flags

def stage(*, given: Path, output: Path, name: str) -> None:
    """given: what it reads; output: what it makes; name: of the file in it, or empty"""
    text = (given / "text" if given.is_dir() else given).read_text()
    with files.whole(output) as aside:
        if name:
            aside.mkdir()
        (aside / name if name else aside).write_text(text * 2)

if __name__ == "__main__":
    flags.main(stage)
'''
SNAKEFILE = """
from vikdf.turns import take_turn

rule all:
    input: "results/table.csv"

rule first:
    output: "data/first.txt"
    shell: "python -m stage --given given.txt --output {output} --name ''"

rule second:
    input: "data/first.txt"
    output: directory("results/model")
    shell: "python -m stage --given {input} --output {output} --name text"

rule table:
    input: "results/model"
    output: "results/table.csv"
    shell: "python -m stage --given {input} --output {output} --name ''"

rule more:
    output: "results/more.csv"
    input: "data/first.txt"
    shell: "python -m stage --given {input} --output {output} --name ''"

onstart: take_turn()
"""
KEPT = ["data/first.txt", "results/model/text", "results/table.csv", "results/more.csv"]


def run(place: Path, *words: str) -> subprocess.CompletedProcess:
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run([sys.executable, "-m", *words], cwd=place, env=ENVIRONMENT, timeout=120, **told)


ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:.", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
ENVIRONMENT |= {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("whole") / "tree"
    place.mkdir()
    (place / "Snakefile").write_text(SNAKEFILE)
    (place / "stage.py").write_text(STAGE)
    (place / "given.txt").write_text("a,b\n1,2\n")
    shutil.copytree(ROOT / "profiles", place / "profiles")
    done = run(place, "snakemake", "--cores", "1", "all", KEPT[3])  # `all` does not need the last
    assert done.returncode == 0, done.stdout
    return place


@pytest.fixture
def tree(finished, tmp_path) -> Path:
    """A finished run, of one's own."""
    return shutil.copytree(finished, tmp_path / "tree", copy_function=shutil.copy2)


def content(place: Path) -> list[bytes]:
    return [(place / name).read_bytes() for name in KEPT]


def recovered(place: Path, finished: Path) -> str:
    """What the one command said; afterwards all is there, byte for byte, and sealed."""
    done = run(place, "vikdf.cli", "recover", "--", "--cores", "1")
    assert done.returncode == 0 and "Traceback" not in done.stdout, done.stdout
    assert content(place) == content(finished)
    assert run(place, "vikdf.cli", "verify").returncode == 0
    return done.stdout


def test_what_real_jobs_made_is_sealed(finished):
    found = sorted(
        path.relative_to(finished / seals.KEPT).as_posix() for path in (finished / seals.KEPT).rglob("*.json")
    )
    assert found == [f"{name}.json" for name in ("data/first.txt", "results/model", KEPT[3], KEPT[2])]


@pytest.mark.parametrize("name", [KEPT[0], pytest.param(KEPT[1], marks=pytest.mark.long)])
def test_a_job_that_reads_a_flipped_bit_stops_and_the_one_command_mends_it(tree, finished, name):
    flip(tree / name)
    (tree / "results/table.csv").unlink()
    if name == KEPT[0]:
        shutil.rmtree(tree / "results/model")
    done = run(tree, "snakemake", "--cores", "1")
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert f"{name} has changed since it was made: `vikdf recover` takes away" in done.stdout
    assert f"{name} has changed since it was made: taken away" in recovered(tree, finished)


def test_what_no_job_would_read_again_is_found_and_made_again(tree, finished):
    for name in (KEPT[0], KEPT[2]):
        flip(tree / name)
    assert "Nothing to be done" in run(tree, "snakemake", "--cores", "1").stdout
    said = recovered(tree, finished)
    assert all(f"{name} has changed since it was made: taken away" in said for name in (KEPT[0], KEPT[2]))


def test_deleted_products_are_made_again_though_nothing_waits_for_them(tree, finished):
    (tree / "data/first.txt").unlink()
    shutil.rmtree(tree / "results/model")
    assert "Snakemake makes what is missing (2 products)" in recovered(tree, finished)


def test_what_all_does_not_need_is_made_again_too_and_what_no_rule_makes_any_more_is_told(tree, finished):
    for name in ("old", "older", "oldest"):
        run(tree, "stage", "--given", "given.txt", "--output", f"results/{name}.csv", "--name", "")
        (tree / f"results/{name}.csv").unlink()
    flip(tree / KEPT[3])
    said = recovered(tree, finished)
    assert f"{KEPT[3]} has changed since it was made: taken away" in said
    assert said.count("is gone, and no rule makes it now\n") == 3 and "results/old.csv is gone" in said
    assert "what is missing (1 products)" in said


def test_strangers_words_in_a_manifest_cannot_move_the_terminal(tree):
    files.write_json(tree / "data/copied/manifest.json", {"sha256": {"\x1b[2J.txt": "0"}})
    said = run(tree, "vikdf.cli", "recover", "--", "--cores", "1").stdout
    assert "\x1b[2J" not in said and printable("\x1b[2J.txt is missing: it is not ours to mend") in said


def test_jobs_of_a_run_that_was_killed_are_waited_for_and_what_is_whole_is_left_as_it_is(tree, finished):
    times = {path: path.stat().st_mtime_ns for name in KEPT for path in [tree / name]}
    job = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(6)", "-m", "vikdf.finetune"], cwd=tree)
    try:
        said = recovered(tree, finished)
        assert job.poll() == 0
        assert f"waiting for vikdf.finetune (process {job.pid}), at work since a run that died" in said
        assert "nothing harmed or missing" in said and "Nothing to be done" in said
        assert {path: path.stat().st_mtime_ns for path in times} == times
    finally:
        job.kill()


def test_beside_a_living_run_it_stops_with_a_sentence(tree):
    with files.alone(tree / ".snakemake/at_work", "the run"):
        done = run(tree, "vikdf.cli", "recover")
    assert done.returncode == 1 and "is being worked on by another process" in done.stdout
    assert "Traceback" not in done.stdout


def test_elsewhere_it_says_where_to_go(tmp_path):
    done = run(tmp_path, "vikdf.cli", "recover")
    assert done.returncode == 1 and "has no Snakefile: go to the project's own folder" in done.stdout


def test_a_run_whose_processes_were_all_killed_goes_on_and_locks_of_dead_processes_go(tree, finished):
    shutil.rmtree(tree / "results")
    (tree / "data/first.txt").unlink()
    killed = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "1"], cwd=tree, env=ENVIRONMENT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while killed.poll() is None and not (tree / "data/first.txt").exists():
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    (tree / ".snakemake/locks").mkdir(exist_ok=True)
    (tree / ".snakemake/locks/0.output.lock").write_text("results/table.csv\n")
    (tree / ".dvc/tmp").mkdir(parents=True)
    (tree / ".dvc/tmp/rwlock").write_text('{"write": {"data": {"pid": 99999')
    said = recovered(tree, finished)
    assert "locks of processes that died are taken away: .snakemake/locks/0.output.lock, .dvc/tmp/rwlock" in said
