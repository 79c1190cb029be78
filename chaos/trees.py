"""A tree that the campaign runs in and harms: made from the project's own files, cut back, started, looked at.

In: the project, a preset. Out: a folder in which `snakemake` runs as a person's would, and nothing else of theirs is touched.

    tree = Tree(folder)                       # holds Snakefile, params.yaml, data/, results/, state/
    tree.cut("finetune", "vikdf", draw)       # one job of that stage is to be done again
    command = tree.start(snakemake(2))        # in a process group of its own, its words in tree.log
    command.reaches(0.5, delay=2)             # waits until half of its jobs are done
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

from vikdf import files

ROOT = Path(__file__).resolve().parent.parent
COPIED = [
    "Snakefile",
    "workflow",
    "profiles",
    "vikdf",
    "data/reported",
]  # what a run reads of the project, besides params.yaml
NO_PRODUCT = (".snakemake_timestamp",)  # Snakemake's own, beside products
PORTS = range(20_000, 30_000)  # below those that an operating system gives away by itself
NOT_OURS = ("MLFLOW_", "OPENAI_")  # in the environment: nobody's server is asked, or paid
LIMIT = 1800  # seconds that a command may take before it counts as hanging
LOOK = 0.05  # seconds between two looks at a run


def snakemake(cores: int) -> list[str]:
    return ["snakemake", "--cores", str(cores)]


def recover(cores: int) -> list[str]:
    return [sys.executable, "-m", "vikdf.cli", "recover", "--", "--cores", str(cores)]


def verify() -> list[str]:
    return [sys.executable, "-m", "vikdf.cli", "verify"]


class Lost(Exception):
    """What no fault may lead to, in words."""


class Command:
    """One command in motion, with all that it starts."""

    def __init__(self, words: list[str], tree: Path, log: Path, env: dict[str, str]):
        with open(log, "a") as stream:
            stream.write(f"\n$ {' '.join(words)}\n")
        self.words, self.log, self.at = words, log, log.stat().st_size
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
        env = kept | {"PATH": path, "PYTHONUNBUFFERED": "1"} | env
        with open(log, "ab") as stream:
            self.process = subprocess.Popen(
                words, cwd=tree, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )

    def said(self) -> str:
        with open(self.log, "rb") as stream:
            stream.seek(self.at)
            return stream.read().decode(errors="replace")

    def alive(self) -> bool:
        return self.process.poll() is None

    def steps(self) -> tuple[int, int]:
        """Jobs that are done, and that this run has in all; 0 as long as it has said nothing of them."""
        said = self.said()
        done = re.findall(r"^(\d+) of \d+ steps", said, flags=re.M)
        total = re.findall(r"^total +(\d+)", said, flags=re.M)
        return int((done or [0])[-1]), int((total or [0])[-1])

    def reaches(self, share: float, delay: float) -> bool:
        """Waits until that share of its jobs is done, and `delay` seconds more; False if it ended before."""
        limit = time.monotonic() + LIMIT
        while self.alive() and time.monotonic() < limit:
            done, total = self.steps()
            if total and done >= int(share * total):
                break
            time.sleep(LOOK)
        until = time.monotonic() + delay
        while self.alive() and time.monotonic() < until:
            time.sleep(LOOK)
        return self.alive()

    def stages(self) -> list[psutil.Process]:
        """The living processes that do a stage's work, with their helpers; neither snakemake nor the shells between."""
        found = []
        for each in psutil.Process(self.process.pid).children(recursive=True) if self.alive() else []:
            try:
                words = each.cmdline()
            except psutil.Error:  # it ended meanwhile
                continue
            if any(word.startswith("vikdf.") for word in words) or "multiprocessing" in " ".join(words):
                found.append(each)
        return found

    def signal(self, number: int) -> None:
        """To the whole group, as a terminal, a batch system or a machine that goes down does it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def wait(self, seconds: float = LIMIT) -> int:
        """Its exit status; one that hangs is killed with all of its group, and what it was to mend is lost."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()
            raise Lost(f"`{' '.join(self.words)}` hangs") from None

    def gone(self, seconds: float = 60) -> None:
        """Waits until no process of its group is left: what it started may outlive it for a moment."""
        self.wait()
        until = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < until:
                os.killpg(self.process.pid, 0)
                time.sleep(LOOK)


class Tree:
    """A folder in which a run stands somewhere between nothing and its end."""

    def __init__(self, folder: Path, log: Path, cores: int, measure: dict[str, str] | None = None):
        self.folder, self.log, self.cores, self.measure = folder, log, cores, measure or {}
        self.env: dict[str, str] = {}
        self.commands: list[Command] = []

    def start(self, words: list[str]) -> Command:
        self.commands.append(Command(words, self.folder, self.log, self.env))
        return self.commands[-1]

    def call(self, words: list[str]) -> tuple[int, str]:
        command = self.start(words)
        return command.wait(), command.said()

    def end(self) -> None:
        """Nothing of it goes on, not even what outlived its command, and no small disk is left in it."""
        ours = {command.process.pid for command in self.commands}
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(one.pid) in ours and Path(one.cwd()).is_relative_to(self.folder.resolve()):
                    one.kill()
        for name in ("state", "results"):
            if os.path.ismount(self.folder / name):
                subprocess.run(["umount", "--lazy", self.folder / name], check=True)

    def unequal(self) -> list[str]:
        """Products that are not those of the undisturbed run."""
        found = products(self.folder)
        return sorted(name for name in self.measure if found.get(name) != self.measure[name])

    def made_by(self, stage: str) -> dict[str, list[Path]]:
        """Each job of a stage by its name: what it leaves in data/ or results/."""
        data, results = self.folder / "data" / stage, self.folder / "results" / stage
        if stage == "tables":
            return {"tables": [path for path in self.folder.glob("results/table1.*")]}
        if stage == "backbones":
            return {path.name: [path] for path in sorted(data.glob("*"))}
        if data.exists() or not results.exists():
            return {stage: [data]} if data.exists() else {}
        return {
            path.stem: [path, *results.glob(f"examples/{path.name}")]
            for path in sorted(results.iterdir())
            if path.name != "examples"
        }

    def cut(self, stage: str, like: str, draw, again: bool = True) -> str:
        """Takes one job's products away and all that was made of them, as if the run had not come there yet.

        like: a job's name, or its system's, where the stage has systems
        again: the job's kept work goes too, and is to be done again
        """
        jobs = self.made_by(stage)
        if not jobs:
            return "nothing"
        alike = [name for name in jobs if like in (name, name.split("-")[0])]
        name = draw.choice(alike or sorted(jobs))
        forced = stage if name == stage else str(jobs[name][0].relative_to(self.folder))
        rc, said = self.call(["snakemake", "--dry-run", "--cores", "1", "--forcerun", forced])
        if rc != 0:
            raise ValueError(f"{self.folder} is whole, yet a dry run in it failed: its words are in {self.log}")
        if again:
            self._forget(stage, jobs[name])
        after = {path for line in re.findall(r"^    output: (.+)$", said, flags=re.M) for path in line.split(", ")}
        for path in [*jobs[name], *map(self.folder.joinpath, sorted(after))]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return f"{stage} of {name}" if name != stage else stage

    def job_of(self, stage: str, work: str) -> str:
        """The job whose product came out of this folder of state/<stage>/."""
        made = set(_digests(self.folder / "state" / stage / work / "product").values())
        jobs = self.made_by(stage).items()
        return next((name for name, paths in jobs if made & {d for path in paths for d in _digests(path).values()}), "")

    def _forget(self, stage: str, paths: list[Path]) -> None:
        """Removes the finished work below state/ whose product is one of these; of a stage with one job, all of it."""
        gone = {digest for path in paths for digest in _digests(path).values()}
        for work in (self.folder / "state" / stage).glob("*/"):
            kept = set(_digests(work / "product").values())
            if len(self.made_by(stage)) == 1 or (kept and kept <= gone):
                shutil.rmtree(work)


def _digests(path: Path) -> dict[str, str]:
    """File -> sha256 of a folder or of a file alone."""
    found = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path] if path.exists() else []
    return {str(each): files.sha256(each) for each in sorted(found) if each.name not in NO_PRODUCT}


def products(folder: Path) -> dict[str, str]:
    """What DVC pins, file by file with its sha256: no time, host or cost is in it, so that runs can be compared."""
    found = {}
    for out in outs(folder):
        found |= {str(Path(name).relative_to(folder)): digest for name, digest in _digests(out).items()}
    return found


def outs(folder: Path) -> list[Path]:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    return [folder / name for entry in stages for name in [*entry["outs"], *entry.get("metrics", [])]]


def planted(folder: Path, preset: str) -> None:
    """The project's files, with this preset as its params but for the port of its world, and nothing that a run made."""
    folder.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    params = (ROOT / f"presets/{preset}.yaml").read_text()
    port = free_port(
        int(files.digest(str(folder))[:8], 16)
    )  # it is part of every url, and so of sizes and of keys in state/
    params, changed = re.subn(r"^(    port: )\d+", rf"\g<1>{port}", params, flags=re.M)
    assert changed == 1, "sources.world.port"
    (folder / "params.yaml").write_text(params)


def free_port(near: int) -> int:
    """Where nobody listens now: two campaigns, and a run beside them, serve their worlds side by side."""
    first = near % len(PORTS)
    for port in [*PORTS[first:], *PORTS[:first]]:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise ValueError(f"no port of 127.0.0.1 between {PORTS[0]} and {PORTS[-1]} is free")


def copied(source: Path, target: Path) -> None:
    """A tree as it stands, times included: Snakemake compares them."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, symlinks=True)


def of_what() -> str:
    """The digest of all that decides a tree: another code or preset is another campaign."""
    inside = [path for name in [*COPIED, "presets"] for path in [ROOT / name, *sorted((ROOT / name).rglob("*"))]]
    kept = [path for path in inside if path.is_file() and "__pycache__" not in path.parts]
    return files.digest([[str(path.relative_to(ROOT)), files.sha256(path)] for path in kept])[:12]
