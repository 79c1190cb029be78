"""ROUGE-L as the reference tool (nlg-eval, coco-caption) has it: F of the longest common subsequence.

It weighs recall by beta = 1.2; the plain F1 (beta = 1) is `rouge_l_f1` in beside.py. Written here because the
packages that have it build a table of all words by all words for each pair.
"""

import numpy as np

from vikdf.metrics.registry import Answers, Block, metric, piece
from vikdf.metrics.words import Ragged


def lcs(masks: dict[int, int], length: int, words: list[int]) -> int:
    """Length of the longest common subsequence of `words` and a text of `length` words.

    masks: word -> bits of the places where it stands in that text. Bit-parallel (Hyyro): a zero in `open` counts one.
    """
    full = (1 << length) - 1
    open = full
    for word in words:
        hit = open & masks.get(word, 0)
        open = ((open + hit) | (open - hit)) & full
    return length - open.bit_count()


def _common(hypotheses: Ragged, references: Ragged) -> list[int]:
    """Words of the longest common subsequence of each pair."""
    found = []
    for hypothesis, reference in zip(hypotheses.rows(), references.rows(), strict=True):
        masks: dict[int, int] = {}
        for place, word in enumerate(reference):
            masks[word] = masks.get(word, 0) | 1 << place
        found.append(lcs(masks, len(reference), hypothesis))
    return found


@piece()
def shares(block: Block) -> dict[str, np.ndarray]:
    """Both F of each item, from precision and recall, each the best over its references; 0 where a side is empty."""
    hypotheses = block.hypothesis_words
    precision, recall = np.zeros(len(hypotheses)), np.zeros(len(hypotheses))
    for references in block.reference_words:
        common = np.array(_common(hypotheses, references), dtype=float)
        precision = np.maximum(precision, common / np.maximum(hypotheses.lengths, 1))
        recall = np.maximum(recall, common / np.maximum(references.lengths, 1))
    return {"rouge_l": _f(precision, recall, beta=1.2), "rouge_l_f1": _f(precision, recall, beta=1)}


def _f(precision: np.ndarray, recall: np.ndarray, beta: float) -> np.ndarray:
    below = recall + beta**2 * precision
    return np.divide((1 + beta**2) * precision * recall, below, out=np.zeros(len(below)), where=below > 0)


SETTINGS = {"mean": "items", "best": "P-and-R-apart"}  # of several references, as the tool


@metric("rouge_l", beta=1.2, **SETTINGS)
def rouge_l(answers: Answers) -> float:
    return 100 * answers.mean("rouge_l")
