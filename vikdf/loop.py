"""The one training loop: accelerate places it (CPU, one GPU, many), and it goes on exactly where it was stopped.

In: an objective (a module with `counts(batch)`: the targets of each loss by name, and `forward(batch, whole)`: the loss to
go down and the share of each named loss, the sum over the batch's targets divided by those of the `whole` step), a `fetch`
that turns [(epoch, row), ...] into a batch, and the numbers of the run.
Out: the objective's trained parameters at their last or best state, and the curves. Used by pretrain and finetune.

Each loss is its sum over all targets of the step, of all micro-batches and processes, by their number: 1 x 8 equals 8 x 1
equals 2 processes x 4. (What contrasts rows with each other, TIM, sees the micro-batches of all processes, not earlier ones.)
Where the loop stands is (step, epoch, position), the weights, the optimizer's moments and every random number
generator; the schedule is a function of the step, the data that of seed and epoch (vikdf.order, vikdf.checkpoints).
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import nn
from tqdm import tqdm

from vikdf import checkpoints, flops, place, space
from vikdf.checkpoints import Progress
from vikdf.order import Batches
from vikdf.signals import Signals, stop, unheard

POINTS = 500  # of a curve: what a tracking store takes well; each is the mean of the steps since the one before
SCHEDULES = {  # (step, warm-up steps, all steps) -> factor on the learning rate
    "constant_after_warmup": lambda step, warmup, steps: min(1.0, (step + 1) / max(1, warmup)),
    "cosine_after_warmup": lambda step, warmup, steps: (
        (step + 1) / warmup if step < warmup else (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
    ),
}


@dataclass(frozen=True)
class Numbers:
    """The numbers of a run; pretrain and finetune have them as keys of their sections, with the reasons there."""

    seed: int
    steps: int
    processes: int  # one a GPU
    micro_batch: int  # rows at once in a process
    accumulate: int  # micro-batches of a process in a step
    learning_rate: float
    weight_decay: float
    schedule: str
    warmup: float  # share of the steps
    clip_norm: float
    precision: str
    workers: int
    checkpoint_every: int
    validate_every: int = 0
    shard_llm: bool = False  # see vikdf.place

    @property
    def batch(self) -> int:
        """Rows of a step."""
        return self.processes * self.micro_batch * self.accumulate


def train(
    objective: nn.Module,
    fetch: Callable,
    rows: int,
    numbers: Numbers,
    *,
    folder: Path,
    journal,
    validate: Callable[[], float] | None = None,
    sizes: list[int] | None = None,
) -> Progress:
    """Trains what requires a gradient; with `validate`, ends at the state whose validation value was lowest.

    With `sizes`, one a row, a step's rows are of like size (vikdf.order).

    `folder` keeps the checkpoints; `journal` is a tracking.Run, or None where nothing is tracked.
    """
    accelerator = Accelerator(mixed_precision=place.MIXED[numbers.precision], cpu=not torch.cuda.is_available())
    _assert_world(accelerator, numbers.processes)
    rank, processes = accelerator.process_index, accelerator.num_processes
    checkpoints.seed_all(numbers.seed + 1_000_003 * rank)  # other dropout in each process
    trained = {name: value for name, value in objective.named_parameters() if value.requires_grad}
    _leave_frozen_alone(objective)
    model, optimizer = _spread(objective.train(), accelerator), accelerator.prepare(_optimizer(trained, numbers))
    space.need_for_training(folder, sum(value.numel() for value in trained.values()), judged=bool(validate))
    at, best = checkpoints.resume(folder, trained, optimizer, accelerator)
    batches = Batches(rows, numbers.batch, numbers.seed, at.epoch, at.position, rank, processes, sizes)
    loader = iter(_loader(fetch, batches, numbers))
    with (
        Signals() as signals,
        tqdm(total=numbers.steps, initial=at.step, unit="step", mininterval=5, disable=rank > 0) as bar,
    ):
        while at.step < numbers.steps:
            parts = next(loader)
            flops.step(journal, at.step, numbers, objective, parts, accelerator)
            at.window.append(_step(accelerator, objective, model, optimizer, trained, parts, numbers, at.step))
            at.step += 1
            at.epoch, at.position = batches.after(at.epoch, at.position)
            if at.step % max(1, numbers.steps // POINTS) == 0 or at.step == numbers.steps:
                _show(_point(at), at.step, bar, journal)
            if validate and (at.step % numbers.validate_every == 0 or at.step == numbers.steps):
                best = _validated(validate, objective, accelerator, at, trained, best)
                _show({"validation": at.curves[-1]["validation"]}, at.step, bar, journal)
            stopped = _agreed(signals.name, accelerator)
            if stopped or (at.step % numbers.checkpoint_every == 0 and at.step < numbers.steps):
                checkpoints.save(folder, at, trained, optimizer, best, accelerator)
            stop(stopped, f"step {at.step} of {numbers.steps}", folder)
            bar.update(1)  # last: with Ctrl-C, whoever reads it may be gone before us
    if best:
        checkpoints.put(trained, best)
    return at


def _step(accelerator, objective, model, optimizer, trained: dict, parts: list, numbers: Numbers, step: int) -> dict:
    """One update; gives the losses by name, over all micro-batches and processes."""
    factor = SCHEDULES[numbers.schedule](step, round(numbers.warmup * numbers.steps), numbers.steps)
    for group in optimizer.param_groups:
        group["lr"] = numbers.learning_rate * factor
    whole, shares = _whole(accelerator, [objective.counts(part) for part in parts]), []
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            loss, named = model(send_to_device(part, accelerator.device), whole)
            accelerator.backward(loss * accelerator.num_processes)  # DDP takes the processes' mean, a step their sum
        shares.append(torch.stack([value.detach().float() for value in named.values()]))
    losses = accelerator.reduce(torch.stack(shares).sum(0), "sum").tolist()
    losses = dict(zip(named, losses, strict=True))
    norm = accelerator.clip_grad_norm_(list(trained.values()), numbers.clip_norm)
    for name, value in {**losses, "gradient": norm.item()}.items():
        if not math.isfinite(value):  # in all processes alike: both are sums over them
            raise ValueError(_not_finite(name, value, step, _suspects(name, parts, shares)))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return losses


def _whole(accelerator, counts: list[dict[str, int]]) -> dict[str, float]:
    """The targets of each loss in the whole step: of all micro-batches and processes."""
    names = list(counts[0])
    sums = [sum(count[name] for count in counts) for name in names]
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(torch.tensor(sums, dtype=torch.float64, device=accelerator.device), "sum").tolist()
    return {name: max(value, 1) for name, value in zip(names, sums, strict=True)}


def _suspects(name: str, parts: list, shares: list[torch.Tensor]) -> list[str]:
    """Keys of the rows in which to look, of all processes: those of a micro-batch whose losses are not all finite, else all."""
    broken = [part for part, share in zip(parts, shares, strict=True) if not share.isfinite().all()]
    keys = [key for part in (parts if name == "gradient" else broken) for key in part.get("keys", [])]
    return gather_object(keys)


def _not_finite(name: str, value: float, step: int, keys: list[str]) -> str:
    """The sentence for a loss or gradient that is no number any more: which, when, and in which rows to look."""
    shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
    shown = shown or "without keys"
    return (
        f"{name} is {value} at step {step + 1}, rows {shown}: nothing was updated, the checkpoint before "
        "stays. Look at these rows; if they are sound, lower learning_rate or clip_norm"
    )


def _spread(objective: nn.Module, accelerator: Accelerator) -> nn.Module:
    """DDP by hand: accelerate refuses it where an LLM is spread (vikdf.place), though what DDP sees, the trained part, is whole."""
    model = accelerator.prepare_model(objective, evaluation_mode=True)  # device and autocast alone
    if accelerator.num_processes == 1:
        return model
    return nn.parallel.DistributedDataParallel(
        model, device_ids=[accelerator.device] if accelerator.device.type == "cuda" else None
    )


def _leave_frozen_alone(objective: nn.Module) -> None:
    """DDP would send every frozen weight to all processes at the start, gigabytes that each has read itself."""
    frozen = [name for name, value in objective.named_parameters() if not value.requires_grad]
    frozen += [name for name, _ in objective.named_buffers()]
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(objective, frozen)


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
    made = {"sampler": batches, "batch_size": None, "num_workers": numbers.workers, "generator": generator}
    return torch.utils.data.DataLoader(rows, **made, worker_init_fn=unheard)


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
    if not math.isfinite(value):
        raise ValueError(
            f"the validation NLL is {value} after step {at.step}: the checkpoint before stays; lower learning_rate or clip_norm"
        )
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


def _assert_world(accelerator: Accelerator, processes: int) -> None:
    """`accelerate launch --cpu --num_processes 2` silently runs one process: better to say so than to train on half."""
    if accelerator.num_processes != processes:
        raise ValueError(
            f"`processes` is {processes}, but {accelerator.num_processes} run: start with "
            f"`python -m torch.distributed.run --standalone --nproc-per-node {processes} -m ...`, or set `processes` to what runs"
        )
