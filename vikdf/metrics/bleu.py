"""Corpus BLEU-1 to BLEU-4 as the reference tool (nlg-eval, coco-caption) has it.

Clipped n-gram counts and lengths are summed over the corpus; the reference length of an item is the one closest to its
hypothesis; geometric mean of the precisions, brevity penalty; two tiny constants keep 0/0 away, as in the tool.
"""

import math
from typing import NamedTuple

import numpy as np

from vikdf.metrics.registry import Answers, Block, metric, piece
from vikdf.metrics.words import Ragged, grams, joined

SMALL, TINY = 1e-9, 1e-15  # the reference tool's, below and above the fraction bar
ORDERS = 4


class Counts(NamedTuple):
    correct: np.ndarray  # [N, 4] clipped matches of each order
    guess: np.ndarray  # [N, 4] n-grams in the hypothesis
    hypothesis: np.ndarray  # [N] words
    reference: np.ndarray  # [N] words of the reference closest in length


def _numbered(grams: Ragged, sides: int) -> tuple[list[np.ndarray], int]:
    """Per side a number for each n-gram, item * size + its id; and that size."""
    items, size = len(grams) // sides, int(grams.flat.max(initial=0)) + 1
    numbers = np.repeat(np.arange(len(grams)) % items, grams.lengths) * size + grams.flat
    return np.split(numbers, grams.starts[items::items][:-1]), size


def _matches(hypotheses: Ragged, references: list[Ragged]) -> np.ndarray:
    """[n, 4] clipped matches of each item: an n-gram counts at most as often as in the reference that has it most."""
    sides = [hypotheses, *references]
    correct = np.zeros((len(hypotheses), ORDERS), dtype=np.int32)
    for order, shared in enumerate(grams(joined(sides), ORDERS)):
        (own, *others), size = _numbered(shared, len(sides))
        own, counts = np.unique(own, return_counts=True)
        best = np.zeros(len(own), dtype=np.int64)
        for other in others:
            other, there = np.unique(other, return_counts=True)
            if len(other):
                place = np.minimum(np.searchsorted(other, own), len(other) - 1)
                best = np.maximum(best, np.where(other[place] == own, there[place], 0))
        correct[:, order] = np.bincount(own // size, np.minimum(counts, best), minlength=len(hypotheses))
    return correct


@piece()
def counts(block: Block) -> dict[str, np.ndarray]:
    """What Counts holds, of each item."""
    hypotheses, references = block.hypothesis_words, block.reference_words
    lengths = np.sort(np.stack([column.lengths for column in references]), axis=0)  # [R, n]; of two as close,
    closest = np.abs(lengths - hypotheses.lengths).argmin(axis=0)  # the shorter
    guess = np.maximum(hypotheses.lengths[:, None] - np.arange(ORDERS), 0).astype(np.int32)
    return {
        "correct": _matches(hypotheses, references),
        "guess": guess,
        "hypothesis_words": hypotheses.lengths,
        "reference_words": np.take_along_axis(lengths, closest[None], axis=0)[0],
    }


def bleu(counts: Counts, order: int) -> float:
    """BLEU-`order` in per cent from the counts of a corpus."""
    correct, guess = counts.correct.sum(axis=0), counts.guess.sum(axis=0)
    precisions = [(correct[k] + TINY) / (guess[k] + SMALL) for k in range(order)]
    ratio = (counts.hypothesis.sum() + TINY) / (counts.reference.sum() + SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    return 100 * math.prod(precisions) ** (1 / order) * brevity


def corpus(answers: Answers) -> Counts:
    """The sums over all items, as if they were one."""
    return Counts(*(answers.sum(name)[None] for name in ("correct", "guess", "hypothesis_words", "reference_words")))


_SETTINGS = {"level": "corpus", "reflen": "closest", "smooth": f"{TINY:g}/{SMALL:g}"}


@metric("bleu1", **_SETTINGS)
def bleu1(answers: Answers) -> float:
    return bleu(corpus(answers), 1)


@metric("bleu2", **_SETTINGS)
def bleu2(answers: Answers) -> float:
    return bleu(corpus(answers), 2)


@metric("bleu3", **_SETTINGS)
def bleu3(answers: Answers) -> float:
    return bleu(corpus(answers), 3)


@metric("bleu4", **_SETTINGS)
def bleu4(answers: Answers) -> float:
    return bleu(corpus(answers), 4)
