"""Where a training run stands, on disk: a folder a checkpoint: weights, moments, random numbers and the best state.

In: the trained tensors, an optimizer, a Progress. Out: checkpoints/<step>/, written aside and renamed, with the sha256
of each part in state.json, which has its own; the one before stays beside it and serves when the newest is damaged.
Safetensors and JSON only.
Used by vikdf.loop.
"""

import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from vikdf import files
from vikdf.state import newest, standing


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
    """Writes checkpoints/<step>/ whole, state.json with the digests of all; keeps it and the one before."""
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
                tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
                files.save_tensors(tensors, aside / f"{name}.safetensors")
            digests = {path.name: files.sha256(path) for path in aside.glob("*.safetensors")}
            files.write_checked(aside / "state.json", vars(at) | {"sha256": digests})
        for old in standing(folder)[2:]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def resume(folder: Path, trained: dict, optimizer, accelerator: Accelerator) -> tuple[Progress, dict | None]:
    """Puts the newest whole checkpoint in place; damaged ones go."""
    path, state = newest(folder)
    at, best = Progress(), None
    if path:
        put(trained, load_file(path / "weights.safetensors"))
        _put_moments(optimizer, load_file(path / "optimizer.safetensors"))
        states = load_file(path / "random.safetensors")["states"]
        if len(states) != accelerator.num_processes:
            raise ValueError(
                f"{path} is of {len(states)} processes, this run has {accelerator.num_processes}: start as many"
            )
        set_random_state(states[accelerator.process_index])
        at, best = Progress(**state), load_file(path / "best.safetensors") or None
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for damaged in standing(folder)[: standing(folder).index(path) if path else None]:
            shutil.rmtree(damaged)  # so that of the two that stay, both are whole
    return at, best


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
