"""One pretraining step (five losses, backward, AdamW): ours against the plain step, on the same weights, interleaved.

The plain step below is the method written down without a thought for work: heads at every place and then a choice, a
graph over whole rows, an LLM call a path, an IQ-Former call a source, attention in words, nothing cached, parameters
updated one by one. Before anything is timed, all losses and all gradients of both are compared.
Run: python -m benchmarks.step [--rounds 9] [--ablate true]; the last line gives the ratio at the tiny shapes.
"""

import contextlib
import logging
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import shapes
from vikdf import flags
from vikdf.model.integrate import draw

WEIGHTS = {"tim": 0.5, "tamim": 0.2, "iamtm": 0.2, "iaci": 1.0, "iakr": 0.5}  # section 4.2
NEAR = 2e-6  # of a gradient's largest entry: ours computes losses in 32 bits, also below a model in 64


def attention(part, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
    """norm(x + attention(x -> source)), Equation 1, with the softmax written out."""
    query, key, value = part.split(part.query(x)), part.split(part.key(source)), part.split(part.value(source))
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5  # [B, h, n, L]
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None].bool(), float("-inf"))
    return part.norm(x + part.output((scores.softmax(-1) @ value).transpose(1, 2).flatten(2)))


def iqformer(part, H: Tensor, mask: Tensor | None = None) -> Tensor:
    x = part.norm(part.queries).expand(len(H), -1, -1)
    for layer in part.layers:
        x = attention(layer.attention, x, x)
        if layer.cross is not None:
            x = attention(layer.cross, x, H, mask)
        x = layer.feed(x)
    return x  # [B, n, D]


def fuse(block, H: Tensor, K: Tensor) -> Tensor:
    return block.feed(attention(block.attention, H, K))  # [B, L, E]


def plain_tim(part, K_T: Tensor, K_I: Tensor) -> Tensor:
    text, image = (
        (K_T.flatten(1), K_I.flatten(1)) if part.kind == "set" else (part.text(K_T[:, 0]), part.image(K_I[:, 0]))
    )
    cosines = F.cosine_similarity(text[:, None], image[None], dim=-1) * part.log_scale.exp()  # [B, B]
    pairs = torch.arange(len(cosines))
    return (F.cross_entropy(cosines, pairs) + F.cross_entropy(cosines.T, pairs)) / 2


def plain_tamim(part, H: Tensor, K_T: Tensor, pixels: Tensor, masked: Tensor) -> Tensor:
    """The whole picture is drawn; the error counts where it was covered."""
    fused = fuse(part.block, H[:, 1:], K_T).transpose(1, 2).unflatten(2, (part.grid, part.grid))
    picture = F.pixel_shuffle(part.decoder(fused), part.patch)  # [B, 3, S, S]
    covered = torch.zeros(len(H), part.grid**2).scatter(1, masked, 1.0).view(-1, 1, part.grid, part.grid)
    covered = covered.repeat_interleave(part.patch, 2).repeat_interleave(part.patch, 3).expand_as(pixels)
    return ((picture - pixels).abs() * covered).sum() / covered.sum()


def plain_iamtm(part, H: Tensor, K_I: Tensor, tokens: Tensor, masked: Tensor) -> Tensor:
    logits = part.decoder(fuse(part.block, H, K_I))  # [B, L, V]
    return F.cross_entropy(logits[masked], tokens[masked])


def plain_iaci(model, given: Tensor, texts: list[list[int]], lots: list[int]) -> Tensor:
    llm = model.llm
    starts = llm.rows([[prompt] for prompt in draw(llm, model.iaci.prompts, lots, 3)], given.shape[1])
    rows = [[*start, *text, llm.end] for start, text in zip(starts, texts, strict=True)]
    ids, mask = llm.pad(rows)
    logits = llm.model(inputs_embeds=llm.embed(ids, given), attention_mask=mask, use_cache=False).logits  # [B, L, V]
    scored = llm.pad_tail(rows, [len(text) + 1 for text in texts]).bool()
    return F.cross_entropy(logits[:, :-1][scored[:, 1:]], ids[:, 1:][scored[:, 1:]])


def plain_iakr(model, given: Tensor, texts: list[list[int]], lots: list[int], K: Tensor) -> Tensor:
    """Prompt, text and K in one row, as a row of any LLM call."""
    llm, n = model.llm, given.shape[1]
    asked = draw(llm, model.iakr.prompts, lots, 4)
    rows = llm.rows([[prompt + text] for prompt, text in zip(asked, texts, strict=True)], 0)
    ids, mask = llm.pad(rows, "left")
    x = torch.cat([llm.embed(ids, None), given], dim=1)
    mask = torch.cat([mask, mask.new_ones(len(mask), n)], dim=1)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    states = llm.model.base_model(inputs_embeds=x, attention_mask=mask, position_ids=places, use_cache=False)
    return F.mse_loss(model.iakr.back(states.last_hidden_state)[:, -n - 1 : -1], K)


def plain_losses(model, batch: dict) -> dict[str, Tensor]:
    """The five losses of a batch, each equation on its own."""
    clip, pixels, lots = model.source.clip, batch["pixels"], batch["lots"]
    mask = clip.text_mask(batch["clip_tokens"])
    tokens = batch["clip_tokens"][:, : mask.shape[1]]
    K_T = iqformer(model.source.iqformer, clip.states(tokens), mask)
    K_I = iqformer(model.source.iqformer, clip.image(pixels))
    covered, squares = model.tamim.cover(pixels, lots)
    hidden, words = model.iamtm.cover(tokens, mask, lots)
    given, texts = model.source.into_llm(K_T), model.llm.tokenize(batch["captions"])
    return {
        "tim": plain_tim(model.tim, K_T, K_I),
        "tamim": plain_tamim(model.tamim, clip.image(covered), K_T, pixels, squares),
        "iamtm": plain_iamtm(model.iamtm, clip.states(hidden), K_I, tokens, words),
        "iaci": plain_iaci(model, given, texts, lots),
        "iakr": plain_iakr(model, given, texts, lots, K_T),
    }


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(WEIGHTS[name] * loss for name, loss in losses.items())


def counted(loss):
    """A plain loss in the form of ours: (sum, count)."""
    return lambda *given: (loss(*given), 1)


def tricks(model) -> dict[str, list[tuple]]:
    """Each trick with the parts of ours that are without it: [(object, attribute, plain function)]."""
    tamim, iamtm, query = model.tamim, model.iamtm, model.source.iqformer
    return {
        "block and heads of TAMIM and IAMTM at masked places only": [
            (tamim, "forward", counted(lambda *given: plain_tamim(tamim, *given))),
            (iamtm, "forward", counted(lambda *given: plain_iamtm(iamtm, *given))),
        ],
        "the LLM's head at targets only, no state behind the last": [
            (model.iaci, "forward", counted(lambda llm, *given: plain_iaci(model, *given))),
        ],
        "IAKR's prompt and text without a graph, their common start read once": [
            (model.iakr, "forward", counted(lambda llm, *given: plain_iakr(model, *given))),
        ],
        "text and image queries in one batch, SDPA": [
            (query, "together", lambda sources: [iqformer(query, *source) for source in sources]),
        ],
    }


@contextlib.contextmanager
def without(parts: list[tuple]):
    """Ours with these parts in their plain form."""
    for owner, name, plain in parts:
        setattr(owner, name, plain)
    yield
    for owner, name, _ in parts:
        delattr(owner, name)


def gradients(model, loss: Tensor) -> dict[str, Tensor]:
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {name: value for name, value in zip(trained, found, strict=True) if value is not None}


def apart(ours: dict[str, Tensor], plain: dict[str, Tensor]) -> float:
    """The largest difference as a share of the largest entry. (Keys' biases are 0 but for rounding: softmax is blind to them.)"""
    assert ours.keys() == plain.keys()
    scale = max(value.abs().max().item() for value in plain.values())
    return max((ours[name] - value).abs().max().item() for name, value in plain.items()) / scale


def batches(model, rows: int, captions: list[str]) -> tuple[dict, dict]:
    """The same batch without and with what can be cached."""
    clip = model.source.clip
    pixels = torch.randn(rows, 3, clip.pixels, clip.pixels, generator=torch.Generator().manual_seed(1))
    batch = {"pixels": pixels, "clip_tokens": clip.tokenize(captions), "captions": captions, "lots": list(range(rows))}
    cached = {"h_text": clip.states(batch["clip_tokens"]), "h_image": clip.image(pixels)}
    return batch, batch | cached | {"caption_ids": model.llm.tokenize(captions)}


def stepper(model, losses, batch: dict, **form):
    """One whole step as a function without arguments; `form` is that of AdamW and of clipping."""
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.05, **form)

    def step() -> None:
        total(losses(batch)).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=form.get("foreach"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def ablated(model, parts: list[tuple], batch: dict):
    def losses(batch: dict) -> dict[str, Tensor]:
        with without(parts):
            return model.losses(batch)

    return stepper(model, losses, batch, fused=True)


def steppers(model, batch: dict, cached: dict, ablate: bool) -> dict:
    made = {"plain": stepper(model, lambda batch: plain_losses(model, batch), batch, foreach=False)}
    made["ours"] = stepper(model, model.losses, cached, fused=True)
    made["ours without: cached CLIP features"] = stepper(model, model.losses, batch, fused=True)
    if ablate:
        made |= {f"ours without: {name}": ablated(model, parts, cached) for name, parts in tricks(model).items()}
        made["ours without: fused AdamW"] = stepper(model, model.losses, cached, foreach=False)
    return made


def compare(name: str, model, captions: list[str]) -> None:
    """Stops unless ours is the plain step. In double precision, so that what differs is no rounding."""
    batch, cached = batches(model.double(), len(captions), captions)
    ours, plain = model.losses(cached), plain_losses(model, batch)
    found = max(abs(ours[key] - plain[key]).item() / plain[key].item() for key in plain)
    turned = apart(gradients(model, total(ours)), gradients(model, total(plain)))
    model.float()
    print(f"{name}: losses differ by {found:.1e}, gradients by {turned:.1e} of their scale", flush=True)
    if max(found, turned) > NEAR:
        sys.exit(f"{name}: ours is not the plain step: expected both below {NEAR}")


def measure(name: str, shape: dict, captions: list[str], rounds: int, ablate: bool) -> tuple[float, float]:
    """Median CPU seconds of our step and of the plain one."""
    with tempfile.TemporaryDirectory() as folder:
        model = shapes.model(shape, Path(folder))
    compare(name, model, captions)
    batch, cached = batches(model, len(captions), captions)
    made = steppers(model, batch, cached, ablate)
    times: dict[str, list[float]] = {key: [] for key in made}
    for number in range(rounds + 1):
        for key, step in made.items():
            start = time.process_time()
            step()
            if number:  # the first round warms up
                times[key].append(time.process_time() - start)
    middle = {key: median(values) for key, values in times.items()}
    for key, value in middle.items():
        print(f"{name}: {value:.3f} CPU s a step, plain / this {middle['plain'] / value:.2f}x: {key}", flush=True)
    return middle["ours"], middle["plain"]


def main(*, rounds: int = 9, ablate: bool = False) -> None:
    """Times one pretraining step against the plain one, at the demo's shapes and at tiny ones.

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
        ours, plain = measure(name, shape, captions, rounds, ablate)
        print(f"{name}: {plain / ours:.2f}x  ours {ours:.3f} CPU s  plain {plain:.3f} CPU s")
    print(f"step {plain / ours:.2f}x  ours {ours:.3f} CPU s  plain {plain:.3f} CPU s")


if __name__ == "__main__":
    flags.main(main)
