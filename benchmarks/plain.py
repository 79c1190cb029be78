"""The training step once more, without a thought for work: what benchmarks/step.py and its tests compare ours with.

In: the model (vikdf.model.vikdf.VIKDFForPretraining) and a batch. Out: its five losses, each equation on its own. Heads run
at every place and then a choice is made, whole rows are in the graph, each path is an LLM call, each source an IQ-Former call,
attention is in words, and nothing is cached. `one_call` is something else: ours, but with both paths of the LLM in one call.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from vikdf.model.backbone import KNOWLEDGE
from vikdf.model.distill import take
from vikdf.model.integrate import draw


def read(part, query: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
    """vikdf.model.iqformer.Attention.read with the softmax written out."""
    key, value = part.split(part.key(source)), part.split(part.value(source))
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5  # [B, h, n, L]
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None].bool(), float("-inf"))
    return scores.softmax(-1) @ value  # [B, h, n, D/h]


def attention(part, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
    """norm(x + attention(x -> source)), Equation 1."""
    made = read(part, part.split(part.query(x)), source, mask)
    return part.norm(x + part.output(made.transpose(1, 2).flatten(2)))


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


def tim(part, K_T: Tensor, K_I: Tensor) -> Tensor:
    text, image = (
        (K_T.flatten(1), K_I.flatten(1)) if part.kind == "set" else (part.text(K_T[:, 0]), part.image(K_I[:, 0]))
    )
    cosines = F.cosine_similarity(text[:, None], image[None], dim=-1) * part.log_scale.exp()  # [B, B]
    pairs = torch.arange(len(cosines))
    return (F.cross_entropy(cosines, pairs) + F.cross_entropy(cosines.T, pairs)) / 2


def tamim(part, H: Tensor, K_T: Tensor, pixels: Tensor, masked: Tensor) -> Tensor:
    """The whole picture is drawn; the error counts where it was covered."""
    fused = fuse(part.block, H[:, 1:], K_T).transpose(1, 2).unflatten(2, (part.grid, part.grid))
    picture = F.pixel_shuffle(part.decoder(fused), part.patch)  # [B, 3, S, S]
    covered = torch.zeros(len(H), part.grid**2).scatter(1, masked, 1.0).view(-1, 1, part.grid, part.grid)
    covered = covered.repeat_interleave(part.patch, 2).repeat_interleave(part.patch, 3).expand_as(pixels)
    return ((picture - pixels).abs() * covered).sum() / covered.sum()


def iamtm(part, H: Tensor, K_I: Tensor, tokens: Tensor, masked: Tensor) -> Tensor:
    logits = part.decoder(fuse(part.block, H, K_I))  # [B, L, V]
    return F.cross_entropy(logits[masked], tokens[masked])


def iaci(model, given: Tensor, texts: list[list[int]], lots: list[int]) -> Tensor:
    llm = model.llm
    starts = llm.rows([[prompt] for prompt in draw(llm, model.iaci.prompts, lots, 3)], given.shape[1])
    rows = [[*start, *text, llm.end] for start, text in zip(starts, texts, strict=True)]
    ids, mask = llm.pad(rows)
    logits = llm.model(inputs_embeds=llm.embed(ids, given), attention_mask=mask, use_cache=False).logits  # [B, L, V]
    scored = llm.pad_tail(rows, [len(text) + 1 for text in texts]).bool()
    return F.cross_entropy(logits[:, :-1][scored[:, 1:]], ids[:, 1:][scored[:, 1:]])


def iakr(model, given: Tensor, texts: list[list[int]], lots: list[int], K: Tensor) -> Tensor:
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


def losses(model, batch: dict) -> dict[str, Tensor]:
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
        "tim": tim(model.tim, K_T, K_I),
        "tamim": tamim(model.tamim, clip.image(covered), K_T, pixels, squares),
        "iamtm": iamtm(model.iamtm, clip.states(hidden), K_I, tokens, words),
        "iaci": iaci(model, given, texts, lots),
        "iakr": iakr(model, given, texts, lots, K_T),
    }


def one_call(model, K_T: Tensor, K_I: Tensor, batch: dict, wanted: tuple[str, ...]) -> dict[str, tuple[Tensor, int]]:
    """model.integrate with the rows of IACI and IAKR padded into one batch: one LLM call, all of it in the graph.

    As in ours the head runs at targets only, and nothing is read behind what is scored last.
    """
    llm, lots, n = model.llm, batch["lots"], K_T.shape[1]
    asked, texts, wished = (
        draw(llm, model.iaci.prompts, lots, 3),
        model._told(batch),
        draw(llm, model.iakr.prompts, lots, 4),
    )
    starts = llm.rows([[prompt] for prompt in asked], n)
    said = [[*start, *text, llm.end] for start, text in zip(starts, texts, strict=True)]
    heard = llm.rows([[ask + text] for ask, text in zip(wished, model._ids(batch, "caption"), strict=True)], 0)
    ids, _ = llm.pad([row[:-1] for row in said] + [[*row, *[KNOWLEDGE] * (n - 1)] for row in heard])  # [2 B, L]
    given = [model.source.into_llm(K_I if model.iaci.source == "image" else K_T), model.source.into_llm(K_T)[:, :-1]]
    states = llm.states(llm.embed(ids, torch.cat([K.flatten(0, 1) for K in given])))  # [2 B, L, H]
    nll = llm.nll(states[: len(said)], llm.pad(said)[0], llm.pad_tail(said, [len(text) + 1 for text in texts]))
    places = torch.tensor([[len(row) - 1 + i for i in range(n)] for row in heard])  # [B, n]
    before = take(states[len(said) :], places)  # [B, n, H]
    error = (model.iakr.back(before) - (K_T.detach() if model.iakr.target == "detached" else K_T)) ** 2
    return {"iaci": (nll.sum(), len(nll)), "iakr": (error.sum(), error.numel())}
