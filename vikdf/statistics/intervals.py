"""Intervals given the trained models: bootstrap over examples (nouns in the probe), subsampling for Dis-n and EAD-n.

In: a Corpus. Out: `replicates` [B, R, M], draws of every row's mean over seeds; `between` takes their quantiles, or those of
the difference of two rows, which is paired since all rows share the drawn examples.

Dis-n, and with it EAD-n, falls when a text is repeated, so that a bootstrap sample, which repeats a third of its examples, is
too low. Instead m of N examples are drawn without replacement. Their spread about their own mean, in proportion, times
sqrt(m / (N - m)), is that of whole corpora: for a mean this is exact. m is four fifths: halves are so much smaller that Dis-n
is another one there, and covered 89 % where 95 were wanted; four fifths cover 93 to 98 % (the long test in
tests/test_coverage.py). The share of repeated answers has no interval: it would need subsamples of its own.
"""

import math

import numpy as np

from vikdf.statistics.corpus import SUBSAMPLED, Corpus
from vikdf.statistics.draws import blocks, count, held, weighted

PART = 4 / 5  # of the examples in a subsample


def replicates(corpus: Corpus, resamples: int, seed: int) -> np.ndarray:
    """[B, R, M]: what the mean over seeds might have been with other units."""
    made = [_bootstrap(corpus, random) for random in blocks(corpus, resamples, seed)]
    values = np.concatenate(made)
    if corpus.grams and corpus.size > 1:
        places = [corpus.metrics.index(name) for name in SUBSAMPLED]
        parts = np.concatenate([_parts(corpus, random) for random in blocks(corpus, resamples, seed)])  # [B, R, D]
        values[:, :, places] = _scaled(parts, corpus.values().mean(axis=1)[:, places], corpus.size)
    return values


def _bootstrap(corpus: Corpus, random: np.ndarray) -> np.ndarray:
    size = corpus.size
    drawn = (random * size).astype(np.int64) + size * np.arange(len(random))[:, None]
    weights = np.bincount(drawn.ravel(), minlength=random.size).reshape(random.shape).astype(float)
    return corpus.measure(weighted(weights, corpus)).mean(axis=2)


def _parts(corpus: Corpus, random: np.ndarray) -> np.ndarray:
    """[b, R, D]: Dis-n and EAD-n of random subsamples, the mean over seeds."""
    few = int(PART * corpus.size)
    chosen = np.zeros(random.shape)
    np.put_along_axis(chosen, np.argpartition(random, few, axis=1)[:, :few], 1.0, axis=1)
    sums = weighted(chosen, corpus)
    for name, place in corpus.places().items():
        for row, seeds in enumerate(corpus.grams[name]):
            for number, grams in enumerate(seeds):
                sums[:, row, number, place] += count(held(chosen, grams))
    return corpus.measure(sums).mean(axis=2)[:, :, [corpus.metrics.index(name) for name in SUBSAMPLED]]


def _scaled(parts: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """The spread of the subsamples, in proportion, put around the values [R, D] of the whole corpus."""
    few = int(PART * size)
    mean = parts.mean(axis=0)
    off = np.divide(parts - mean, mean, out=np.zeros_like(parts), where=mean > 0)
    return values * (1 + off * math.sqrt(few / (size - few)))


def between(draws: np.ndarray, confidence: float) -> tuple[float | None, float | None]:
    """The middle of draws [B]; those without a value (a noun that no reply told of) are left out."""
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return None, None
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
