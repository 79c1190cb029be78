"""Corpus BLEU-1 to BLEU-4 as the reference tool (nlg-eval, coco-caption) has it.

Clipped n-gram counts and lengths are summed over the corpus; the reference length of an item is the one closest to its
hypothesis; geometric mean of the precisions, brevity penalty; two tiny constants keep 0/0 away, as in the tool.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vikdf.metrics.registry import Answers, metric
from vikdf.metrics.words import Ragged

SMALL, TINY = 1e-9, 1e-15  # the reference tool's, below and above the fraction bar
ORDERS = 4
BLOCK = 4096  # items counted at a time: the memory does not grow with the corpus


class Counts(NamedTuple):
    correct: np.ndarray  # [N, 4] clipped matches of each order
    guess: np.ndarray  # [N, 4] n-grams in the hypothesis
    hypothesis: np.ndarray  # [N] words
    reference: np.ndarray  # [N] words of the reference closest in length


def _ngrams(sides: list[Ragged]) -> Iterator[tuple[list[np.ndarray], int]]:
    """For each order: per side a number for each n-gram, item * size + code of the n-gram; and that size."""
    lengths = [len(side.flat) for side in sides]
    cuts = np.cumsum(lengths)[:-1]
    words = np.concatenate([side.flat for side in sides])  # [T]
    item = np.concatenate([np.repeat(np.arange(len(side)), side.lengths) for side in sides])
    left = np.concatenate([np.repeat(side.starts[1:], side.lengths) - np.arange(len(side.flat)) for side in sides])
    largest = int(words.max(initial=0)) + 1
    code = words
    for order in range(1, ORDERS + 1):
        inside = left >= order  # so many words are left in the text from here on
        if order > 1:  # the code of the n-gram one shorter, and the word after it
            joined = code[: max(len(words) - order + 1, 0)] * largest + words[order - 1 :]
            joined = np.pad(joined, (0, len(words) - len(joined)))
            code = np.unique(np.where(inside, joined, -1), return_inverse=True)[1]
        size = int(code.max(initial=0)) + 1
        numbers = item * size + code
        yield [part[there] for part, there in zip(np.split(numbers, cuts), np.split(inside, cuts), strict=True)], size


def _matches(hypotheses: Ragged, references: list[Ragged]) -> np.ndarray:
    """[n, 4] clipped matches of each item: an n-gram counts at most as often as in the reference that has it most."""
    correct = np.zeros((len(hypotheses), ORDERS))
    for order, ((own, *others), size) in enumerate(_ngrams([hypotheses, *references])):
        own, counts = np.unique(own, return_counts=True)
        best = np.zeros(len(own), dtype=np.int64)
        for other in others:
            other, there = np.unique(other, return_counts=True)
            if len(other):
                place = np.minimum(np.searchsorted(other, own), len(other) - 1)
                best = np.maximum(best, np.where(other[place] == own, there[place], 0))
        correct[:, order] = np.bincount(own // size, np.minimum(counts, best), minlength=len(hypotheses))
    return correct


def bleu_counts(answers: Answers) -> Counts:
    """Counts of each item; sums of them over any set of items give its BLEU."""
    if "bleu" not in answers.memo:
        hypotheses, references = answers.hypothesis_words, answers.reference_words
        firsts = range(0, len(answers), BLOCK)
        cut = [(first, min(first + BLOCK, len(answers))) for first in firsts]
        blocks = [_matches(hypotheses.part(*ends), [column.part(*ends) for column in references]) for ends in cut]
        lengths = np.sort(np.stack([column.lengths for column in references]), axis=0)  # [R, N]; of two as close,
        closest = np.abs(lengths - hypotheses.lengths).argmin(axis=0)  # the shorter
        reference = np.take_along_axis(lengths, closest[None], axis=0)[0]
        guess = np.maximum(hypotheses.lengths[:, None] - np.arange(ORDERS), 0)
        answers.memo["bleu"] = Counts(np.concatenate(blocks), guess, hypotheses.lengths, reference)
    return answers.memo["bleu"]


def bleu(counts: Counts, order: int) -> float:
    """BLEU-`order` in per cent from the counts of a corpus."""
    correct, guess = counts.correct.sum(axis=0), counts.guess.sum(axis=0)
    precisions = [(correct[k] + TINY) / (guess[k] + SMALL) for k in range(order)]
    ratio = (counts.hypothesis.sum() + TINY) / (counts.reference.sum() + SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    return 100 * math.prod(precisions) ** (1 / order) * brevity


_SETTINGS = {"level": "corpus", "reflen": "closest", "smooth": f"{TINY:g}/{SMALL:g}"}


@metric("bleu1", **_SETTINGS)
def bleu1(answers: Answers) -> float:
    return bleu(bleu_counts(answers), 1)


@metric("bleu2", **_SETTINGS)
def bleu2(answers: Answers) -> float:
    return bleu(bleu_counts(answers), 2)


@metric("bleu3", **_SETTINGS)
def bleu3(answers: Answers) -> float:
    return bleu(bleu_counts(answers), 3)


@metric("bleu4", **_SETTINGS)
def bleu4(answers: Answers) -> float:
    return bleu(bleu_counts(answers), 4)
