"""What baselines learn from pairs: same seed, same bytes; killed or stopped, it goes on to them; the best state is kept."""

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import maria_parts
import pytest
import test_imgvae
import test_zrigf
import torch
import yaml
from accelerate.state import AcceleratorState
from test_bart import write_bart
from test_pretrain import TRAINING, shards, untracked  # noqa: F401 - fixtures

from vikdf import files, loop, order, params, pretrain_baseline, systems
from vikdf.baselines.parts.retriever import RetrieverLesson
from vikdf.pretrain_baseline import Pairs
from vikdf.samples import Shards

ROOT = Path(__file__).resolve().parent.parent
HELD_BACK, ROWS = 4, 40
NUMBERS = TRAINING | {"steps": 6, "checkpoint_every": 2, "validate_every": 2, "warmup": 0.0}
# Dropout and noise in all of them: random numbers that a run which goes on must find where the other left them.
ENTRIES = {
    "maria": maria_parts.ENTRY | {"retriever": maria_parts.RETRIEVER | {"dropout": 0.3}},
    "zrigf": test_zrigf.ENTRY,
    "imgvae": test_imgvae.ENTRY | {"dropout": 0.3},
}


class Killed(Exception):
    """Stands for kill -9: nothing is written any more."""


@pytest.fixture(scope="module")
def frozen(backbones, tmp_path_factory) -> dict[str, Path]:
    """Of each kind the folder of its backbones."""
    root = tmp_path_factory.mktemp("frozen")
    write_bart(root / "zrigf/bart")
    test_zrigf.write_vit(root / "zrigf/vit")
    maria = maria_parts.folders(root / "maria", dropout=0.3)
    return {"maria": maria, "zrigf": root / "zrigf", "imgvae": backbones["clip"].parent}


@pytest.fixture
def asked(shards, frozen, tmp_path):  # noqa: F811
    """(kind, name of a folder, changes) -> the stage's arguments."""

    def made(kind: str, name: str, entry: dict | None = None, seed: int = 1, **changed) -> dict:
        folders = {"shards": shards, "backbones": frozen[kind]}
        folders |= {"output": tmp_path / name / "out", "state_root": tmp_path / name / "state"}
        told = {"system": kind, "seed": seed, "held_back": HELD_BACK, "training": NUMBERS | changed}
        return folders | told | {"entry": ENTRIES[kind] | (entry or {})}

    return made


@pytest.fixture
def learn(asked):
    def run(*about, **changed) -> Path:
        arguments = asked(*about, **changed)
        pretrain_baseline.pretrain_baseline(**arguments)
        return arguments["output"]

    return run


@pytest.fixture
def fetched(monkeypatch):
    """What training asks for: a list a batch, of (epoch, row); `before(number)` is called before the batch is made."""

    class Fetched(list):
        before = staticmethod(lambda number: None)

    found, batch = Fetched(), Pairs.batch

    def spied(self, picked):
        if len(self.rows) > HELD_BACK:
            found.append(picked)
            found.before(len(found))
        return batch(self, picked)

    monkeypatch.setattr(Pairs, "batch", spied)
    return found


def dies_at(number: int):
    def kill(asked: int) -> None:
        if asked == number:
            raise Killed

    return kill


def judged(monkeypatch, *values: float) -> None:
    """Validations give these values, one after the other, then the last one on."""
    told, own = itertools.chain(values, itertools.repeat(values[-1])), RetrieverLesson.judge
    monkeypatch.setattr(RetrieverLesson, "judge", lambda self, batches: own(self, batches) | {"validation": next(told)})


def weights(product: Path) -> str:
    return files.sha256(product / "retriever.safetensors")


def curves(product: Path) -> list[dict]:
    return [json.loads(line) for line in (product / "curves.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ENTRIES)
def test_killed_and_begun_again_it_ends_at_the_bytes_of_a_run_that_was_not(learn, fetched, kind):
    whole = learn(kind, "whole")
    assert len(fetched) == 6
    fetched.clear()
    fetched.before = dies_at(5)
    with pytest.raises(Killed):
        learn(kind, "parts")
    fetched.clear()
    fetched.before = dies_at(0)
    torch.rand(7)  # a new process would not find the random numbers where this one left them
    again = learn(kind, "parts")
    assert len(fetched) == 2  # steps 5 and 6: four stood in the checkpoint
    assert {path.name for path in again.iterdir()} > {"tuned.json", "curves.jsonl", "metrics.json"}
    assert files.sha256(again) == files.sha256(whole)


@pytest.mark.parametrize("kind", ENTRIES)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(learn, kind):
    first = files.sha256(learn(kind, "first", steps=2))
    assert files.sha256(learn(kind, "again", steps=2)) == first
    assert files.sha256(learn(kind, "other", steps=2, seed=2)) != first


def test_stopped_by_a_signal_it_says_so_and_goes_on_to_the_same_bytes(learn, fetched):
    whole = learn("maria", "whole")
    fetched.clear()
    fetched.before = lambda number: os.kill(os.getpid(), signal.SIGTERM) if number == 3 else None
    with pytest.raises(InterruptedError, match="SIGTERM after step 3 of 6; nothing is lost"):
        learn("maria", "parts")
    fetched.before = dies_at(0)
    assert files.sha256(learn("maria", "parts")) == files.sha256(whole)


@pytest.mark.parametrize("kind", ENTRIES)
def test_in_half_precision_what_is_frozen_takes_half_the_memory_and_what_is_trained_stays_whole(
    learn, monkeypatch, kind
):
    trained, train = [], loop.train
    whole = scores(learn(kind, "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(AcceleratorState, "_shared_state", {})  # of a process: in one precision for good
        patch.setattr(
            loop, "train", lambda lesson, *about, **how: trained.append(lesson) or train(lesson, *about, **how)
        )
        half = scores(learn(kind, "half", precision="bfloat16"))
    kept = {(value.requires_grad, value.dtype) for value in trained[0].parameters()}
    assert kept == {(True, torch.float32), (False, torch.bfloat16)}
    assert half["validation"] == pytest.approx(whole["validation"], rel=0.05) and half != whole


def scores(product: Path) -> dict[str, float]:
    return files.read_json(product / "metrics.json")


def test_loader_processes_do_not_change_a_byte(learn):
    assert files.sha256(learn("imgvae", "two", workers=2)) == files.sha256(learn("imgvae", "none"))


def test_the_state_with_the_lowest_validation_is_kept_and_not_the_last(learn, monkeypatch):
    judged(monkeypatch, 3, 1, 2)
    kept = learn("maria", "best")
    assert files.read_json(kept / "metrics.json")["best_step"] == 4
    judged(monkeypatch, 3, 1)
    assert weights(kept) == weights(learn("maria", "four", steps=4))
    judged(monkeypatch, 3, 2, 1)
    assert weights(kept) != weights(learn("maria", "last"))


def test_the_best_state_outlives_a_kill(learn, fetched, monkeypatch):
    judged(monkeypatch, 1)
    two = learn("maria", "two", steps=2)
    fetched.clear()
    fetched.before = dies_at(5)
    judged(monkeypatch, 1, 2)
    with pytest.raises(Killed):
        learn("maria", "parts")
    fetched.before = dies_at(0)
    judged(monkeypatch, 3)
    kept = learn("maria", "parts")
    assert files.read_json(kept / "metrics.json")["best_step"] == 2 and weights(kept) == weights(two)


def test_metrics_are_those_of_the_state_that_is_kept(learn):
    product = learn("maria", "a", learning_rate=0.01)
    metrics = files.read_json(product / "metrics.json")
    found = {point["step"]: point["validation"] for point in curves(product) if "validation" in point}
    assert list(found) == [2, 4, 6] and metrics["best_step"] == min(found, key=found.get)
    assert metrics["validation"] == pytest.approx(min(found.values()), rel=1e-5)
    assert metrics["steps"] == 6 and metrics["recall_at_1_by_chance"] == 1 / HELD_BACK


def test_what_was_trained_is_told_by_name_and_nothing_frozen(learn, frozen):
    product = learn("maria", "a", steps=2)
    tuned = files.read_json(product / "tuned.json")
    made = systems.named(ENTRIES["maria"]).pretrainer(ENTRIES["maria"], systems.Places(frozen["maria"]), 1)
    assert tuned == {name: value.numel() for name, value in made.named_parameters() if ".head." in name}
    assert files.read_json(product / "metrics.json")["tuned_params"] == sum(tuned.values())


def test_pairs_that_are_held_back_are_judged_and_never_trained_on(shards, fetched, monkeypatch, learn):  # noqa: F811
    trained, seen, forward, judge = set(), set(), RetrieverLesson.forward, RetrieverLesson.judge

    def learns(self, batch, whole):
        trained.update(batch["keys"])
        return forward(self, batch, whole)

    def judges(self, batches):
        assert not self.training and not torch.is_grad_enabled()
        batches = [*batches]
        seen.update(key for batch in batches for key in batch["keys"])
        return judge(self, iter(batches))

    monkeypatch.setattr(RetrieverLesson, "forward", learns)
    monkeypatch.setattr(RetrieverLesson, "judge", judges)
    learn("maria", "a", micro_batch=12)  # three batches an epoch: each pair twice
    assert len(seen) == HELD_BACK and len(trained) == ROWS - HELD_BACK and not seen & trained
    assert seen | trained == {f"test-{i:09d}" for i in range(ROWS)}


def test_too_few_pairs_to_hold_one_back_are_refused_before_the_first_step(learn, fetched, monkeypatch):
    monkeypatch.setattr(Shards, "__len__", lambda self: 9)
    with pytest.raises(ValueError, match="the shards hold 9 image-text pairs, but at least 10 are needed"):
        learn("maria", "a")
    assert not fetched


def test_a_batch_holds_each_picture_with_a_caption_of_its_own_drawn_anew_each_epoch(shards, frozen):  # noqa: F811
    made = systems.named(ENTRIES["maria"]).pretrainer(ENTRIES["maria"], systems.Places(frozen["maria"]), 1)
    data, drawn = Shards(shards), set()
    pairs = Pairs(made, data, [5, 9, 20], 1)
    for epoch in range(12):
        batch = pairs.batch([(epoch, 2), (epoch, 0)])
        for row, place in enumerate((20, 5)):
            assert batch["captions"][row] in data[place]["captions"] and batch["keys"][row] == data[place]["key"]
            assert torch.equal(batch["pictures"][row], made.prepare(data[place]["image"]))
        assert batch["lots"] == [order.lot(1, epoch, 2), order.lot(1, epoch, 0)]
        drawn.add((20, batch["captions"][0]))
    assert len(drawn) == 2


def test_finished_work_is_exported_and_only_what_pretraining_reads_makes_it_anew(learn, monkeypatch):
    first = files.sha256(learn("maria", "a", steps=2))
    monkeypatch.setattr(pretrain_baseline, "train", lambda *_: pytest.fail("trained twice"))
    (of_tuning := {"fractions": ["zero"], "steps": {"reddit": 7, "image_chat": 7}})["training"] = {"warmup": 0.5}
    assert files.sha256(learn("maria", "a", of_tuning, steps=2)) == first
    with pytest.raises(pytest.fail.Exception, match="trained twice"):
        learn("maria", "a", {"index": {"kind": "flat", "most_pictures": 9}}, steps=2)


def test_an_entry_that_does_not_say_when_to_validate_is_refused_before_the_first_job(tmp_path):
    told = yaml.safe_load((ROOT / "params.yaml").read_text())
    del told["baselines"]["maria"]["pretrain"]["validate_every"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(told))
    with pytest.raises(ValueError, match="validate_every"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.long
@pytest.mark.parametrize("kind", ENTRIES)
def test_a_real_kill_of_the_process_loses_nothing(asked, tmp_path, kind):
    """SIGKILL once a checkpoint stands, then the same command."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}

    def command(name: str) -> list[str]:
        told = {
            flag: str(value) if isinstance(value, Path) else value
            for flag, value in asked(kind, name, steps=40).items()
        }
        return [sys.executable, "-m", "vikdf.pretrain_baseline", *shlex.split(params.as_flags(told))]

    subprocess.run(command("whole"), check=True, cwd=tmp_path, env=environment, capture_output=True)
    child = subprocess.Popen(command("parts"), cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while child.poll() is None and not [*(tmp_path / "parts/state").glob("pretrain/*/checkpoints/0*/state.json")]:
        time.sleep(0.01)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    subprocess.run(command("parts"), check=True, cwd=tmp_path, env=environment, capture_output=True)
    assert files.sha256(tmp_path / "parts/out") == files.sha256(tmp_path / "whole/out")
