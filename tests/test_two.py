"""Two at once: the second run, `dvc repro` or training stops with one sentence before it touches anything, and no lock outlives
its process."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import held
import pytest
from campaign import environment
from test_workflow import copied

from vikdf import files, turns

ROOT = Path(__file__).resolve().parent.parent
SNAKEFILE = """
from vikdf.turns import take_turn

rule all:
    input: "results/b.txt"

rule a:
    output: "data/a.txt"
    shell: "echo a >> log; until test -e go; do sleep 0.1; done; touch {output}"

rule b:
    input: "data/a.txt"
    output: "results/b.txt"
    shell: "echo b >> log; touch {output}"

onstart:
    take_turn()
"""
STAGES = """
stages:
  a: {cmd: "snakemake --cores 1 -- data/a.txt", outs: [data]}
  b: {cmd: "snakemake --cores 1 -- results/b.txt", deps: [data], outs: [results]}
"""
PAIR = """
from pathlib import Path
import sys
from vikdf import flags, state
state.code_digest = lambda modules: "code"

def train(*, root: Path, given: Path) -> None:
    with state.claim(root, "finetune", ["finetune"], {"seed": 1}, {"start": given}) as work:
        (root / "trained").write_text("twice")

flags.main(train)
"""
CLAIM = "from vikdf import state; state.code_digest = lambda modules: 'code'; "
CLAIM += "hold(state.claim(root, 'finetune', ['finetune'], {'seed': 1}, {'start': given}))"


@pytest.fixture
def tree(tmp_path) -> Path:
    """Two jobs under the project's own profile; each says in `log` that it began, and the first waits for the file `go`."""
    return planted(tmp_path / "tree")


def planted(place: Path) -> Path:
    shutil.copytree(ROOT / "profiles", place / "profiles")
    (place / "Snakefile").write_text(SNAKEFILE)
    return place


def bare() -> dict:
    """The environment, as outside of DVC."""
    return {name: value for name, value in environment().items() if not name.startswith("DVC_")}


@pytest.fixture
def run(tree):
    """run(*words): a process in the tree, in a group of its own; what still runs at the end is killed."""
    started = []

    def begin(*words: str) -> subprocess.Popen:
        said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(words, cwd=tree, env=bare(), start_new_session=True, **said))
        return started[-1]

    yield begin
    for one in started:
        if one.poll() is None:
            os.killpg(one.pid, signal.SIGKILL)
        one.communicate()


SNAKEMAKE = ("snakemake", "--cores", "1")


def until(path: Path, text: str = "", seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.05)


def ended(one: subprocess.Popen, seconds: float = 200) -> str:
    return one.communicate(timeout=seconds)[0]


def test_the_second_snakemake_of_a_folder_says_who_is_at_work_and_runs_nothing_and_the_first_is_not_disturbed(
    tree, run
):
    first = run(*SNAKEMAKE)
    until(tree / "log")
    second = run(*SNAKEMAKE)
    said = ended(second)
    sentence = f"\n{tree} is being worked on by another process ({first.pid}): wait until it ends, or stop it\nNothing was run.\n"
    assert second.returncode == 1 and sentence in said and "Traceback" not in said and "--unlock" not in said
    dry = run(*SNAKEMAKE, "--dry-run")
    assert "rule b" in ended(dry) and dry.returncode == 0
    (tree / "go").touch()
    ended(first)
    assert first.returncode == 0 and (tree / "log").read_text() == "a\nb\n"


def test_of_many_that_begin_at_the_same_moment_one_works(tree, run):
    several = [run(*SNAKEMAKE) for _ in range(4)]
    end = time.monotonic() + 120
    while sum(one.poll() is not None for one in several) < 3 and time.monotonic() < end:
        time.sleep(0.1)
    (tree / "go").touch()
    said = [ended(one) for one in several]
    assert sorted(one.returncode for one in several) == [0, 1, 1, 1] and (tree / "log").read_text() == "a\nb\n"
    assert sum("is being worked on by another process" in text for text in said) == 3


def test_after_a_kill_no_lock_is_left_and_the_same_command_goes_on(tree, run):
    first = run(*SNAKEMAKE)
    until(tree / "log")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    (tree / "go").touch()
    again = run(*SNAKEMAKE)
    said = ended(again)
    assert again.returncode == 0, said
    assert (tree / "log").read_text() == "a\na\nb\n"


def test_jobs_that_a_killed_run_left_at_work_are_waited_for(tree, run):
    until_over = "import pathlib, time\nwhile not pathlib.Path('over').exists(): time.sleep(0.1)"
    job = run(sys.executable, "-c", until_over, "-m", "vikdf.pretrain")
    (tree / "go").touch()
    again = run(*SNAKEMAKE)
    told = next(line for line in again.stdout if line.startswith("waiting for "))
    assert told.startswith(f"waiting for vikdf.pretrain (process {job.pid}), at work since a run that died")
    assert not (tree / "log").exists()
    (tree / "over").touch()
    ended(again)
    assert again.returncode == 0 and job.poll() == 0 and (tree / "log").read_text() == "a\nb\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The workflow under DVC, run once by it."""
    place = planted(tmp_path_factory.mktemp("dvc") / "tree")
    (place / "dvc.yaml").write_text(STAGES)
    (place / "go").touch()
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=place, check=True)
    subprocess.run(["dvc", "repro", "--quiet"], cwd=place, env=bare(), check=True, timeout=300)
    (place / "go").unlink()
    (place / "log").unlink()
    return place


@pytest.fixture
def pinned(tree, made) -> Path:
    """The same, with its first product changed, so that `dvc repro` has to make it again."""
    shutil.copytree(made, tree, dirs_exist_ok=True)
    (tree / "data/a.txt").write_text("changed")
    return tree


def test_dvc_deletes_no_product_under_a_running_snakemake_and_a_killed_one_does_not_hold_it_up(pinned, run):
    first = run(*SNAKEMAKE, "--forceall")
    until(pinned / "log")
    (pinned / "data").mkdir(exist_ok=True)
    (pinned / "data/other.txt").write_text("of a job that runs")
    second = run("dvc", "repro")
    said = ended(second)
    assert second.returncode and "is busy" in said and f"(PID {first.pid}): snakemake" in said
    assert (pinned / "data/other.txt").exists() and (pinned / "results/b.txt").exists()
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    (pinned / "go").touch()
    third = run("dvc", "repro", "--force")
    said = ended(third)
    assert third.returncode == 0, said


@pytest.mark.long
def test_a_snakemake_beside_a_running_dvc_says_so_and_runs_nothing(pinned, run):
    first = run("dvc", "repro", "--force")
    until(pinned / "log")
    second = run(*SNAKEMAKE, "--forceall", "--", "results/b.txt")
    said = ended(second)
    assert second.returncode == 1 and re.search(rf"{pinned} is being worked on by .*\(\d+\): wait until it ends", said)
    (pinned / "go").touch()
    ended(first)
    assert first.returncode == 0 and (pinned / "log").read_text().count("a") == 1


@pytest.mark.long
def test_the_second_dvc_says_who_is_at_work(pinned, run):
    first = run("dvc", "repro", "--force")
    until(pinned / "log")
    second = run("dvc", "repro")
    assert f"(PID {first.pid})" in ended(second) and second.returncode


def test_snakemake_beside_a_dvc_that_works_on_another_stage_is_refused_by_dvcs_list(tree, monkeypatch, capsys):
    """Between two stages of `dvc repro` no Snakemake runs, and its list alone tells."""
    (tree / ".dvc/tmp").mkdir(parents=True)
    monkeypatch.chdir(tree)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    who = f'{{"pid": {os.getppid()}, "cmd": "dvc repro"}}'
    (tree / ".dvc/tmp/rwlock").write_text(f'{{"write": {{"{tree}/results/pretrain": {who}}}, "read": {{}}}}')
    with pytest.raises(SystemExit, match=rf"{tree} is being worked on by DVC \(process {os.getppid()}\): wait"):
        turns.take_turn()
    turns._held.close()
    (tree / ".dvc/tmp/rwlock").write_text('{"write": {"')
    with pytest.raises(SystemExit, match="rwlock.* JSON structure is corrupted: if no `dvc` works here, delete"):
        turns.take_turn()
    turns._held.close()
    assert files.holder(turns.LOCK) == ""


def test_the_projects_own_workflow_takes_its_turn_before_its_first_job(tmp_path):
    place = copied(tmp_path / "tree", "tiny")
    with held.process("from vikdf import files; hold(files.alone(path, 'it'))", path=place / turns.LOCK) as other:
        asked = ["snakemake", "--cores", "1", "--", "data/sources/world/manifest.json"]
        done = subprocess.run(asked, cwd=place, env=environment(), capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert done.returncode == 1 and f"{place} is being worked on by another process ({other.pid})" in said
        assert not (place / "data/sources").exists() and not (place / "logs").exists()


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_second_training_on_one_state_stops_with_one_sentence_alone_or_as_a_pair(tmp_path, processes):
    (tmp_path / "train.py").write_text(PAIR)
    (tmp_path / "start.txt").write_text("start")
    flags = ["-m", "train", "--root", str(tmp_path / "state"), "--given", str(tmp_path / "start.txt")]
    several = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    command = [sys.executable, *(several if processes > 1 else []), *flags]
    with held.process(CLAIM, root=tmp_path / "state", given=tmp_path / "start.txt") as first:
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
        said = re.findall(
            rf"is being worked on by another process \({first.pid}\): wait until it ends, or stop it", done.stderr
        )
        assert done.returncode and len(said) == 1, done.stderr
        assert not (tmp_path / "state/trained").exists() and first.poll() is None


def test_work_that_is_cleaned_away_while_others_claim_it_is_never_half_there(tmp_path, monkeypatch):
    """One process claims and finishes without end, this one takes the finished work away as often as it can."""
    (tmp_path / "start.txt").write_text("start")
    folder = tmp_path / "state"
    code = """
import time
from vikdf import state
state.code_digest = lambda modules: "code"
end = time.monotonic() + 4
print("holds", flush=True)
made = 0
while time.monotonic() < end:
    try:
        with state.claim(root, "finetune", ["finetune"], {"seed": 1}, {"start": given}) as work:
            if not work.finished:
                with work.finish() as product:
                    (product / "a.txt").write_text("a")
                made += 1
            assert (work.product / "a.txt").read_text() == "a" and (work.folder / "work.json").exists()
    except ValueError as error:
        assert "is being worked on" in str(error)
print(made, flush=True)
"""
    from vikdf import kept, unwanted

    with held.process(code, root=folder, given=tmp_path / "start.txt") as other:
        gone = 0
        while other.poll() is None:
            found = [path for path in folder.glob("finetune/*/") if kept.KEY.fullmatch(path.name)]
            gone += sum(unwanted._gone(path) for path in found if (path / "product.json").exists())
            time.sleep(0.01)
        assert other.returncode == 0 and gone >= 3
        assert int(other.stdout.readline()) >= gone
    assert list(folder.rglob(".*.part")) == []
