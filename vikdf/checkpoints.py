"""Where a training run stands, on disk: a folder a checkpoint: weights, moments, random numbers and the best state.

In: the trained tensors, an optimizer, a Progress. Out: checkpoints/<step>/, written aside and renamed, with the sha256
of each part in state.json; the one before stays beside it and serves when the newest is damaged. Safetensors and
JSON only.
Used by vikdf.loop.
"""

import json
import random
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from vikdf import files


@dataclass
class Progress:
    """Where a run stands, as state.json keeps it."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    curves: list[dict] = field(default_factory=list)  # {step, <loss>: mean since the point before}
    window: list[dict] = field(default_factory=list)  # the steps since the last point
    best: dict | None = None  # {step, validation}: the state that is kept


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> torch.Tensor:
    """Every generator's state in one row of whole numbers, so that the processes' rows can be gathered and kept."""
    _, words, gauss = random.getstate()
    _, keys, place, has_gauss, cached = np.random.get_state()
    floats = np.array([gauss or 0.0, cached]).view(np.int64)
    device = torch.cuda.get_rng_state() if torch.cuda.is_available() else torch.empty(0, dtype=torch.uint8)
    numbers = [*words, int(gauss is not None), *keys.tolist(), place, has_gauss, *floats.tolist()]
    return torch.cat([torch.tensor(numbers), torch.get_rng_state().long(), device.long()])  # [625 + 1 + 624 + 4 + ...]


def set_random_state(state: torch.Tensor) -> None:
    numbers = state[:1254].tolist()
    gauss, cached = np.array(numbers[1252:], dtype=np.int64).view(np.float64)
    random.setstate((3, tuple(numbers[:625]), float(gauss) if numbers[625] else None))
    np.random.set_state(("MT19937", np.array(numbers[626:1250], dtype=np.uint32), numbers[1250], numbers[1251], cached))
    size = torch.get_rng_state().numel()
    torch.set_rng_state(state[1254 : 1254 + size].to(torch.uint8))
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(state[1254 + size :].to(torch.uint8))


def save(folder: Path, at: Progress, trained: dict, optimizer, best: dict | None, accelerator: Accelerator) -> None:
    """Writes checkpoints/<step>/ whole, state.json with the digests of the rest; keeps it and the one before."""
    states = accelerator.gather(random_state()[None].to(accelerator.device)).cpu()  # [processes, numbers]
    if accelerator.is_main_process:
        parts = {
            "weights": dict(trained),
            "optimizer": _moments(optimizer),
            "random": {"states": states},
            "best": best or {},
        }
        with files.whole(folder / f"{at.step:08d}") as aside:
            aside.mkdir()
            for name, tensors in parts.items():
                save_file(
                    {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
                    aside / f"{name}.safetensors",
                )
            digests = {name: files.sha256(aside / f"{name}.safetensors") for name in parts}
            (aside / "state.json").write_text(json.dumps({**vars(at), "sha256": digests}, sort_keys=True))
        for old in sorted(path for path in folder.iterdir() if path.name.isdigit())[:-2]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def resume(folder: Path, trained: dict, optimizer, accelerator: Accelerator) -> tuple[Progress, dict | None]:
    """Puts the newest whole checkpoint in place."""
    path, state = newest(folder)
    if path:
        put(trained, load_file(path / "weights.safetensors"))
        _put_moments(optimizer, load_file(path / "optimizer.safetensors"))
        states = load_file(path / "random.safetensors")["states"]
        if len(states) != accelerator.num_processes:
            raise ValueError(
                f"{path} is of {len(states)} processes, this run has {accelerator.num_processes}: start as many"
            )
        set_random_state(states[accelerator.process_index])
        return Progress(**state), load_file(path / "best.safetensors") or None
    return Progress(), None


def newest(folder: Path) -> tuple[Path | None, dict]:
    """The newest whole checkpoint and its state.json; a damaged one is named, and the one before it serves."""
    for path in sorted((path for path in folder.glob("*") if path.name.isdigit()), reverse=True):
        try:
            state = files.read_json(path / "state.json")
            for name, digest in state.pop("sha256").items():
                if files.sha256(path / f"{name}.safetensors") != digest:
                    raise ValueError(f"{name}.safetensors has changed since it was written")
            return path, state
        except (ValueError, OSError) as error:
            print(f"the checkpoint {path} is damaged ({error}): the one before it serves", file=sys.stderr)
    return None, {"step": 0}


def _moments(optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def _put_moments(optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def put(trained: dict, weights: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, value in trained.items():
            value.copy_(weights[name])
