"""What stands beside the eight metrics: how long answers are, how many are empty or given twice, and second forms.

Words are the tokenizer's, punctuation counted; the shares are in per cent of all answers.
"""

import hashlib

import numpy as np

from vikdf.metrics.perplexity import perplexity
from vikdf.metrics.registry import Answers, metric
from vikdf.metrics.rouge import SETTINGS, rouge_l_each


@metric("mean_length", unit="words")
def mean_length(answers: Answers) -> float:
    return answers.hypothesis_words.lengths.mean()


@metric("empty", unit="per-cent")
def empty(answers: Answers) -> float:
    """Answers without a word."""
    return 100 * (answers.hypothesis_words.lengths == 0).mean()


@metric("repeated", words=False, unit="per-cent", norm="lower+spaces", blank="not-counted")
def repeated(answers: Answers) -> float:
    """Answers that another item got too, whatever their case and white space; blank ones stand in `empty` alone."""
    digests = np.fromiter((_digest(text) for text in answers.hypotheses if text.strip()), dtype=np.uint64)
    counts = np.unique(digests, return_counts=True)[1]
    return 100 * counts[counts > 1].sum() / len(answers)


def _digest(text: str) -> int:
    """Eight bytes in place of the text: flat memory, and of a million texts two share them once in 10 ** 7 tables."""
    plain = " ".join(text.lower().split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest())


@metric("rouge_l_f1", beta=1, **SETTINGS)
def rouge_l_f1(answers: Answers) -> float:
    return 100 * rouge_l_each(answers, beta=1).mean()


@metric("ppl_per_word", needs="nll", words=False, per="white-space word", eos="counted")
def ppl_per_word(answers: Answers) -> float:
    """exp(sum of NLL / number of words of the references): the same ruler for every tokenizer."""
    return perplexity(answers.nll, sum(len(text.split()) for text in answers.references[0]), "words in the references")
