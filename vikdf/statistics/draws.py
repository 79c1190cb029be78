"""Random draws in blocks, and which n-grams are in the units that were drawn. Used by intervals.py and permutation.py.

The numbers of a draw do not depend on the size of the blocks, so that memory can be bounded without changing a result.
"""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_matrix

from vikdf.statistics.corpus import Corpus

BYTES = 200_000_000  # what a block may take, roughly
PART_OF_V = 64 * 32  # n-grams


def blocks(corpus: Corpus, draws: int, seed: int, pairs: int = 0) -> Iterator[np.ndarray]:
    """[b, N] uniform random numbers, `draws` rows in all."""
    rows, seeds, size, counts = corpus.counts.shape
    wide = max([matrix.shape[1] for seeds_of in corpus.grams.values() for matrix in seeds_of[0]], default=0)
    each = 8 * (3 * size + 6 * (rows + pairs) * seeds * counts) + wide * (2 + rows // 2)
    block = max(1, min(draws, BYTES // each, 512))
    random = np.random.default_rng(seed)
    for first in range(0, draws, block):
        yield random.random((min(block, draws - first), size))


def weighted(weights: np.ndarray, corpus: Corpus) -> np.ndarray:
    """[b, N] weights -> [b, R, S, K] sums."""
    rows, seeds, size, counts = corpus.counts.shape
    flat = corpus.counts.transpose(2, 0, 1, 3).reshape(size, -1)
    return (weights @ flat).reshape(-1, rows, seeds, counts)


def held(chosen: np.ndarray, grams: csr_matrix) -> np.ndarray:
    """[b, N] of 0 and 1 -> [b, V / 64], a bit an n-gram: is it in a chosen unit? 64 draws are looked at at a time."""
    draws, columns = _packed(np.ascontiguousarray(chosen.T != 0)), grams.tocsc()  # [N, b / 64]
    units = np.concatenate([draws[columns.indices], np.zeros((1, draws.shape[1]), np.uint64)])  # an end to begin after
    there = np.bitwise_or.reduceat(units, columns.indptr[:-1])  # [V, b / 64]
    there[np.diff(columns.indptr) == 0] = 0
    made = np.zeros((len(chosen), -(-len(there) // 64)), np.uint64)
    for first in range(0, len(there), PART_OF_V):  # what is turned over fits into a core's own memory
        part = np.unpackbits(there[first : first + PART_OF_V].view(np.uint8), axis=1, count=len(chosen))
        bits = _packed(np.ascontiguousarray(part.T))
        made[:, first // 64 : first // 64 + bits.shape[1]] = bits
    return made


def _packed(flags: np.ndarray) -> np.ndarray:
    """[n, m] of 0 and 1 -> [n, m / 64]"""
    packed = np.packbits(flags, axis=1)
    rest = np.zeros((len(packed), -packed.shape[1] % 8), np.uint8)
    return np.concatenate([packed, rest], axis=1).view(np.uint64)


def count(bits: np.ndarray) -> np.ndarray:
    """[n, m / 64] -> [n], how many bits are set."""
    return np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
