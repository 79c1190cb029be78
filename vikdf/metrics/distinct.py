"""Dis-1 and Dis-2: distinct n-grams of all answers over their number, after the paper's normalisation.

Lower case; ASCII punctuation becomes a space; then the articles a, an, the become a space; cut at white space.
"""

import re
import string

import numpy as np

from vikdf.metrics.registry import Answers, metric
from vikdf.metrics.words import Ragged, encode

_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "\n", " "))
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalised(texts: list[str]) -> list[str]:
    """All texts in one pass: joined by line ends, which no text holds any more."""
    joined = "\n".join(text.translate(_PUNCTUATION) for text in texts).lower()
    return _ARTICLES.sub(" ", joined).split("\n")


def _words(answers: Answers) -> Ragged:
    if "distinct" not in answers.memo:
        answers.memo["distinct"] = encode(normalised(answers.hypotheses), str.split, {})
    return answers.memo["distinct"]


@metric("dis1", words=False, level="corpus", norm="lower+punctuation+articles")
def dis1(answers: Answers) -> float:
    words = _words(answers).flat
    return 100 * len(np.unique(words)) / len(words) if len(words) else 0.0


@metric("dis2", words=False, level="corpus", norm="lower+punctuation+articles")
def dis2(answers: Answers) -> float:
    words = _words(answers)
    joins = np.setdiff1d(np.arange(1, len(words.flat)), words.starts)  # places where a word follows one of its own text
    pairs = words.flat[joins - 1] * (words.flat.max(initial=0) + 1) + words.flat[joins]
    return 100 * len(np.unique(pairs)) / len(pairs) if len(pairs) else 0.0
