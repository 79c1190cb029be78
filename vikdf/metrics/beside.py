"""What stands beside the eight metrics: how long answers are, how many are empty or given twice, and second forms.

Words are the tokenizer's, punctuation counted; the shares are in per cent of all answers.
"""

import hashlib

import numpy as np

from vikdf.metrics.perplexity import perplexity
from vikdf.metrics.registry import Answers, Block, metric, piece
from vikdf.metrics.rouge import SETTINGS


@piece()
def lengths(block: Block) -> dict[str, np.ndarray]:
    words = block.hypothesis_words.lengths
    return {"length": words, "empty": words == 0}


@metric("mean_length", unit="words")
def mean_length(answers: Answers) -> float:
    return answers.mean("length")


@metric("empty", unit="per-cent")
def empty(answers: Answers) -> float:
    """Answers without a word."""
    return 100 * answers.mean("empty")


@metric("repeated", words=False, unit="per-cent", norm="lower+spaces", blank="not-counted")
def repeated(answers: Answers) -> float:
    """Answers that another item got too, whatever their case and white space; blank ones stand in `empty` alone."""
    digests, told = np.empty(len(answers), dtype=np.uint64), 0
    for text in answers.hypotheses:
        if text.strip():
            digests[told] = _digest(text)
            told += 1
    digests = digests[:told]
    digests.sort()
    same = np.zeros(told + 1, dtype=bool)  # as the one before it
    np.equal(digests[1:], digests[:-1], out=same[1:told])
    return 100 * (same[:-1] | same[1:]).sum() / len(answers)


def _digest(text: str) -> int:
    """Eight bytes in place of the text: flat memory, and of a million texts two share them once in 10 ** 7 tables."""
    plain = " ".join(text.lower().split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest())


@metric("rouge_l_f1", beta=1, **SETTINGS)
def rouge_l_f1(answers: Answers) -> float:
    return 100 * answers.mean("rouge_l_f1")


@metric("ppl_per_word", needs="nll", words=False, per="white-space word", eos="counted")
def ppl_per_word(answers: Answers) -> float:
    """exp(sum of NLL / number of words of the references): the same ruler for every tokenizer."""
    return perplexity(answers.nll, sum(len(text.split()) for text in answers.references[0]), "words in the references")
