"""Average, Extrema and Greedy: cosine similarity of hypothesis and reference over a table of word vectors.

As in the reference tool (nlg-eval): a word without a vector has the mean of all vectors; the best over the references,
the mean over items. Its square matrix of all cosines, used for its diagonal only, is not built. An empty hypothesis or
reference, at which the tool stops, scores 0. Vectors are gathered for a few items at a time, once for all three: flat memory.

Shapes: n items of a block, L words of its longest text, d width of the vectors.
"""

from itertools import islice
from typing import NamedTuple

import numpy as np

from vikdf.metrics.registry import Answers, Block, metric, piece
from vikdf.metrics.vectors import Vectors
from vikdf.metrics.words import Ragged, Vocabulary

ITEMS = 32  # items at a time: their vectors stay in the cache
WORDS = 1024  # words at most of a side of these: long texts go in smaller ones
CELLS = 2**22  # cosines at a time


class Table:
    """Row in the table of vectors, and norm, of each word of the vocabulary as far as it was met."""

    def __init__(self, vectors: Vectors):
        self.vectors, self.places, self.norms = vectors, np.zeros(0, dtype=np.int64), np.zeros(0)

    def meet(self, vocabulary: Vocabulary) -> None:
        places = self.vectors.places(list(islice(vocabulary, len(self.places), None)))
        norms = np.zeros(len(places))
        for first in range(0, len(places), WORDS):
            vectors = self.vectors.look(places[first : first + WORDS])
            norms[first : first + WORDS] = np.sqrt(np.einsum("vd,vd->v", vectors, vectors))
        self.places, self.norms = np.concatenate([self.places, places]), np.concatenate([self.norms, norms])


class Side(NamedTuple):
    vectors: np.ndarray  # [n, L, d]; a shorter text is filled up with its last word
    there: np.ndarray  # [n, L] 1 where a word stands, 0 where it is filled up
    norms: np.ndarray  # [n, L]


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n, d], [n, d] -> [n]; 0 where a vector is 0."""
    norms = np.sqrt(np.einsum("nd,nd->n", a, a) * np.einsum("nd,nd->n", b, b))
    return np.divide(np.einsum("nd,nd->n", a, b), norms, out=np.zeros(len(a)), where=norms > 0)


def _sum(side: Side) -> np.ndarray:
    return (side.there[:, None] @ side.vectors)[:, 0]  # [n, d]


def _extreme(side: Side) -> np.ndarray:
    """In each dimension the value farthest from 0; of two as far, the negative one (as in the tool)."""
    high, low = side.vectors.max(axis=1), side.vectors.min(axis=1)
    return np.where(high > -low, high, low)


def _match(own: Side, other: Side) -> np.ndarray:
    """Mean over words of the best cosine with a word of the other side; both directions, averaged."""
    n, L, M = len(own.there), own.there.shape[1], other.there.shape[1]
    forth, back = np.empty((n, L)), np.full((n, M), -np.inf)
    step = max(1, CELLS // (n * M))
    for part in (slice(first, first + step) for first in range(0, L, step)):  # one part, but for very long texts
        cosines = own.vectors[:, part] @ other.vectors.transpose(0, 2, 1)  # [n, l, M]
        norms = own.norms[:, part, None] * other.norms[:, None]
        np.divide(cosines, norms, out=cosines, where=norms > 0)  # a vector of 0 has the cosine 0 with all
        forth[:, part] = cosines.max(axis=2)  # a word that fills up is never a better one than that which it repeats
        back = np.maximum(back, cosines.max(axis=1))
    means = [(side.there * best).sum(axis=1) / side.there.sum(axis=1) for side, best in ((own, forth), (other, back))]
    return (means[0] + means[1]) / 2


KINDS = {
    "average": lambda own, other: _cosine(_sum(own), _sum(other)),
    "extrema": lambda own, other: _cosine(_extreme(own), _extreme(other)),
    "greedy": _match,
}


def _side(words: Ragged, items: np.ndarray, table: Table) -> Side:
    """The vectors of some items' words."""
    lengths = words.lengths[items]
    steps = np.arange(lengths.max())
    at = words.starts[items, None] + np.minimum(steps, lengths[:, None] - 1)
    ids = words.flat[at]
    there = (steps < lengths[:, None]).astype(np.float64)
    return Side(table.vectors.look(table.places[ids]), there, table.norms[ids])


@piece(needs="vectors")
def cosines(block: Block) -> dict[str, np.ndarray]:
    """Kind -> [n]: the similarity of each item, the best over its references; items by length, so that little is filled up."""
    answers, hypotheses, best = block.answers, block.hypothesis_words, {}
    table = answers.remember("table", lambda: Table(answers.vectors))
    for references in block.reference_words:
        table.meet(answers.vocabulary)
        lengths = np.stack([hypotheses.lengths, references.lengths])
        order = np.lexsort(lengths)
        order = order[lengths.min(axis=0)[order] > 0]  # an empty text stays at 0
        found = {kind: np.zeros(len(hypotheses)) for kind in KINDS}
        for items in _parts(order, lengths.max(axis=0)):
            sides = [_side(words, items, table) for words in (hypotheses, references)]
            for kind, similarity in KINDS.items():
                found[kind][items] = similarity(*sides)
        best = {kind: np.maximum(best.get(kind, values), values) for kind, values in found.items()}
    return best


def _parts(order: np.ndarray, lengths: np.ndarray):
    """A few of the items at a time; of long texts fewer."""
    for start in range(0, len(order), ITEMS):
        items = order[start : start + ITEMS]
        step = max(1, WORDS // int(lengths[items].max()))
        yield from (items[first : first + step] for first in range(0, len(items), step))


@metric("average", needs="vectors", mean="items")
def average(answers: Answers) -> float:
    return 100 * answers.mean("average")


@metric("extrema", needs="vectors", mean="items")
def extrema(answers: Answers) -> float:
    return 100 * answers.mean("extrema")


@metric("greedy", needs="vectors", mean="items")
def greedy(answers: Answers) -> float:
    return 100 * answers.mean("greedy")
