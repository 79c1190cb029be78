"""kill -9 during fetch, filter, caption and shards, then the same command again: the same bytes as without the kill.

In: generated pictures, a web on loopback, random models. Out: nothing; all is temporary. The whole process group is
killed, once the work itself has begun: at a drawn number of requests, or a drawn time after the bar's first sign.
Run: pytest tests/test_kills.py; five moments a stage with `pytest -m long tests/test_kills.py`.
"""

import contextlib
import hashlib
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import campaign
import pytest
import web_of_failures
from campaign import command, environment
from checkpoints import write_clip
from web_of_failures import picture

from vikdf import schemas
from vikdf.world import web as world_web

WORDS = "red green blue kettle vase boat tree on in near the table beach road hill".split()
ROWS, CAPTIONED, FETCHED = 3000, 700, 240  # rows of filter and shards, of caption, of fetch
PASSES = {"sources": 1, "retries": 2}  # of the two fetches; each pass of a fetch starts a worker, which takes its time
WRITING = 2.0  # seconds that sources takes after its last request
LASTS = 1.0  # seconds after the bar's first sign within which a moment is drawn
TRIES = 6  # a moment that came too late is drawn again, earlier


@dataclass
class Stage:
    """A stage's flags but for its folders, where its products go, and what tells that its work has begun."""

    flags: dict
    output: str  # below the run's folder
    begun: Callable[[str], bool]  # of what it has written on the screen
    requests: int = 0  # that a fetch makes in all: a tenth of the urls fails in a way that may pass, and is asked again


def bar(name: str) -> Callable[[str], bool]:
    """The stage's progress bar has appeared."""
    return lambda said: re.search(rf"{name}[^\r\n]*\[\d\d:\d\d", said) is not None


def caption_of(number: int) -> str:
    draw = random.Random(number)
    return " ".join(["a", *draw.choices(WORDS, k=6), "and the number", "x" * (number % 7 + 1)])


def row(number: int) -> dict:
    captions = [caption_of(number), caption_of(number + 100_000)]
    about = {"key": f"made-{number:09d}", "source": "made", "url": "", "captions": captions, "status": "ok"}
    return about | {"width": 64, "height": 64, "image": picture(f"{number}.jpg")}


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Each stage with inputs of its own: (what runs it, the web's count of requests)."""
    root = tmp_path_factory.mktemp("inputs")
    rows = [row(number) for number in range(ROWS)]
    schemas.write(rows, root / "pairs.parquet", schemas.PAIRS)
    schemas.write(rows[:CAPTIONED], root / "few.parquet", schemas.PAIRS)
    said = [{"key": each["key"], "source": "made", "caption": each["captions"][0]} for each in rows]
    fixed = {"origin": "web", "score": 0.5, "rank": 0, "used": True, "dropped": ""}
    schemas.write([each | fixed for each in said], root / "captions.parquet", schemas.CAPTIONS)
    captioner = campaign.write_captioner(root / "captioner", [each["captions"][0] for each in rows])
    caption = {"pairs": root / "few.parquet", "captioner": captioner, "clip": write_clip(root / "clip")}
    caption |= {"forbid_joint": {"lexicon": None}, "batch": 50, "candidates": 2, "max_new_tokens": 4}
    with web_of_failures.serve(delay=0.02) as web:
        kinds = ["ok"] * 7 + ["404", "html", "500"]
        urls = [web.url(kinds[number % len(kinds)], f"{number}.jpg") for number in range(FETCHED)]
        (root / "list.tsv").write_text("".join(f"{caption_of(n)}\t{url}\n" for n, url in enumerate(urls)))
        fetch = campaign.FETCH | {"urls_per_shard": 40, "threads": 4, "world": {"port": web.port}}
        fetch |= {"corpora": {"cc3m": {"form": "cc3m", "list": str(root / "list.tsv")}}}
        yield (
            {
                **{
                    name: Stage(fetch | {"passes": passes}, "sources", lambda said: True, FETCHED * (9 + passes) // 10)
                    for name, passes in PASSES.items()
                },
                "filter": Stage({"pairs": [root / "pairs.parquet"]}, "filter", bar("look at")),
                "caption": Stage(caption, "caption", bar("caption")),
                "shards": Stage(
                    {"captions": root / "captions.parquet", "pairs": root / "pairs.parquet"}, "shards", bar("shards")
                ),
            },
            web,
        )


def word(name: str) -> str:
    return "sources" if name in PASSES else name


def flags_of(name: str, stage: Stage, folder: Path) -> dict:
    """All flags of the stage: the shipped ones, its own, and where its products and its work go."""
    work = {"caption": {"state_root": folder / "state"}, "shards": {}}.get(name, {"state": folder / "state"})
    return campaign.shipped(word(name)) | stage.flags | {"output": folder / stage.output} | work


def start(name: str, stage: Stage, folder: Path) -> tuple[subprocess.Popen, Path]:
    folder.mkdir(exist_ok=True)
    with open(folder / "said.txt", "wb") as said:
        asked = command(word(name), **flags_of(name, stage, folder))
        process = subprocess.Popen(
            asked, cwd=campaign.ROOT, env=environment(), stdout=said, stderr=said, start_new_session=True
        )
    return process, folder / "said.txt"


def whole(name: str, stage: Stage, folder: Path) -> dict[str, str]:
    """Runs the stage to its end; gives the sha256 of every file that it made, whatever its name."""
    place, function = {"filter": ("filter.__main__", "filter_pairs")}.get(name, (word(name), word(name)))
    with pytest.MonkeyPatch.context() as patched:  # in this process, where the libraries are loaded already
        patched.setattr(world_web, "serve", lambda _: contextlib.nullcontext())  # our web stands at its port
        getattr(importlib.import_module(f"vikdf.{place}"), function)(**flags_of(name, stage, folder))
    made = folder / stage.output
    files = {str(path.relative_to(made)): path for path in made.rglob("*") if path.is_file()}
    return {path: hashlib.sha256(files[path].read_bytes()).hexdigest() for path in sorted(files)}


def begun(process: subprocess.Popen, told: Callable[[], bool]) -> bool:
    """Waits until the work has begun; False if it has ended before."""
    while process.poll() is None:
        if told():
            return True
        time.sleep(0.002)
    return False


def kill(name: str, stage: Stage, folder: Path, web, share: float, first: int, alone: bool) -> None:
    """Begins the work and kills its process group inside of it; `share` says how late, above 1 when all is fetched.

    first: requests that the web had seen before this folder's own; alone: only the first process is killed
    """
    for _ in range(TRIES):
        before, (process, said) = web.asked.total(), start(name, stage, folder)
        if stage.requests:
            left = stage.requests - (before - first)  # what a run that goes on asks at least
            wanted = before + max(1, int(min(share, 1) * left))
            inside = begun(process, lambda wanted=wanted: web.asked.total() >= wanted)
            time.sleep(max(0, share - 1) * WRITING)
        elif inside := begun(process, lambda said=said: stage.begun(said.read_text())):
            time.sleep(share * LASTS)
        if inside and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL) if alone else os.killpg(process.pid, signal.SIGKILL)
            if process.wait() == -signal.SIGKILL:
                return
        assert process.wait(300) == 0, said.read_text()[-3000:]
        shutil.rmtree(folder)  # it was done before the moment came: once more, and earlier
        share, first = share / 3, web.asked.total()
    raise AssertionError(f"{name} was never killed inside its work")


@pytest.fixture(scope="module")
def undisturbed(stages, tmp_path_factory):
    """The products of each stage that nobody disturbed, made when first asked for."""
    made, held = {}, tmp_path_factory.mktemp("undisturbed")

    def of(name: str) -> dict[str, str]:
        if name not in made:
            made[name] = whole(name, stages[0][name], held / name)
        return made[name]

    return of


def survives(name: str, shares: list[float], stages, undisturbed, folder: Path, alone: bool = False) -> None:
    stage, web = stages[0][name], stages[1]
    first = web.asked.total()
    for share in shares:
        kill(name, stage, folder, web, share, first, alone)
    assert whole(name, stage, folder) == undisturbed(name)


@pytest.mark.parametrize("name", ["sources", "filter", "caption", "shards"])
def test_a_killed_stage_that_runs_again_makes_the_same_bytes(name, stages, undisturbed, tmp_path):
    survives(name, [random.Random(name).uniform(0.2, 0.9)], stages, undisturbed, tmp_path / name)


@pytest.mark.long
@pytest.mark.parametrize("moment", range(5))
@pytest.mark.parametrize("name", ["retries", "filter", "caption", "shards"])
def test_a_stage_killed_twice_at_any_moment_makes_the_same_bytes(name, moment, stages, undisturbed, tmp_path):
    draw = random.Random(f"{name} {moment}")
    survives(name, [draw.random(), draw.random()], stages, undisturbed, tmp_path / name)


@pytest.mark.long
def test_a_fetch_whose_first_process_alone_is_killed_is_not_spoilt_by_the_workers_that_outlive_it(
    stages, undisturbed, tmp_path
):
    survives("retries", [0.3, 0.6], stages, undisturbed, tmp_path / "sources", alone=True)


@pytest.mark.long
def test_sources_killed_while_it_writes_its_tables_makes_the_same_files_and_no_others(stages, undisturbed, tmp_path):
    survives("retries", [1.2, 1.5, 1.9], stages, undisturbed, tmp_path / "sources")
