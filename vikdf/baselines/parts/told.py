"""How likely responses are, for systems with a decoder of their own: features and target ids in, -log P a response out.

    rows = spoken(words, responses)                       # ids of each response and its end
    nll, tokens = told(features, head, targets, mask)     # [B], [B]

Shapes: B batch, T tokens said, W width, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vikdf.model.words import Words


def spoken(words: Words, responses: list[str]) -> list[list[int]]:
    return [[*ids, words.end] for ids in words.encode(responses)]


def row_sizes(words: Words, lengths: Callable, contexts: list[list[str]], responses: list[str]) -> list[int]:
    """Tokens of each prompt and response together; a million rows at once would fill the memory."""
    parts, sizes = [slice(start, start + 4096) for start in range(0, len(contexts), 4096)], []
    for part in parts:
        said = spoken(words, responses[part])
        sizes += [size + len(row) for size, row in zip(lengths(contexts[part]), said, strict=True)]
    return sizes


def told(features: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """features [B, T, W]; `head` makes [tokens, V] of [tokens, W] and runs where mask [B, T] is 1 only."""
    real = mask.bool()
    nll = F.cross_entropy(head(features[real]).float(), targets[real], reduction="none")  # [tokens]
    tokens = real.sum(1)
    owner = torch.repeat_interleave(torch.arange(len(tokens), device=tokens.device), tokens, output_size=len(nll))
    return nll.new_zeros(len(tokens)).index_add(0, owner, nll), tokens
