"""Random draws in blocks, and which n-grams are in the units that were drawn. Used by intervals.py and permutation.py.

The numbers of a draw do not depend on the size of the blocks, so that memory can be bounded without changing a result.
"""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_matrix

from vikdf.statistics.corpus import Corpus

BYTES = 200_000_000  # what a block may take, roughly


def blocks(corpus: Corpus, draws: int, seed: int, pairs: int = 0) -> Iterator[np.ndarray]:
    """[b, N] uniform random numbers, `draws` rows in all."""
    rows, seeds, size, counts = corpus.counts.shape
    wide = max([matrix.shape[1] for seeds_of in corpus.grams.values() for matrix in seeds_of[0]], default=0)
    each = 8 * (3 * size + 6 * (rows + pairs) * seeds * counts) + wide * (6 + rows * seeds)
    block = max(1, min(draws, BYTES // each, 512))
    random = np.random.default_rng(seed)
    for first in range(0, draws, block):
        yield random.random((min(block, draws - first), size))


def weighted(weights: np.ndarray, corpus: Corpus) -> np.ndarray:
    """[b, N] weights -> [b, R, S, K] sums."""
    rows, seeds, size, counts = corpus.counts.shape
    flat = corpus.counts.transpose(2, 0, 1, 3).reshape(size, -1)
    return (weights @ flat).reshape(-1, rows, seeds, counts)


def inside(chosen: np.ndarray, grams: csr_matrix) -> np.ndarray:
    """[b, N] of 0 and 1 -> [b, V]: in how many chosen units each n-gram is."""
    return np.asarray(chosen.astype(np.float32) @ grams)
