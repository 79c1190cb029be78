"""The one training loop: accelerate places it (CPU, one GPU, many), and it goes on exactly where it was stopped.

In: an objective (a module whose `forward(batch)` gives (total, count, values): a loss summed over `count` targets, and
named means to show), a `fetch` that turns [(epoch, row), ...] into a batch, and the numbers of the run.
Out: the objective's trained parameters at their last or best state, and the curves. Used by pretrain and finetune.

A step divides the sum of `total` by the sum of `count` over all micro-batches and processes, so 1 x 8 equals 8 x 1.
Where the loop stands is (step, epoch, position), the weights, the optimizer's moments and every random number
generator; the schedule is a function of the step, the data that of seed and epoch (vikdf.order, vikdf.checkpoints).
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn
from tqdm import tqdm

from vikdf import checkpoints
from vikdf.checkpoints import Progress
from vikdf.order import Batches
from vikdf.signals import Signals

POINTS = 500  # of a curve: what a tracking store takes well; each is the mean of the steps since the one before
SCHEDULES = {  # (step, warm-up steps) -> factor on the learning rate
    "constant_after_warmup": lambda step, warmup: min(1.0, (step + 1) / max(1, warmup)),
}
PRECISIONS = {"float32": "no", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Numbers:
    """The numbers of a run; pretrain and finetune have them as keys of their sections, with the reasons there."""

    seed: int
    steps: int
    batch: int  # rows a step, over all processes
    micro_batch: int  # rows at once in a process
    learning_rate: float
    weight_decay: float
    schedule: str
    warmup: float  # share of the steps
    clip_norm: float
    precision: str
    workers: int
    checkpoint_every: int
    validate_every: int = 0


def train(
    objective: nn.Module,
    fetch: Callable,
    rows: int,
    numbers: Numbers,
    *,
    folder: Path,
    journal,
    validate: Callable[[], float] | None = None,
) -> Progress:
    """Trains what requires a gradient; with `validate`, ends at the state whose validation value was lowest.

    `folder` keeps the checkpoints; `journal` is a tracking.Run, or None where nothing is tracked.
    """
    accelerator = Accelerator(mixed_precision=PRECISIONS[numbers.precision])
    _assert_world(accelerator)
    rank, processes = accelerator.process_index, accelerator.num_processes
    checkpoints.seed_all(numbers.seed + 1_000_003 * rank)  # other dropout in each process
    trained = {name: value for name, value in objective.named_parameters() if value.requires_grad}
    model, optimizer = accelerator.prepare(objective.train(), _optimizer(trained, numbers))
    at, best = checkpoints.resume(folder, trained, optimizer, accelerator)
    batches = Batches(rows, numbers.batch, numbers.seed, at.epoch, at.position, rank, processes)
    loader = iter(_loader(fetch, batches, numbers))
    with (
        Signals() as signals,
        tqdm(total=numbers.steps, initial=at.step, unit="step", mininterval=5, disable=rank > 0) as bar,
    ):
        while at.step < numbers.steps:
            at.window.append(_step(accelerator, model, optimizer, trained, next(loader), numbers, at.step))
            at.step += 1
            at.epoch, at.position = batches.after(at.epoch, at.position)
            bar.update(1)
            if at.step % max(1, numbers.steps // POINTS) == 0 or at.step == numbers.steps:
                _show(_point(at), at.step, bar, journal)
            if validate and (at.step % numbers.validate_every == 0 or at.step == numbers.steps):
                best = _validated(validate, objective, accelerator, at, trained, best)
                _show({"validation": at.curves[-1]["validation"]}, at.step, bar, journal)
            stopped = _agreed(signals.name, accelerator)
            if stopped or (at.step % numbers.checkpoint_every == 0 and at.step < numbers.steps):
                checkpoints.save(folder, at, trained, optimizer, best, accelerator)
            if stopped:
                said = f"stopped by {stopped} after step {at.step} of {numbers.steps}"
                raise InterruptedError(f"{said}; nothing is lost: the same command goes on from there ({folder})")
    if best:
        checkpoints.put(trained, best)
    return at


def _step(accelerator, model, optimizer, trained: dict, parts: list, numbers: Numbers, step: int) -> dict[str, float]:
    """One update: the gradient of sum(total) / sum(count) over all micro-batches and processes."""
    factor = SCHEDULES[numbers.schedule](step, round(numbers.warmup * numbers.steps))
    for group in optimizer.param_groups:
        group["lr"] = numbers.learning_rate * factor
    sums, counts = {}, torch.zeros((), device=accelerator.device)
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            total, count, values = model(send_to_device(part, accelerator.device))
            accelerator.backward(total)
        counts = counts + count
        for name, value in values.items():
            sums[name] = sums.get(name, 0) + value.detach() * count
    counts = accelerator.reduce(counts, "sum")
    gradients = [value.grad for value in trained.values() if value.grad is not None]
    torch._foreach_mul_(gradients, accelerator.num_processes / counts)  # processes: DDP has averaged over them
    norm = accelerator.clip_grad_norm_(list(trained.values()), numbers.clip_norm)
    if not torch.isfinite(norm):
        raise ValueError(
            f"the gradient is {norm} at step {step + 1}: expected a finite one; lower learning_rate or clip_norm"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {name: (accelerator.reduce(value, "sum") / counts).item() for name, value in sums.items()}


def _optimizer(trained: dict, numbers: Numbers) -> torch.optim.AdamW:
    """AdamW; the decay pulls on matrices only, not on biases, norms and the temperature."""
    groups = [
        {"params": [value for value in trained.values() if value.ndim > 1], "weight_decay": numbers.weight_decay},
        {"params": [value for value in trained.values() if value.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=numbers.learning_rate, fused=True)


class _Fetched(torch.utils.data.Dataset):
    """The micro-batches of a batch of rows."""

    def __init__(self, fetch: Callable, size: int):
        self.fetch, self.size = fetch, size

    def __getitem__(self, rows: list[tuple[int, int]]) -> list:
        return [self.fetch(rows[start : start + self.size]) for start in range(0, len(rows), self.size)]


def _loader(fetch: Callable, batches: Batches, numbers: Numbers) -> torch.utils.data.DataLoader:
    """Not prepared by accelerate and with its own generator: only so is going on exact, with any number of workers."""
    generator = torch.Generator().manual_seed(numbers.seed)
    rows = _Fetched(fetch, numbers.micro_batch)
    return torch.utils.data.DataLoader(
        rows, sampler=batches, batch_size=None, num_workers=numbers.workers, generator=generator
    )


def _point(at: Progress) -> dict[str, float]:
    point = {name: sum(values[name] for values in at.window) / len(at.window) for name in at.window[0]}
    at.curves.append({"step": at.step, **point})
    at.window = []
    return point


def _show(values: dict[str, float], step: int, bar: tqdm, journal) -> None:
    bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
    if journal:
        journal.log(step, values)


def _validated(
    validate: Callable, objective, accelerator, at: Progress, trained: dict, best: dict | None
) -> dict | None:
    """Validates without touching the random numbers; gives the weights to keep."""
    state = checkpoints.random_state()
    objective.eval()
    with torch.no_grad(), accelerator.autocast():
        value = validate()
    objective.train()
    checkpoints.set_random_state(state)
    at.curves.append({"step": at.step, "validation": value})
    if at.best is None or value < at.best["validation"]:
        at.best = {"step": at.step, "validation": value}
        best = {name: weight.detach().cpu().clone() for name, weight in trained.items()}
    return best


def _agreed(noted: str, accelerator: Accelerator) -> str:
    """The signal's name, once any process has one: all of them then write the checkpoint together."""
    if accelerator.num_processes == 1:
        return noted
    some = accelerator.reduce(torch.tensor(float(bool(noted)), device=accelerator.device), "sum")
    return noted or ("a signal to another process" if some else "")


def _assert_world(accelerator: Accelerator) -> None:
    """`accelerate launch --cpu --num_processes 2` silently runs one process: better to say so than to train on half."""
    if accelerator.num_processes == 1 and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise ValueError(
            "several processes were asked for, one runs: start with `torchrun --nproc_per_node <number> -m ...`"
        )
