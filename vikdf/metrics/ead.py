"""EAD-1 and EAD-2, the length-fair Dis-n of Liu et al. (Rethinking and Refining the Distinct Metric, ACL 2022).

Dis-n falls with the number of words, whatever a system says. EAD divides the distinct n-grams N by how many are expected
among as many (C) drawn at random from V: EAD = N / (V (1 - ((V - 1) / V)^C)), here in per cent. V has to be the same for
all systems that are compared: it is the number of n-grams that the references' distinct words can form, and stands in the
signature.
"""

import numpy as np

from vikdf.metrics.distinct import NORM, counts, distinct, said
from vikdf.metrics.registry import Answers, metric


def ead(found: int, total: int, vocabulary: int) -> float:
    """In per cent of `total` n-grams, `found` of them distinct; above 100 where they vary more than random ones of V."""
    return distinct(found, float(expected(total, vocabulary)))


def expected(total, vocabulary: int):
    """How many of `total` n-grams, a number or an array, are distinct if they are drawn at random from V."""
    if vocabulary > 1:  # expm1 and log1p keep the digits where V is large
        return -vocabulary * np.expm1(total * np.log1p(-1 / vocabulary))
    return np.minimum(total, 1)


def vocabulary(answers: Answers, order: int) -> int:
    """V: the distinct words of all references, to the power of the order."""
    return answers.remember("vocabulary", lambda: counts(*answers.references))[1][0] ** order


@metric("ead1", **NORM, V=lambda answers: f"{vocabulary(answers, 1)}-of-references")
def ead1(answers: Answers) -> float:
    return ead(*said(answers)[1], vocabulary(answers, 1))


@metric("ead2", **NORM, V=lambda answers: f"{vocabulary(answers, 2)}-of-references")
def ead2(answers: Answers) -> float:
    return ead(*said(answers)[2], vocabulary(answers, 2))
