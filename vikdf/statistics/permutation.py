"""Paired permutation tests between rows of a table, and Holm's correction.

In: a Corpus and pairs of its rows. Out: differences [P, M] and two-sided p-values [P, M].
If two systems were equally good, each example's two answers could as well have come from the other one. So the answers of
random halves of the examples are swapped, the same ones for every seed, and both corpora are scored anew: p is the share of
swaps with a difference at least as large as the found one, which counts as one of them. Dis-n too: its n-grams are swapped
with their answers. A swap that leaves one side without a value (no reply that states one) counts against a difference.
"""

from collections.abc import Sequence

import numpy as np

from vikdf.statistics.corpus import Corpus
from vikdf.statistics.draws import blocks, count, held, weighted

NEAR = 1e-9  # differences that are equal but for rounding count as equal


def permuted(
    corpus: Corpus, pairs: Sequence[tuple[int, int]], permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """[P, M] differences (first row minus second, means over seeds) and [P, M] p-values; not a number where one has no value."""
    values = corpus.values().mean(axis=1)  # [R, M]
    a, b = np.array(pairs, dtype=int).reshape(-1, 2).T
    found = values[a] - values[b]
    with np.errstate(invalid="ignore"):
        bound = np.abs(found) - NEAR * np.maximum(1, np.maximum(np.abs(values[a]), np.abs(values[b])))
    hits = np.zeros(found.shape, dtype=np.int64)
    total = corpus.counts.sum(axis=2)  # [R, S, K]
    for random in blocks(corpus, permutations, seed, len(pairs)):
        ours, others = _swapped(corpus, total, (random < 0.5).astype(float), a, b)
        difference = corpus.measure(ours).mean(axis=2) - corpus.measure(others).mean(axis=2)  # [b, P, M]
        hits += (~(np.abs(difference) < bound)).sum(axis=0)  # also one without a value
    p = (1 + hits) / (1 + permutations)
    return found, np.where(np.isnan(found), np.nan, p)


def _swapped(corpus: Corpus, total: np.ndarray, swap: np.ndarray, a: np.ndarray, b: np.ndarray):
    """[b, P, S, K] twice: the sums of both sides once the marked units have changed sides."""
    moved = weighted(swap, corpus)  # [b, R, S, K]
    change = moved[:, b] - moved[:, a]
    ours, others = total[a] + change, total[b] - change
    for name, place in corpus.places().items():
        for seed in range(len(corpus.seeds)):
            packed = [(held(swap, seeds[seed]), held(1 - swap, seeds[seed])) for seeds in corpus.grams[name]]
            for pair, (one, other) in enumerate(zip(a, b, strict=True)):
                (went, stayed), (came, kept) = packed[one], packed[other]
                ours[:, pair, seed, place] += count(stayed | came)
                others[:, pair, seed, place] += count(went | kept)
    return ours, others


def holm(p_values: list[float | None]) -> list[float | None]:
    """Holm's step-down correction, in the order given; values that are missing are no tests."""
    there = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(there):
        largest = max(largest, min(1.0, (len(there) - rank) * p))
        corrected[place] = largest
    return corrected
