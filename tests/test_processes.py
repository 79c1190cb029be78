"""A step over several micro-batches and processes is the step over the whole batch: loss and every gradient."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("one_step.py")
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
FOUR, FIVE = ["tamim", "iamtm", "iaci", "iakr"], ["tim", "tamim", "iamtm", "iaci", "iakr"]
LORA = {"settings": {"lora_rank": 2, "tune_iqformer": False}}
SLOTS = {
    "settings": {"iakr_input": "slots"}
}  # without IACI nothing reads K then: the layer into the LLM is not trained
STEPS = {  # name -> (losses, processes, micro_batch, accumulate, more)
    "four 1x8": (FOUR, 1, 8, 1, {}),
    "four 1x1x8": (FOUR, 1, 1, 8, {}),
    "four 2x4": (FOUR, 2, 4, 1, {}),
    "four 2x2x2": (FOUR, 2, 2, 2, {}),
    "five 1x8": (FIVE, 1, 8, 1, {}),
    "five 2x4": (FIVE, 2, 4, 1, {}),
    "five 2x4 spread": (FIVE, 2, 4, 1, {"shard_llm": True}),
    "nll 1x8": (["nll"], 1, 8, 1, {}),
    "nll 1x1x8": (["nll"], 1, 1, 8, {}),
    "nll 2x4": (["nll"], 2, 4, 1, {}),
    "lora 1x8": (["nll"], 1, 8, 1, LORA),
    "lora 2x4": (["nll"], 2, 4, 1, LORA),
    "slots 1x8": (["iakr"], 1, 8, 1, SLOTS),
    "slots 2x4": (["iakr"], 2, 4, 1, SLOTS),
    "hurt 2x2x2": (FOUR, 2, 2, 2, {"settings": {"hurt": 5}}),
}


@pytest.fixture(scope="module")
def folder(backbones, tmp_path_factory) -> Path:
    """Losses and gradients of all steps; one start of Python for one process, one for two."""
    folder = tmp_path_factory.mktemp("steps")
    (folder / "backbones").symlink_to(backbones["llm"].parent)
    for processes, launch in {1: [], 2: TWO}.items():
        asked = [
            {
                "name": name,
                "losses": losses,
                "processes": processes,
                "micro_batch": micro,
                "accumulate": times,
                "settings": {},
                **more,
            }
            for name, (losses, count, micro, times, more) in STEPS.items()
            if count == processes
        ]
        done = run(launch, folder, asked)
        assert done.returncode == 0, done.stderr[-5000:]
    return folder


def run(launch: list[str], folder: Path, asked: list[dict]) -> subprocess.CompletedProcess:
    command = [sys.executable, *launch, str(SCRIPT), str(folder), json.dumps(asked)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        pytest.param("four 1x1x8", "four 1x8", id="eight accumulated rows"),
        pytest.param("four 2x4", "four 1x8", id="two processes of four"),
        pytest.param("four 2x2x2", "four 1x8", id="two processes that accumulate two of two"),
        pytest.param("five 2x4", "five 1x8", id="two processes whose rows TIM contrasts with each other"),
        pytest.param("five 2x4 spread", "five 1x8", id="two processes with the language model spread over them"),
        pytest.param("nll 1x1x8", "nll 1x8", id="fine-tuning, eight accumulated rows"),
        pytest.param("nll 2x4", "nll 1x8", id="fine-tuning, two processes of four"),
        pytest.param("lora 2x4", "lora 1x8", id="LoRA, two processes of four"),
        pytest.param("slots 2x4", "slots 1x8", id="IAKR with slots alone, two processes of four"),
    ],
)
def test_a_step_in_parts_is_the_step_over_the_whole_batch(folder, parts, whole):
    losses, plain = (json.loads((folder / f"{name}.json").read_text()) for name in (parts, whole))
    assert losses == pytest.approx(plain, rel=1e-5)
    gradients, expected = (load_file(folder / f"{name}.safetensors") for name in (parts, whole))
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        assert value.abs().max() > 0 or "lora_A" in name, name  # LoRA's B begins at zero, and so does A's gradient
        torch.testing.assert_close(
            gradients[name], value, atol=2e-6, rtol=2e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_every_process_names_the_rows_where_a_loss_of_one_of_them_is_not_finite(folder):
    said = [(folder / f"hurt 2x2x2-{rank}.txt").read_text() for rank in range(2)]
    named = re.search("tamim is nan at step 1, rows (row [0-9]), (row [0-9]): nothing was updated", said[0])
    assert said[0] == said[1] and "row 5" in named.groups()  # the micro-batch with that row, of whichever process
    assert not (folder / "hurt 2x2x2.json").exists()


def test_two_processes_with_loader_workers_that_are_stopped_go_on_bit_for_bit(folder):
    asked = {
        "losses": ["nll"],
        "settings": {},
        "processes": 2,
        "micro_batch": 2,
        "accumulate": 2,
        "workers": 2,
        "steps": 60,
    }
    stopped = run(TWO, folder, [asked | {"name": "stopped", "stop_at": 5}])
    assert stopped.returncode != 0 and "stopped by SIGTERM after step" in stopped.stderr, stopped.stderr[-3000:]
    whole = run(TWO, folder, [asked | {"name": "stopped"}, asked | {"name": "uninterrupted"}])
    assert whole.returncode == 0, whole.stderr[-3000:]
    bytes_of = {name: (folder / f"{name}-weights.safetensors").read_bytes() for name in ("stopped", "uninterrupted")}
    assert bytes_of["stopped"] == bytes_of["uninterrupted"]
