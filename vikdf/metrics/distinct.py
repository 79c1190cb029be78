"""Dis-1 and Dis-2: distinct n-grams of all answers over their number, after the paper's normalisation.

Lower case; ASCII punctuation becomes a space; then the articles a, an, the become a space; cut at white space.
"""

import re
import string
from collections.abc import Sequence

import numpy as np

from vikdf.metrics.registry import Answers, metric
from vikdf.metrics.words import BLOCK, Ragged, Vocabulary, blocks, encode, grams

FRESH = 2**18  # n-grams that wait at least before they are merged with those seen
DRAWERS = 64  # merged one after the other: a copy is of one drawer
_MIX = np.uint64(0x9E3779B97F4A7C15)  # times an odd number, mod 2 ** 64: another number each, and spread evenly
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "\n", " "))
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalised(texts: list[str]) -> list[str]:
    """All texts in one pass: joined by line ends, which no text holds any more."""
    joined = "\n".join(text.translate(_PUNCTUATION) for text in texts).lower()
    return _ARTICLES.sub(" ", joined).split("\n") if texts else []


def ngrams(texts: list[str], order: int) -> Ragged:
    """The n-grams of each text as ids from 0 that the texts share: texts of systems to be compared go in together."""
    *_, last = grams(encode(normalised(texts), str.split, Vocabulary()), order)
    return last


def _merged(parts: list[np.ndarray]) -> np.ndarray:
    """The different values. np.unique would put them into a hash table, which takes five times as long as sorting them."""
    values = np.concatenate(parts)
    values.sort()
    first = np.ones(len(values), dtype=bool)  # of those that are equal
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return values[first]


class Seen:
    """The different ones of many numbers, eight bytes each; more wait in `fresh` until it is worth to merge them."""

    def __init__(self):
        self.drawers = [np.zeros(0, dtype=np.uint64)] * DRAWERS
        self.fresh: list[np.ndarray] = []
        self.waiting = 0

    def __len__(self) -> int:
        return sum(map(len, self.drawers))

    def add(self, numbers: np.ndarray) -> None:
        self.fresh.append(_merged([numbers.astype(np.uint64) * _MIX]))
        self.waiting += len(self.fresh[-1])
        if self.waiting > max(FRESH, len(self) // 4):
            self.merge()

    def merge(self) -> None:
        edges = (np.arange(1, DRAWERS, dtype=np.uint64) << np.uint64(58)).astype(np.uint64)
        parts = [np.split(numbers, np.searchsorted(numbers, edges)) for numbers in self.fresh]
        for place, drawer in enumerate(self.drawers):
            self.drawers[place] = _merged([drawer, *(part[place] for part in parts)])
        self.fresh, self.waiting = [], 0


def counts(*columns: Sequence[str]) -> dict[int, tuple[int, int]]:
    """Order 1 and 2 -> distinct n-grams, n-grams. Counted block by block: of all n-grams only the distinct ones are kept."""
    vocabulary, total, seen = Vocabulary(), {1: 0, 2: 0}, Seen()
    for texts in columns:
        for block in blocks(len(texts), BLOCK, "n-grams"):
            words = encode(normalised(texts[block.start : block.stop]), str.split, vocabulary)
            follows = np.ones(len(words.flat) + 1, dtype=bool)  # places where a word follows one of its own text
            follows[[*words.starts, -1]] = False
            pairs = (words.flat[:-1].astype(np.int64) << 32 | words.flat[1:])[follows[1:-1]]
            seen.add(pairs)
            total = {1: total[1] + len(words.flat), 2: total[2] + len(pairs)}
    seen.merge()
    return {1: (len(vocabulary), total[1]), 2: (len(seen), total[2])}


def distinct(found: int, total: int) -> float:
    """Dis-n in per cent."""
    return 100 * found / total if total else 0.0


def said(answers: Answers) -> dict[int, tuple[int, int]]:
    """counts() of the answers."""
    return answers.remember("distinct", lambda: counts(answers.hypotheses))


NORM = {"words": False, "level": "corpus", "norm": "lower+punctuation+articles"}


@metric("dis1", **NORM)
def dis1(answers: Answers) -> float:
    return distinct(*said(answers)[1])


@metric("dis2", **NORM)
def dis2(answers: Answers) -> float:
    return distinct(*said(answers)[2])
