"""Average, Extrema and Greedy: cosine similarity of hypothesis and reference over a table of word vectors.

As in the reference tool (nlg-eval): a word without a vector has the mean of all vectors; the best over the references,
the mean over items. Its square matrix of all cosines, used for its diagonal only, is not built. An empty hypothesis or
reference, at which the tool stops, scores 0. Vectors are gathered for a few hundred items at a time: flat memory.
"""

from collections.abc import Callable

import numpy as np

from vikdf.metrics.registry import Answers, metric
from vikdf.metrics.words import Ragged

BLOCK = 64  # items at a time: their vectors stay in the cache


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n, d], [n, d] -> [n]; 0 where a vector is 0."""
    norms = np.sqrt(np.einsum("nd,nd->n", a, a) * np.einsum("nd,nd->n", b, b))
    return np.divide(np.einsum("nd,nd->n", a, b), norms, out=np.zeros(len(a)), where=norms > 0)


def _best(answers: Answers, similarity: Callable[[Ragged, Ragged, np.ndarray], np.ndarray], table: np.ndarray):
    """[N]: the similarity of each item, the best over its references; items by length, so that padding is small."""
    best = np.full((len(answers.reference_words), len(answers)), 0.0)
    for column, references in enumerate(answers.reference_words):
        lengths = np.stack([answers.hypothesis_words.lengths, references.lengths])
        order = np.lexsort(lengths)
        order = order[lengths.min(axis=0)[order] > 0]  # an empty text stays at 0
        for first in range(0, len(order), BLOCK):
            items = order[first : first + BLOCK]
            sides = [_take(side, items) for side in (answers.hypothesis_words, references)]
            best[column, items] = similarity(*sides, table)
    return best.max(axis=0)


def _take(side: Ragged, items: np.ndarray) -> Ragged:
    lengths = side.lengths[items]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = np.repeat(side.starts[items] - starts[:-1], lengths) + np.arange(starts[-1])
    return Ragged(side.flat[places], starts)


def _sum(side: Ragged, table: np.ndarray) -> np.ndarray:
    return np.add.reduceat(table[side.flat], side.starts[:-1], axis=0)  # [n, d]


def _extreme(side: Ragged, table: np.ndarray) -> np.ndarray:
    """In each dimension the value farthest from 0; of two as far, the negative one (as in the tool)."""
    places = side.starts[:-1, None] + np.minimum(np.arange(side.lengths.max()), side.lengths[:, None] - 1)
    gathered = table[side.flat[places]]  # [n, L, d], the last word repeated to the block's length: no extreme changes
    high, low = gathered.max(axis=1), gathered.min(axis=1)
    return np.where(high > -low, high, low)


def _padded(side: Ragged, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, L, d] vectors and [n, L] where a word stands."""
    there = np.arange(side.lengths.max()) < side.lengths[:, None]
    ids = np.zeros(there.shape, dtype=np.int64)
    ids[there] = side.flat
    return table[ids], there


def _match(hypotheses: Ragged, references: Ragged, table: np.ndarray) -> np.ndarray:
    """Mean over words of the best cosine with a word of the other side; both directions, averaged."""
    (own, own_there), (other, other_there) = _padded(hypotheses, table), _padded(references, table)
    cosines = own @ other.transpose(0, 2, 1)  # [n, L, M]
    cosines[~(own_there[:, :, None] & other_there[:, None, :])] = -np.inf
    forth = np.where(own_there, cosines.max(axis=2), 0).sum(axis=1) / hypotheses.lengths
    back = np.where(other_there, cosines.max(axis=1), 0).sum(axis=1) / references.lengths
    return (forth + back) / 2


def average_each(answers: Answers) -> np.ndarray:
    return _best(answers, lambda a, b, table: _cosine(_sum(a, table), _sum(b, table)), answers.table)


def extrema_each(answers: Answers) -> np.ndarray:
    return _best(answers, lambda a, b, table: _cosine(_extreme(a, table), _extreme(b, table)), answers.table)


def greedy_each(answers: Answers) -> np.ndarray:
    norms = np.linalg.norm(answers.table, axis=1, keepdims=True)
    unit = np.divide(answers.table, norms, out=np.zeros_like(answers.table), where=norms > 0)
    return _best(answers, _match, unit)


@metric("average", needs="vectors", mean="items")
def average(answers: Answers) -> float:
    return 100 * average_each(answers).mean()


@metric("extrema", needs="vectors", mean="items")
def extrema(answers: Answers) -> float:
    return 100 * extrema_each(answers).mean()


@metric("greedy", needs="vectors", mean="items")
def greedy(answers: Answers) -> float:
    return 100 * greedy_each(answers).mean()
