"""EAD-1 and EAD-2, the length-fair Dis-n of Liu et al. (Rethinking and Refining the Distinct Metric, ACL 2022).

Dis-n falls with the number of words, whatever a system says. EAD divides the distinct n-grams N by how many are expected
among as many (C) drawn at random from V: EAD = N / (V (1 - ((V - 1) / V)^C)), here in per cent. V has to be the same for
all systems that are compared: it is the number of distinct n-grams of the references, and stands in the signature.
"""

import math

from vikdf.metrics.distinct import NORM, counts, distinct, said
from vikdf.metrics.registry import Answers, metric


def ead(found: int, total: int, vocabulary: int) -> float:
    """In per cent of `total` n-grams, `found` of them distinct; above 100 where they vary more than random ones of V."""
    if vocabulary > 1:  # expm1 and log1p keep the digits where V is large
        expected = -vocabulary * math.expm1(total * math.log1p(-1 / vocabulary))
    else:
        expected = min(total, 1)
    return distinct(found, expected)


def vocabulary(answers: Answers, order: int) -> int:
    """V: the distinct n-grams of all references."""
    every = [text for column in answers.references for text in column]
    return answers.remember("vocabulary", lambda: counts(every))[order][0]


@metric("ead1", **NORM, V=lambda answers: f"{vocabulary(answers, 1)}-in-references")
def ead1(answers: Answers) -> float:
    return ead(*said(answers)[1], vocabulary(answers, 1))


@metric("ead2", **NORM, V=lambda answers: f"{vocabulary(answers, 2)}-in-references")
def ead2(answers: Answers) -> float:
    return ead(*said(answers)[2], vocabulary(answers, 2))
