"""Perplexity from the saved token NLL: of the whole corpus, so that batch size and padding side change nothing."""

import math

from vikdf.metrics.registry import Answers, metric


@metric("ppl", needs="nll", words=False, per="response token", eos="counted")
def ppl(answers: Answers) -> float:
    """exp(sum of NLL / number of response tokens). Of systems with different tokenizers: compare ppl_per_word."""
    return math.exp(math.fsum(answers.nll) / int(answers.tokens.sum()))


@metric("ppl_per_word", needs="nll", words=False, per="white-space word", eos="counted")
def ppl_per_word(answers: Answers) -> float:
    """exp(sum of NLL / number of words of the references): the same ruler for every tokenizer."""
    words = sum(len(text.split()) for text in answers.references[0])
    return math.exp(math.fsum(answers.nll) / words)
