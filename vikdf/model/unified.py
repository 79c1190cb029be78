"""The attention of a BERT that tells a text from left to right (UniLM): each token stands twice, as itself and behind a [MASK].

    sees = twice(3, device)  # [6, 6]: rows 0 to 2 the tokens themselves, 3 to 5 a [MASK] for each next one

A token sees itself and those before it; a [MASK] sees the tokens before its place, and itself. So one pass gives what appending
a [MASK] and predicting would give step by step. T tokens.
"""

import torch
from torch import Tensor


def before(count: int, device=None) -> Tensor:
    """[T, T], True where a token (row) sees another (column): itself and those before it."""
    return torch.ones(count, count, dtype=torch.bool, device=device).tril()


def twice(count: int, device=None) -> Tensor:
    """[2 T, 2 T]: the given tokens, which begin with the start, and the [MASK] behind each of them."""
    left, itself = before(count, device), torch.eye(count, dtype=torch.bool, device=device)
    return torch.cat([torch.cat([left, torch.zeros_like(left)], 1), torch.cat([left, itself], 1)])
