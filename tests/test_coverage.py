"""statistics on random systems whose truth is known: p-values when nothing differs, power when something does, coverage.

Each property has a short form, with bounds as wide as its few repetitions ask for, and a long one with ten times as many.
"""

import numpy as np
import pytest
from drawn import answers, of_rows, question, questions, table, texts
from scipy.stats import kstest, nct, t

from vikdf.statistics.corpus import TESTED, WRITTEN, probed, written
from vikdf.statistics.intervals import replicates
from vikdf.statistics.permutation import permuted
from vikdf.statistics.seeds import t_interval

PLACES = [WRITTEN.index(name) for name in TESTED]
REPETITIONS = pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.long)], ids=["short", "long"])


def near(rate: float, wanted: float, count: int, slack: float = 0.0) -> bool:
    """Within four standard errors of `count` repetitions, and what an approximation may be off."""
    return abs(rate - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / count) + slack


@REPETITIONS
def test_where_nothing_differs_p_is_uniform_for_every_metric(times):
    random, count = np.random.default_rng(1), 150 * times
    p = np.empty((count, len(TESTED)))
    for draw in range(count):
        corpus = written("reddit", of_rows({name: [answers(random, 50)] for name in "ab"}))
        p[draw] = permuted(corpus, [(0, 1)], 199, draw)[1][0, PLACES]
    for name, column in zip(TESTED, p.T, strict=True):
        assert near((column <= 0.05).mean(), 0.05, count), name
        smooth = column - np.random.default_rng(2).random(count) / 200  # p is one of 200 steps: spread within its step
        assert kstest(smooth, "uniform").pvalue > 1e-4, name


@REPETITIONS
def test_swapping_all_seeds_of_an_example_together_keeps_p_uniform_given_the_models(times):
    """Seeds that err on the same examples are no more independent examples."""
    random, count, p = np.random.default_rng(3), 150 * times, []
    for draw in range(count):
        hard = {name: random.normal(0, 0.2, 40) for name in "ab"}
        rows = {n: [table(["w"] * 40, rouge_l=hard[n] + random.normal(0, 0.02, 40)) for _ in range(3)] for n in "ab"}
        p.append(permuted(written("reddit", of_rows(rows)), [(0, 1)], 199, draw)[1][0, WRITTEN.index("rouge_l")])
    assert near(np.mean(np.array(p) <= 0.05), 0.05, count)


@REPETITIONS
def test_a_planted_difference_is_found_as_often_as_theory_says(times):
    """Paired differences of normal(d, 1), 60 of them: the power of the t-test, which the permutation test shares."""
    random, count, size = np.random.default_rng(4), 200 * times, 60
    for shift in (0.25, 0.4):
        found = 0
        for draw in range(count):
            base = random.normal(0, 1, size)
            rows = {"a": [table(["w"] * size, rouge_l=base + random.normal(shift, 1, size))]}
            rows |= {"b": [table(["w"] * size, rouge_l=base)]}
            p = permuted(written("reddit", of_rows(rows)), [(0, 1)], 199, draw)[1]
            found += p[0, WRITTEN.index("rouge_l")] <= 0.05
        edge, away = t.ppf(0.975, size - 1), shift * np.sqrt(size)
        power = nct.sf(edge, size - 1, away) + nct.cdf(-edge, size - 1, away)
        assert near(found / count, power, count, slack=0.02), (shift, power)


@REPETITIONS
def test_a_richer_vocabulary_is_found_by_dis_n(times):
    random, count, found = np.random.default_rng(5), 20 * times, 0
    for draw in range(count):
        rows = {"a": [table(texts(random, 100, steep=0.8))], "b": [table(texts(random, 100, steep=1.2))]}
        p = permuted(written("reddit", of_rows(rows)), [(0, 1)], 199, draw)[1]
        found += (p[0, [WRITTEN.index("dis1"), WRITTEN.index("dis2")]] <= 0.05).all()
    assert found == count


@pytest.mark.long
def test_equally_rich_systems_of_other_words_are_told_apart_by_dis_n_in_few_cases():
    """The swaps alone say so in up to 9 of 100 cases, not 5; with the subsampling interval beside them in about 5."""
    random, count, places = np.random.default_rng(12), 500, [WRITTEN.index("dis1"), WRITTEN.index("dis2")]
    p, apart = np.empty((count, 2)), np.empty((count, 2), dtype=bool)
    for draw in range(count):
        other = [text.replace("w", "x") for text in texts(random, 150)]
        corpus = written("reddit", of_rows({"a": [table(texts(random, 150))], "b": [table(other)]}))
        p[draw] = permuted(corpus, [(0, 1)], 199, draw)[1][0, places]
        drawn = replicates(corpus, 200, draw)[:, :, places]
        low, high = np.quantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975], axis=0)
        apart[draw] = (low > 0) | (high < 0)
    assert ((p <= 0.05).mean(axis=0) < 0.14).all()
    assert ((p <= 0.05) & apart).mean(axis=0).max() < 0.09


@REPETITIONS
def test_intervals_over_examples_cover_as_often_as_they_say(times):
    """Of each metric and of differences. Bootstrap: 95 % but for what 150 examples are short of many; Dis-n: 92 to 98 %."""
    random, count, names = np.random.default_rng(6), 120 * times, [name for name in TESTED if name != "ppl_per_word"]
    values, ends = np.empty((count, 3, len(WRITTEN))), np.empty((count, 2, 3, len(WRITTEN)))
    for draw in range(count):
        corpus = written("reddit", of_rows({name: [answers(random, 150)] for name in "ab"}))
        found, drawn = corpus.values()[:, 0], replicates(corpus, 300, draw)
        values[draw] = [*found, found[0] - found[1]]
        drawn = np.stack([drawn[:, 0], drawn[:, 1], drawn[:, 0] - drawn[:, 1]], axis=1)
        ends[draw] = np.quantile(drawn, [0.025, 0.975], axis=0)
    truth = np.array([values[:, :2].mean(axis=(0, 1))] * 2 + [np.zeros(len(WRITTEN))])
    covered = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    for name in names:
        rates = covered[:, :, WRITTEN.index(name)].mean(axis=0)
        assert all(near(rate, 0.95, count, slack=0.025) for rate in rates), (name, rates)
        if times > 1:  # fewer repetitions could not tell intervals that are too wide
            assert (rates <= (0.99 if name in ("dis1", "dis2") else 0.98)).all(), (name, rates)


@REPETITIONS
@pytest.mark.parametrize(("nouns", "rate"), [(30, 0.94), (12, 0.91)])
def test_intervals_over_nouns_cover_where_questions_about_a_noun_go_together(nouns, rate, times):
    """The stated rates; of questions taken for independent ones two thirds of the intervals would cover."""
    random, count, hits = np.random.default_rng(13), 60 * times, 0
    for draw in range(count):
        asked = np.repeat(np.arange(nouns), random.integers(3, 9, nouns))
        right = random.random(len(asked)) < random.beta(0.4, 0.4, nouns)[asked]
        rows = [question(n, f"n{noun}", bool(r)) for n, (noun, r) in enumerate(zip(asked, right, strict=True))]
        (corpus,) = probed("probe", of_rows({"a": [questions(rows)]}))
        drawn = replicates(corpus, 300, draw)[:, 0, corpus.metrics.index("color_accuracy_all_heldout")]
        hits += np.quantile(drawn, 0.025) <= 0.5 <= np.quantile(drawn, 0.975)
    assert near(hits / count, rate, count, slack=0.02)


def seed_bootstrap(values: np.ndarray, random) -> tuple[float, float]:
    """What is not done here: percentiles of means of seeds drawn anew."""
    drawn = values[random.integers(0, len(values), (500, len(values)))].mean(axis=1)
    return tuple(np.quantile(drawn, [0.025, 0.975]))


@pytest.mark.parametrize(
    ("seeds", "bootstrap"), [(3, 0.75), (5, 0.83), (20, 0.93)], ids=["3 seeds", "5 seeds", "20 seeds"]
)
def test_t_over_seeds_covers_and_a_bootstrap_over_few_seeds_does_not(seeds, bootstrap):
    """The stated rates: t 95 % for any number; a bootstrap over 3, 5, 20 seeds about 75, 83, 93 %."""
    random, count = np.random.default_rng(7), 1500
    hits = np.zeros(2)
    for _ in range(count):
        values = random.normal(0, 1, seeds)
        for kind, (low, high) in enumerate([t_interval(values.tolist(), 0.95), seed_bootstrap(values, random)]):
            hits[kind] += low <= 0 <= high
    assert near(hits[0] / count, 0.95, count)
    assert near(hits[1] / count, bootstrap, count, slack=0.02), hits[1] / count


@REPETITIONS
@pytest.mark.parametrize("seeds", [3, 5, 20])
def test_paired_t_over_seeds_covers_the_difference_of_two_ways_of_training(seeds, times):
    """Whole corpora: each seed shifts a model as a whole; the test set is one. The interval is of the difference on it."""
    random, count, hits, place = np.random.default_rng(8), 60 * times, 0, WRITTEN.index("rouge_l")
    for _ in range(count):
        ease = random.beta(2, 3, 30)
        made = {name: [ease + random.normal(0, 0.05) for _ in range(seeds)] for name in "ab"}
        rows = {name: [table(["w"] * 30, rouge_l=each) for each in systems] for name, systems in made.items()}
        values = written("reddit", of_rows(rows)).values()[:, :, place]
        low, high = t_interval((values[0] - values[1]).tolist(), 0.95)
        hits += low <= 0 <= high
    assert near(hits / count, 0.95, count)


@pytest.mark.long
@pytest.mark.parametrize("words", [60, 300, 2000])
def test_subsampling_covers_dis_n_of_small_and_large_vocabularies(words):
    random, count, places = np.random.default_rng(9), 250, [WRITTEN.index("dis1"), WRITTEN.index("dis2")]
    values, ends = np.empty((count, 2)), np.empty((count, 2, 2))
    for draw in range(count):
        corpus = written("reddit", of_rows({"a": [table(texts(random, 200, words=words))]}))
        values[draw] = corpus.values()[0, 0, places]
        ends[draw] = np.quantile(replicates(corpus, 300, draw)[:, 0, places], [0.025, 0.975], axis=0)
    rates = ((ends[:, 0] <= values.mean(axis=0)) & (values.mean(axis=0) <= ends[:, 1])).mean(axis=0)
    assert ((rates > 0.9) & (rates < 0.99)).all(), rates
