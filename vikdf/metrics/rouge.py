"""ROUGE-L as the reference tool (nlg-eval, coco-caption) has it: F of the longest common subsequence."""

import numpy as np

from vikdf.metrics.registry import Answers, metric


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


def _shares(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """[N], [N]: precision and recall of each item, each the best over its references."""
    precision, recall = np.zeros(len(answers)), np.zeros(len(answers))
    hypotheses = answers.hypothesis_words.rows()
    for column in answers.reference_words:
        for i, (hypothesis, reference) in enumerate(zip(hypotheses, column.rows(), strict=True)):
            if hypothesis and reference:
                masks: dict[int, int] = {}
                for place, word in enumerate(reference):
                    masks[word] = masks.get(word, 0) | 1 << place
                common = lcs(masks, len(reference), hypothesis)
                precision[i] = max(precision[i], common / len(hypothesis))
                recall[i] = max(recall[i], common / len(reference))
    return precision, recall


def rouge_l_each(answers: Answers, beta: float) -> np.ndarray:
    """[N]: F_beta of each item; 0 where hypothesis or reference is empty."""
    precision, recall = _shares(answers)
    below = recall + beta**2 * precision
    return np.divide((1 + beta**2) * precision * recall, below, out=np.zeros(len(answers)), where=below > 0)


@metric("rouge_l", beta=1.2, mean="items")
def rouge_l(answers: Answers) -> float:
    return 100 * rouge_l_each(answers, beta=1.2).mean()
