"""What seeds say: t-intervals of their mean, and the paper's test. Values of a metric in, one a seed; numbers out, or None.

A bootstrap over three seeds would cover the truth in 75 of 100 repetitions, over five in 83, where 95 are wanted: hence t.
"""

import math
from statistics import fmean, stdev


def t_interval(values: list[float], confidence: float) -> tuple[float | None, float | None]:
    """t-interval of the mean; of fewer than two values there is none."""
    if len(values) < 2:
        return None, None
    from scipy.stats import t

    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def one_sample(values: list[float], other: float) -> float | None:
    """The paper's test: are these seeds' values from a distribution with that mean? None of one seed or of equal values."""
    if len(values) < 2 or max(values) == min(values):
        return None
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(values, other).pvalue)
