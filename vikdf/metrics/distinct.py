"""Dis-1 and Dis-2: distinct n-grams of all answers over their number, after the paper's normalisation.

Lower case; ASCII punctuation becomes a space; then the articles a, an, the become a space; cut at white space.
"""

import re
import string

import numpy as np

from vikdf.metrics.registry import Answers, metric
from vikdf.metrics.words import BLOCK, Ragged, Vocabulary, blocks, encode, grams

FRESH = 2**18  # n-grams that wait at least before they are merged with those seen
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


def counts(texts: list[str]) -> dict[int, tuple[int, int]]:
    """Order 1 and 2 -> distinct n-grams, n-grams. Counted block by block: of all n-grams only the distinct ones are kept."""
    vocabulary, total = Vocabulary(), {1: 0, 2: 0}
    seen, fresh = np.zeros(0, dtype=np.int64), []
    for block in blocks(len(texts), BLOCK, "n-grams"):
        words = encode(normalised(texts[block.start : block.stop]), str.split, vocabulary)
        follows = np.ones(len(words.flat) + 1, dtype=bool)  # places where a word follows one of its own text
        follows[[*words.starts, -1]] = False
        pairs = (words.flat[:-1].astype(np.int64) << 32 | words.flat[1:])[follows[1:-1]]
        fresh.append(_merged([pairs]))
        total = {1: total[1] + len(words.flat), 2: total[2] + len(pairs)}
        if sum(map(len, fresh)) > max(FRESH, len(seen) // 2):
            seen, fresh = _merged([seen, *fresh]), []
    seen = _merged([seen, *fresh])
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
