"""How many FLOPs a job spends: measured on a few of its steps or answers, and told to its journal; vikdf.costs scales it up.

In: a step of the training loop, the loss of a backbone, or dialogues to answer. Out: lines of the journal: `flops_a_step` (of
all micro-batches and processes, forward and backward) or `flops_a_row` (of one dialogue: its answer, its reference, its choices).
Run: by vikdf.loop, vikdf.backbones and vikdf.generate:

    flops.step(journal, at.step, numbers, objective, parts, accelerator)

What is measured is done once more beside the job, with the random numbers put back, gradients taken apart from the weights'
own and no result kept: measuring never changes a product. It takes some two hundredths of a job's time.
Counted by torch's own counter: matrix products, convolutions, attention between all positions, recurrent layers; two FLOPs a
multiplication. Not counted: the optimizer, validations, features that were cached before the first step.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from math import prod

STEP, ROW = "flops_a_step", "flops_a_row"  # names of the journal's values; of several samples the mean counts
MEMORIES = ("kept", "known")  # what a system remembers of dialogues: its descriptions, the pictures that it found
SAMPLES = 3  # of a job at most
EVERY = 20  # steps to a sample at least: short trainings have one
PART = 8  # at most an eighth of the dialogues of a sampled chunk is answered twice
_journals: list = []  # of the backbone that is made now: its loop sits below a trainer that knows no journal


def sampled(count: int, most: int) -> set[int]:
    """Which of `count` steps or chunks are measured: the first, and others at equal distances."""
    return {count * place // most for place in range(most)}


def step(journal, at: int, numbers, objective, parts: list, accelerator) -> None:
    """Measures the first micro-batch of a sampled step; with several processes all must, they may wait for each other."""
    if numbers.shard_llm or at not in sampled(numbers.steps, most(numbers.steps)):
        return  # an LLM that is spread over processes gathers its layers as it runs: it is not run beside the plan
    from accelerate.utils import gather_object, send_to_device

    if not any(gather_object([bool(journal)])):  # the first process alone has one
        return
    part = send_to_device(parts[0], accelerator.device)
    whole = {name: max(value, 1) for name, value in objective.counts(part).items()}
    _measured(lambda: objective(part, whole))  # what is read once, as pictures of dialogues, is no step's
    found = _measured(lambda: _pass(objective, lambda: objective(part, whole)[0]))
    if journal:
        journal.log(at, {STEP: found * len(parts) * accelerator.num_processes})


def most(steps: int) -> int:
    return max(1, min(SAMPLES, steps // EVERY))


def answers(journal, chunk: int, chunks: int, answer: Callable, answerer, rows: list[dict], *settings) -> None:
    """Measures some rows of a sampled chunk; settings: (decoding, batch). What answers elsewhere has no weights here."""
    if not journal or chunk not in sampled(chunks, SAMPLES) or next(answerer.parameters(), None) is None:
        return
    count = max(1, min(settings[-1], len(rows) // PART))
    start = (len(rows) - count) // 2
    with _forgotten(answerer):
        found = _measured(lambda: answer(answerer, rows[start : start + count], *settings))
    journal.log(chunk, {ROW: found / count})


@contextlib.contextmanager
def _forgotten(system) -> Iterator[None]:
    """Inside, the system remembers no dialogue: what it would look up costs what it cost the first time."""
    kept = [(part, name, vars(part)[name]) for part in system.modules() for name in MEMORIES if name in vars(part)]
    for part, name, _ in kept:
        setattr(part, name, {})
    try:
        yield
    finally:
        for part, name, value in kept:
            setattr(part, name, value)


@contextlib.contextmanager
def noting(journal) -> Iterator[None]:
    """Inside, `trained` tells this journal."""
    _journals.append(journal)
    try:
        yield
    finally:
        _journals.pop()


def trained(model, loss: Callable, steps: int) -> None:
    """Measures a backbone's `loss()` after its last step, since the loss draws its batches from generators of its own."""
    if not _journals or not _journals[-1]:
        return
    found = [_measured(lambda: _pass(model, loss)) for _ in range(most(steps))]
    _journals[-1].log(steps, {STEP: sum(found) / len(found)})


def total(values: list[dict], steps: float | None, answered: float) -> int | None:
    """A run's FLOPs, from the values of its journal; None where nothing was measured."""
    for name, times in ((STEP, steps), (ROW, answered)):
        found = [line[name] for line in values if name in line]
        if found and times:
            return round(sum(found) / len(found) * times)
    return None


def _pass(model, loss: Callable) -> None:
    """Forward and backward; each weight's gradient is put back as it was. (autograd.grad cannot run below torch's counter.)"""
    kept = [(value, value.grad) for value in model.parameters() if value.requires_grad]
    for value, _ in kept:
        value.grad = None
    loss().backward()
    for value, gradient in kept:
        value.grad = gradient


def _measured(work: Callable) -> int:
    """The FLOPs of `work()`; every random number generator stands afterwards where it stood."""
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    plain, numpys = random.getstate(), np.random.get_state()
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=gpus), FlopCounterMode(display=False, custom_mapping=_more()) as counter:
        work()
    random.setstate(plain)
    np.random.set_state(numpys)
    return counter.get_total_flops()


def _more() -> dict:
    """What torch's counter leaves out: attention on a CPU, and recurrent layers (shapes in, FLOPs out)."""
    from torch import ops

    aten = ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda out, q, k, v, *_, **__: _attention(q, k, v) * 5 // 2,
        aten.mkldnn_rnn_layer: _recurrent,
        aten.mkldnn_rnn_layer_backward: lambda *shapes, **__: 2 * _recurrent(*shapes),
        aten._cudnn_rnn: lambda x, weights, *_, **__: _matrices(x, weights),
        aten._cudnn_rnn_backward: lambda x, weights, *_, **__: 2 * _matrices(x, weights),
    }  # fmt: skip


def _attention(q, k, v, *_, **__) -> int:
    """[B, heads, L, width] each; keys of all positions, causal or not. Backward torch counts five products for these two."""
    return 2 * prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def _recurrent(x, *weights, **_) -> int:
    """x [T, B, width]; the matrices of input and state, then two biases."""
    return _matrices(x, weights[:2])


def _matrices(x, weights) -> int:
    return 2 * prod(x[:-1]) * sum(prod(shape) for shape in weights if len(shape) > 1)
