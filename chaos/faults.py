"""The faults: what each does to a run, drawn by a seed. Each leaves the run stopped or broken; who mends it is not here.

In: a Trial (a tree, a source of chance). Out: what was done, in words; what was harmed stands in `trial.harms`.
A file is harmed while nothing runs; the run then goes on through stages that read it, or that do not.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from chaos import network, trees
from chaos.trial import CHEAP, TRIES, Missed, Trial
from vikdf import files

NEXT = {  # which stage reads what this one made, or what lies in this folder of it
    **{"sources": "filter", "filter": "caption", "caption": "shards", "shards": "pretrain", "backbones": "finetune"},
    **{"dialogues": "finetune", "pretrain": "finetune", "finetune": "generate", "generate": "evaluate"},
    **{"world": "dialogues"},
}
READ_AGAIN = 0.67  # of the harms are followed by the work that reads the file
KEEP = {"caption": 1, "pretrain": 3, "finetune": 3, "generate": 3}  # stages that keep checkpoints, pieces or chunks
ROOM = (0, 300_000)  # bytes that a small disk has left: less than a trained system takes
LARGE = 4 << 30  # and after it was enlarged


def _to_group(number: signal.Signals) -> Callable[[Trial], str]:
    def strike(trial: Trial) -> str:
        command = trial.moving()
        done, total = command.steps()
        command.signal(number)
        if command.wait() == 0:
            raise Missed
        return f"after {done} of {total} jobs"

    return strike


def _to_one(number: signal.Signals) -> Callable[[Trial], str]:
    """One stage's process, or one of its helpers; snakemake sees a job fail and ends by itself."""

    def strike(trial: Trial) -> str:
        command = trial.moving()
        while command.alive():
            with contextlib.suppress(psutil.Error, IndexError):
                one = trial.draw.choice(command.stages())
                words = " ".join(one.cmdline()[1:3])
                one.send_signal(number)
                if command.wait() == 0:  # that one was deaf, or done
                    raise Missed
                return f"to `python {words}`"
            time.sleep(trees.LOOK)
        raise Missed

    return strike


def engine_alone(trial: Trial) -> str:
    """Its jobs live on without it, as after the kernel has ended the largest process: they hold their work."""
    command = trial.moving()
    left, (done, total) = len(command.stages()), command.steps()
    os.kill(command.process.pid, signal.SIGKILL)
    command.process.wait()
    return f"after {done} of {total} jobs; {left} processes of its jobs go on"


def harmed(trial: Trial, path: Path) -> str:
    """Deletes the file, or turns one bit of it: its time changes with it, or not, as on a disk that fails."""
    how, before = trial.draw.choice(["deleted", "one bit", "one bit, same time"]), path.stat()
    name = path.relative_to(trial.tree.folder)
    if how == "deleted" or not before.st_size:
        path.unlink()
        trial.harms[path] = None
        return f"{name} deleted"
    data, place = bytearray(path.read_bytes()), _byte(path, trial.draw)
    data[place] ^= 1 << trial.draw.randrange(8)
    with open(path, "r+b") as stream:  # in place: a link to it, or an open file, sees it too
        stream.write(data)
    if how == "one bit, same time":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    trial.harms[path] = files.sha256(path)
    return f"{name}: {how} (of byte {place})"


def _byte(path: Path, draw: random.Random) -> int:
    """Any byte of the file; of a tar, one of a member's head or content, since padding holds nothing."""
    if path.suffix != ".tar":
        return draw.randrange(path.stat().st_size)
    with tarfile.open(path) as tar:
        member = draw.choice(tar.getmembers())
    return draw.randrange(member.offset, member.offset_data + member.size)


def _harm(*patterns: str, then: bool = True) -> Callable[[Trial], str]:
    """A file of these kinds; then, often, what reads it next is to be done again."""

    def strike(trial: Trial) -> str:
        trial.still()
        found = [sorted(filter(_counts, trial.tree.folder.glob(pattern))) for pattern in patterns]
        if not (found := [paths for paths in found if paths]):
            raise Missed
        path = trial.draw.choice(trial.draw.choice(found))
        said = f"; then {_reader_again(trial, path)} is done again" if then and not trial.chained else ""
        if not path.exists():  # it went with the work that is to be done again
            raise Missed
        return harmed(trial, path) + said

    return strike


def _counts(path: Path) -> bool:
    return path.is_file() and path.name not in (*trees.NO_PRODUCT, "lock")


def _reader_again(trial: Trial, path: Path) -> str:
    """Cuts the tree back to what reads the file; at times, to anything."""
    place, stage, name, *_ = [*path.relative_to(trial.tree.folder).parts, "", ""]
    reader = stage if place == "state" else NEXT.get(name, NEXT.get(stage, "tables"))
    if trial.draw.random() > READ_AGAIN or not trial.tree.made_by(reader):
        return trial.cut(CHEAP)
    like = trial.tree.job_of(stage, name) if place == "state" else Path(name).stem.split("-")[0]
    return trial.tree.cut(reader, like, trial.draw, again=place != "state")


def features(trial: Trial) -> str:
    """A file of the cache that one pretraining has filled and that the next one reads."""
    trial.still()
    if not (found := sorted(filter(_counts, trial.tree.folder.glob("state/features/*/**/*")))):
        raise Missed
    said = "" if trial.chained else f"; then {trial.tree.cut('pretrain', 'vikdf', trial.draw)} is done again"
    return harmed(trial, trial.draw.choice(found)) + said


def checkpoint(trial: Trial) -> str:
    """SIGKILL as soon as a checkpoint, a piece or a chunk is there, which is then harmed."""
    for _ in range(TRIES):
        if not trial.chained or not trial.tree.unequal():
            trial.tree.cut(trial.draw.choices(list(KEEP), list(KEEP.values()))[0], "", trial.draw)
        command = trial.tree.start(trees.snakemake(trial.tree.cores))
        while command.alive():
            if _kept(trial.tree.folder):
                command.signal(signal.SIGKILL)
                command.gone()
                if there := _kept(trial.tree.folder):
                    return "SIGKILL, then " + harmed(trial, trial.draw.choice(there))
                break
            time.sleep(0.002)
    raise Missed


def _kept(tree: Path) -> list[Path]:
    """The files of whole checkpoints, pieces and chunks."""
    whole = [path for stage in KEEP for path in sorted(tree.glob(f"state/{stage}/*/checkpoints/[0-9]*"))]
    return [file for path in whole for file in (sorted(path.glob("*")) if path.is_dir() else [path])]


def full_disk(trial: Trial) -> str:
    """state/ or results/ moves to a small disk, which runs full; who mends it gives it more room."""
    trial.still()
    name, room = trial.draw.choice(["state", "results"]), int(trial.draw.uniform(*ROOM))
    if not trial.chained:
        trial.cut({stage: CHEAP[stage] for stage in ("pretrain", "finetune")})
    place = trial.tree.folder / name
    if not os.path.ismount(place):
        aside = place.rename(place.with_name(f"{name}.moved"))
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "tmpfs", place], check=True)
        shutil.copytree(aside, place, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(aside)
    at = os.statvfs(place)
    _resize(place, (at.f_blocks - at.f_bfree) * at.f_frsize + room)
    rc = trial.tree.start(trees.snakemake(trial.tree.cores)).wait()
    _resize(place, LARGE)
    if rc == 0:  # what was left to do took less
        raise Missed
    return f"{name}/ with {room / 1e6:.2f} MB left ran full, then grew"


def _resize(place: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)


@dataclass
class Kind:
    """One kind of fault; `times` of 60; `chains`: also in a tree that is not cut back."""

    strike: Callable[[Trial], str]
    times: int
    chains: bool = True


DATA = ["data/sources/*", "data/sources/world/**/*", "data/filter/*", "data/caption/*", "data/dialogues/*"]
ENDS = ["results/table1.*", "results/evaluate/examples/*", "state/seals/**/*.json"]
RESULTS = ["results/pretrain/*/*", "results/finetune/*/*", "results/generate/*", "results/evaluate/*"]
KINDS = {
    "SIGKILL to all processes of a run": Kind(_to_group(signal.SIGKILL), 6),
    "SIGTERM to all processes of a run": Kind(_to_group(signal.SIGTERM), 5),
    "Ctrl-C": Kind(_to_group(signal.SIGINT), 2),
    "SIGKILL to one stage's process": Kind(_to_one(signal.SIGKILL), 4),
    "SIGTERM to one stage's process": Kind(_to_one(signal.SIGTERM), 3),
    "SIGKILL to snakemake alone": Kind(engine_alone, 3),
    "harm: product in data/": Kind(_harm(*DATA), 5),
    "harm: backbone": Kind(_harm("data/backbones/*/*"), 3),
    "harm: shard or its index": Kind(_harm("data/shards/*"), 3),
    "harm: product in results/": Kind(_harm(*RESULTS), 6),
    "harm: table, answers or seal": Kind(_harm(*ENDS, then=False), 1),
    "harm: product kept in state/": Kind(
        _harm("state/*/*/product/**/*", "state/*/*/product.json", "state/*/*/asked.json"), 4
    ),
    "harm: cached features": Kind(features, 2),
    "harm: checkpoint, piece or chunk": Kind(checkpoint, 4),
    "harm: journal, or what was sent of it": Kind(_harm("state/**/journal.jsonl", "state/*/*/mlflow.json"), 2),
    "harm: the tracking store": Kind(_harm("mlflow.db"), 2),
    "disk full": Kind(full_disk, 3),
    "tracking server killed": Kind(network.tracking_server, 1, chains=False),
    "hosts of the pictures fall silent": Kind(network.silent_hosts, 1, chains=False),
}


def drawn(number: int, seed: int, only: str, chained: bool) -> list[str]:
    """Which kinds are tried, in which order: by their share of 60, and then by lot."""
    usable = {name: kind for name, kind in KINDS.items() if only in name and (kind.chains or not chained)}
    if not usable:
        raise ValueError(f"no kind of fault has {only!r} in its name; the kinds are: {', '.join(KINDS)}")
    lot, whole = random.Random(f"{seed} {number}"), sum(kind.times for kind in usable.values())
    names = [name for name, kind in usable.items() for _ in range(number * kind.times // whole)]
    left = lot.choices(list(usable), [kind.times for kind in usable.values()], k=number - len(names))
    names += left
    lot.shuffle(names)
    return names
