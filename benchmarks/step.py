"""One pretraining step (five losses, backward, AdamW): ours against the plain step of benchmarks/plain.py, interleaved.

Both run on the same weights. Before anything is timed, all losses and all gradients of both are compared. FLOPs are torch's own
count of the forward and backward pass, attention's products included: they depend on nothing else that runs. CPU seconds do.
Run: python -m benchmarks.step [--rounds 9] [--ablate true]; --ablate also runs ours with each of its tricks switched off, alone.
A line a form: its FLOPs and CPU seconds, each also as a multiple of ours; the last line gives plain / ours at the tiny shapes.
"""

import contextlib
import logging
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import plain, shapes
from vikdf import flags
from vikdf.model.iqformer import Attention

WEIGHTS = {"tim": 0.5, "tamim": 0.2, "iamtm": 0.2, "iaci": 1.0, "iakr": 0.5}  # section 4.2
NEAR = 2e-6  # of a gradient's largest entry: ours computes losses in 32 bits, also below a model in 64


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(WEIGHTS[name] * loss for name, loss in losses.items())


def counted(loss):
    """A plain loss in the form of ours: (sum, count)."""
    return lambda *given: (loss(*given), 1)


def reads(model) -> list[tuple]:
    """All of our attentions with the softmax written out."""
    own = [part for part in model.modules() if isinstance(part, Attention)]
    return [(part, "read", lambda *given, part=part: plain.read(part, *given)) for part in own]


def tricks(model) -> dict[str, list[tuple]]:
    """Each trick with the parts of ours that are without it: [(object, attribute, other function)]."""
    tamim, iamtm, query = model.tamim, model.iamtm, model.source.iqformer
    alone = query.together  # which a form below takes the place of
    return {
        "block and heads of TAMIM and IAMTM at masked places only": [
            (tamim, "forward", counted(lambda *given: plain.tamim(tamim, *given))),
            (iamtm, "forward", counted(lambda *given: plain.iamtm(iamtm, *given))),
        ],
        "IAKR's prompt and text without a graph, what all of them begin with read once": [
            (model.iakr, "forward", counted(lambda llm, *given: plain.iakr(model, *given))),
        ],
        "IACI and IAKR in two calls of the LLM, so that only what needs a graph is in one": [
            (model, "integrate", lambda *given: plain.one_call(model, *given)),
        ],
        "the LLM's head at targets only, no state behind the last token": [
            (model.iaci, "forward", counted(lambda llm, *given: plain.iaci(model, *given))),
        ],
        "text and image queries in one batch": [
            (query, "together", lambda sources: [alone([source])[0] for source in sources]),
        ],
        "SDPA in IQ-Former and fusion blocks": reads(model),
    }


@contextlib.contextmanager
def without(parts: list[tuple]):
    """Ours with these parts in their other form."""
    for owner, name, other in parts:
        setattr(owner, name, other)
    yield
    for owner, name, _ in parts:
        delattr(owner, name)


def gradients(model, loss: Tensor) -> dict[str, Tensor]:
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {name: value for name, value in zip(trained, found, strict=True) if value is not None}


def apart(ours: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference as a share of the largest entry. (Keys' biases are 0 but for rounding: softmax is blind to them.)"""
    assert ours.keys() == other.keys()
    scale = max(value.abs().max().item() for value in other.values())
    return max((ours[name] - value).abs().max().item() for name, value in other.items()) / scale


def batches(model, rows: int, captions: list[str]) -> tuple[dict, dict]:
    """The same batch without and with what can be cached."""
    clip = model.source.clip
    pixels = torch.randn(rows, 3, clip.pixels, clip.pixels, generator=torch.Generator().manual_seed(1))
    batch = {"pixels": pixels, "clip_tokens": clip.tokenize(captions), "captions": captions, "lots": list(range(rows))}
    cached = {"h_text": clip.states(batch["clip_tokens"]), "h_image": clip.image(pixels)}
    return batch, batch | cached | {"caption_ids": model.llm.tokenize(captions)}


def stepper(model, losses, batch: dict, parts: list[tuple] = (), **form):
    """One whole step as a function without arguments; `form` is that of AdamW and of clipping."""
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.05, **form)

    def step() -> None:
        with without(parts):
            total(losses(batch)).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=form.get("foreach"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def steppers(model, batch: dict, cached: dict, ablate: bool) -> dict:
    """The forms by name, ours first."""
    made = {"ours": stepper(model, model.losses, cached, fused=True)}
    made["plain"] = stepper(model, lambda batch: plain.losses(model, batch), batch, foreach=False)
    if ablate:
        for name, parts in tricks(model).items():
            made[f"without: {name}"] = stepper(model, model.losses, cached, parts, fused=True)
        made["without: cached CLIP features"] = stepper(model, model.losses, batch, fused=True)
        made["without: fused AdamW (no FLOPs of it are counted)"] = stepper(model, model.losses, cached, foreach=False)
    return made


def compare(name: str, model, captions: list[str]) -> None:
    """Stops unless ours is the plain step. In double precision, so that what differs is no rounding."""
    batch, cached = batches(model.double(), len(captions), captions)
    ours, other = model.losses(cached), plain.losses(model, batch)
    found = max(abs(ours[key] - other[key]).item() / other[key].item() for key in other)
    turned = apart(gradients(model, total(ours)), gradients(model, total(other)))
    model.float()
    print(f"{name}: losses differ by {found:.1e}, gradients by {turned:.1e} of their scale", flush=True)
    if max(found, turned) > NEAR:
        sys.exit(f"{name}: ours is not the plain step: expected both below {NEAR}")


def flops(step) -> int:
    """What a step multiplies and adds; attention is written out for it, since a fused kernel is not looked into."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


@dataclass
class Cost:
    flops: int
    seconds: list[float] = field(default_factory=list)

    @property
    def middle(self) -> float:
        return median(self.seconds)


def measure(name: str, shape: dict, captions: list[str], rounds: int, ablate: bool) -> tuple[Cost, Cost]:
    """What our step and the plain one take; one line a form."""
    with tempfile.TemporaryDirectory() as folder:
        model = shapes.model(shape, Path(folder))
    compare(name, model, captions)
    made = steppers(model, *batches(model, len(captions), captions), ablate)
    costs = {key: Cost(flops(step)) for key, step in made.items()}  # which also warms up
    for _ in range(rounds):
        for key, step in made.items():
            start = time.process_time()
            step()
            costs[key].seconds.append(time.process_time() - start)
    ours = costs["ours"]
    for key, cost in costs.items():
        told = f"{cost.flops / 1e9:.2f} GFLOP, FLOPs this / ours {cost.flops / ours.flops:.2f}x"
        print(
            f"{name}: {told}, {cost.middle:.3f} CPU s, this / ours {cost.middle / ours.middle:.2f}x: {key}", flush=True
        )
    return ours, costs["plain"]


def main(*, rounds: int = 9, ablate: bool = False) -> None:
    """Measures one pretraining step against the plain one, at the demo's shapes and at tiny ones.

    rounds: repetitions; the medians count
    ablate: also ours without each trick
    """
    logging.disable(logging.WARNING)  # open_clip's, that the weights are random
    demo = shapes.demo()
    told = {
        f"demo, batch {demo['batch']}": (demo, shapes.world_captions(demo["batch"])),
        f"tiny, batch {shapes.TINY['batch']}": (shapes.TINY, shapes.captions(shapes.TINY["batch"])),
    }
    for name, (shape, captions) in told.items():
        ours, other = measure(name, shape, captions, rounds, ablate)
        ratio = f"{other.middle / ours.middle:.2f}x  ours {ours.middle:.3f} CPU s  plain {other.middle:.3f} CPU s"
        print(f"{name}: {ratio}")
    print(f"step {ratio}")


if __name__ == "__main__":
    flags.main(main)
