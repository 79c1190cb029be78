"""ROUGE-L as the reference tool (nlg-eval, coco-caption) has it: F of the longest common subsequence.

It weighs recall by beta = 1.2; the plain F1 (beta = 1) is `rouge_l_f1` in beside.py. Written here because the
packages that have it build a table of all words by all words for each pair.
"""

import numpy as np

from vikdf.metrics.registry import Answers, metric
from vikdf.metrics.words import BLOCK, Ragged, blocks


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


def _shares(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """[N], [N]: precision and recall of each item, each the best over its references."""
    precision, recall = np.zeros(len(answers)), np.zeros(len(answers))
    hypotheses = answers.hypothesis_words
    for references in answers.reference_words:
        common = np.zeros(len(answers))
        for block in blocks(len(answers), BLOCK, "ROUGE-L"):
            ends = block.start, block.stop
            common[slice(*ends)] = _common(hypotheses.part(*ends), references.part(*ends))
        precision = np.maximum(precision, common / np.maximum(hypotheses.lengths, 1))
        recall = np.maximum(recall, common / np.maximum(references.lengths, 1))
    return precision, recall


def rouge_l_each(answers: Answers, beta: float) -> np.ndarray:
    """[N]: F_beta of each item; 0 where hypothesis or reference is empty."""
    precision, recall = answers.remember("rouge", lambda: _shares(answers))
    below = recall + beta**2 * precision
    return np.divide((1 + beta**2) * precision * recall, below, out=np.zeros(len(answers)), where=below > 0)


SETTINGS = {"mean": "items", "best": "P-and-R-apart"}  # of several references, as the tool


@metric("rouge_l", beta=1.2, **SETTINGS)
def rouge_l(answers: Answers) -> float:
    return 100 * rouge_l_each(answers, beta=1.2).mean()
