"""Perplexity from the saved token NLL: of the whole corpus, so that batch size and padding side change nothing."""

import math

import numpy as np

from vikdf.metrics.registry import Answers, metric


def perplexity(nll: np.ndarray, units: int, names: str) -> float:
    """exp(sum of NLL / units)."""
    if units <= 0:
        raise ValueError(
            f"no perplexity can be told: there are no {names}; leave the NLL out, or give texts with words"
        )
    mean = math.fsum(nll) / units
    if not mean < 700:  # exp() of more is no number; NaN is not below it either
        raise ValueError(
            f"no perplexity can be told: the NLL is {mean:g} on average over the {names}; expected nats, each a finite number"
        )
    return math.exp(mean)


@metric("ppl", needs="nll", words=False, per="response token", eos="counted")
def ppl(answers: Answers) -> float:
    """exp(sum of NLL / number of response tokens). Of systems with different tokenizers: compare ppl_per_word."""
    return perplexity(answers.nll, int(answers.tokens.sum()), "response tokens")
