"""statistics: sums of counts against the metrics themselves, tests and intervals against plain loops, Holm by hand."""

import itertools

import numpy as np
import pytest
from drawn import answers, of_rows, question, questions, table, texts

from vikdf import examples, metrics, probe
from vikdf.metrics.distinct import normalised
from vikdf.metrics.vectors import load
from vikdf.statistics import corpus as corpora
from vikdf.statistics import draws
from vikdf.statistics.corpus import SUBSAMPLED, TESTED, WRITTEN, written
from vikdf.statistics.intervals import PART, between, replicates
from vikdf.statistics.permutation import holm, permuted
from vikdf.statistics.seeds import t_interval

ODD = ["", "the", "a an the", "w1 w1 w1", "\N{DOG FACE} ok ?", "w2 w3 w4 w5 w6 w7"]


@pytest.fixture
def vectors(tmp_path):
    np.save(tmp_path / "vectors.npy", np.random.default_rng(5).normal(size=(200, 8)).astype(np.float32))
    (tmp_path / "words.txt").write_text("".join(f"w{number}\n" for number in range(200)))
    return load(tmp_path)


def scored(hypotheses, references, nll, tokens, vectors):
    return metrics.Answers(hypotheses, [references], nll=nll, tokens=tokens, vectors=vectors)


def system(random, size, vectors):
    """Answers with odd ones among them, as texts and as an EXAMPLES table."""
    hypotheses = [*ODD, *texts(random, size - len(ODD))]
    references = texts(np.random.default_rng(9), size)
    tokens = random.integers(2, 12, size)
    given = (hypotheses, references, random.gamma(tokens, 1.2), tokens)
    rows = [
        {"id": f"{n:06}", "task": "reddit", "system": "s", "data": "zero", "seed": 1, "context": [], "hypothesis": h}
        | {"reference": r, "nll": float(nll), "tokens": int(t)}
        for n, (h, r, nll, t) in enumerate(zip(*given, strict=True))
    ]
    made = examples.written(rows, scored(*given, vectors))
    names = set(made[0]) - {"context", "hypothesis", "task", "system", "data", "seed"}
    return given, table(hypotheses, **{name: [row[name] for row in made] for name in names})


def plain(given, places, vectors) -> dict[str, float]:
    """What the metrics say of some of the items, some perhaps twice."""
    hypotheses, references, nll, tokens = given
    chosen = [hypotheses[i] for i in places], [references[i] for i in places], nll[places], tokens[places]
    return {name: score.value for name, score in metrics.score(scored(*chosen, vectors)).items()}


def distinct(given, places) -> dict[str, float]:
    """Dis-2 and EAD-1 of some answers by sets, V from all references."""
    cut, known = [normal.split() for normal in normalised(given[0])], normalised(given[1])
    size = len({word for text in known for word in text.split()})
    words = [word for place in places for word in cut[place]]
    pairs = [pair for place in places for pair in zip(cut[place], cut[place][1:], strict=False)]
    random = size * (1 - ((size - 1) / size) ** len(words))
    return {"dis2": 100 * len(set(pairs)) / len(pairs), "ead1": 100 * len(set(words)) / random}


def values(corpus, row=0) -> dict[str, float]:
    return dict(zip(corpus.metrics, corpus.values()[row].mean(axis=0), strict=True))


def test_sums_of_counts_give_what_the_metrics_give(vectors):
    given, rows = system(np.random.default_rng(1), 80, vectors)
    found = values(written("reddit", of_rows({"a": [rows]})))
    wanted = plain(given, np.arange(80), vectors)
    assert {*TESTED, *SUBSAMPLED, "mean_length", "empty"} <= set(wanted)
    assert {name: found[name] for name in WRITTEN if name in wanted} == pytest.approx(
        {name: wanted[name] for name in WRITTEN if name in wanted}, rel=1e-7
    )


def test_the_probe_has_the_values_that_evaluate_gives():
    random = np.random.default_rng(2)
    facts = [(f"n{random.integers(5)}", bool(random.integers(2)), bool(random.integers(2))) for _ in range(60)]
    rows = [question(n, noun, stated and right, stated, 1.0 + n % 4) for n, (noun, stated, right) in enumerate(facts)]
    (corpus,) = corpora.probed("probe", of_rows({"a": [questions(rows)]}))
    items = [row | {"rank": row["cloze_rank"], "value": "red", "choices": ["red", "blue"]} for row in rows]
    wanted = {line["metric"]: line["value"] for line in probe.measures(items) if "floor" not in line["metric"]}
    assert values(corpus) == pytest.approx(wanted)


def test_a_permutation_scores_the_swapped_answers_anew(vectors):
    random = np.random.default_rng(3)
    (one, first), (two, second) = system(random, 12, vectors), system(random, 12, vectors)
    corpus = written("reddit", of_rows({"a": [first], "b": [second]}))
    found, p = permuted(corpus, [(0, 1)], 30, seed=4)
    swaps = np.concatenate(list(draws.blocks(corpus, 30, 4))) < 0.5
    both = [[one[0][i], two[0][i]] for i in range(12)]
    hits = dict.fromkeys(TESTED, 1)
    observed = dict(zip(corpus.metrics, found[0], strict=True))
    for swap in swaps:
        sides = []
        for side in (0, 1):
            take = [side ^ int(s) for s in swap]
            given = [both[i][k] for i, k in enumerate(take)], one[1]
            numbers = [np.array([(one, two)[k][part][i] for i, k in enumerate(take)]) for part in (2, 3)]
            sides.append(plain((*given, *numbers), np.arange(12), vectors))
        for name in TESTED:
            hits[name] += abs(sides[0][name] - sides[1][name]) >= abs(observed[name]) - 1e-6
    assert {name: p[0, corpus.metrics.index(name)] for name in TESTED} == {n: hits[n] / 31 for n in TESTED}


def test_a_bootstrap_sample_is_scored_as_the_metrics_score_it(vectors):
    given, rows = system(np.random.default_rng(5), 15, vectors)
    corpus = written("reddit", of_rows({"a": [rows]}))
    found = replicates(corpus, 8, seed=2)[:, 0]
    for random, row in zip(np.concatenate(list(draws.blocks(corpus, 8, 2))), found, strict=True):
        wanted = plain(given, (random * 15).astype(int), vectors)
        kept = [name for name in WRITTEN if name in wanted and name not in SUBSAMPLED]
        assert {name: row[WRITTEN.index(name)] for name in kept} == pytest.approx(
            {name: wanted[name] for name in kept}, rel=1e-6
        )


@pytest.mark.parametrize("name", ["dis2", "ead1"])
def test_a_subsample_of_dis_n_is_the_one_of_a_plain_loop(vectors, name):
    given, rows = system(np.random.default_rng(6), 20, vectors)
    corpus = written("reddit", of_rows({"a": [rows]}))
    place = WRITTEN.index(name)
    few = int(PART * 20)
    random = np.concatenate(list(draws.blocks(corpus, 9, 2)))
    each = np.array([distinct(given, np.argsort(r)[:few])[name] for r in random])
    wanted = values(corpus)[name] * (1 + (each / each.mean() - 1) * np.sqrt(few / (20 - few)))
    assert replicates(corpus, 9, seed=2)[:, 0, place] == pytest.approx(wanted)


def test_nothing_depends_on_how_much_memory_a_block_may_take(monkeypatch):
    random = np.random.default_rng(7)
    corpus = written("reddit", of_rows({name: [answers(random, 30), answers(random, 30)] for name in "abc"}))
    pairs = [(0, 1), (0, 2), (1, 2)]
    whole = permuted(corpus, pairs, 50, 1), replicates(corpus, 50, 1)
    monkeypatch.setattr(draws, "BYTES", 1)
    cut = permuted(corpus, pairs, 50, 1), replicates(corpus, 50, 1)
    assert np.array_equal(whole[0][1], cut[0][1], equal_nan=True)
    assert np.allclose(whole[1], cut[1], equal_nan=True)


def test_a_system_against_itself_has_p_1_and_sides_may_be_exchanged():
    random = np.random.default_rng(8)
    one, other = answers(random, 30), answers(random, 30)
    corpus = written("reddit", of_rows({"a": [one], "b": [one], "c": [other]}))
    found, p = permuted(corpus, [(0, 1), (0, 2), (2, 0)], 200, 1)
    there = [WRITTEN.index(name) for name in TESTED]
    assert (found[0, there] == 0).all() and (p[0, there] == 1).all()
    assert found[1, there] == pytest.approx(-found[2, there]) and p[1, there] == pytest.approx(p[2, there])


def test_a_system_without_nll_has_no_perplexity_and_all_the_rest():
    random = np.random.default_rng(9)
    silent = answers(random, 20, nll=[None] * 20, tokens=[None] * 20)
    corpus = written("reddit", of_rows({"a": [answers(random, 20)], "b": [silent]}))
    p = dict(zip(WRITTEN, permuted(corpus, [(0, 1)], 99, 1)[1][0], strict=True))
    assert np.isnan([p["ppl"], p["ppl_per_word"]]).all()
    assert np.isfinite([p[name] for name in TESTED if "ppl" not in name]).all()


def test_a_swap_that_leaves_a_side_without_a_value_counts_against_a_difference():
    """One states a value of every noun, right of two; the other of one noun, wrongly: half of the swaps leave it none."""
    rows = {"a": [question(n, f"n{n}", n in (4, 5)) for n in range(6)]}
    rows |= {"b": [question(n, f"n{n}", False, stated=n == 0) for n in range(6)]}
    (corpus,) = corpora.probed("probe", of_rows({name: [questions(each)] for name, each in rows.items()}))
    found, p = permuted(corpus, [(0, 1)], 4000, 1)
    place = corpus.metrics.index("color_accuracy_heldout")
    sides = [[[(n in (4, 5), True) for n in range(6)], [(False, n == 0) for n in range(6)]]] * 64
    differences = []
    for swap, (one, other) in zip(itertools.product((0, 1), repeat=6), sides, strict=True):
        ours, others = zip(*[(other[n], one[n]) if s else (one[n], other[n]) for n, s in enumerate(swap)], strict=True)
        (r1, s1), (r2, s2) = (tuple(map(sum, zip(*side, strict=True))) for side in (ours, others))
        differences.append(abs(r1 / s1 - r2 / s2) if s1 and s2 else np.inf)
    assert p[0, place] == pytest.approx(np.mean(np.array(differences) >= abs(found[0, place]) - 1e-9), abs=0.03)


def test_more_questions_about_the_same_nouns_do_not_make_an_interval_narrower():
    facts = [(f"n{number}", number % 3 > 0) for number in range(20)]
    wide = []
    for times in (1, 5):
        rows = [question(n, *fact) for n, fact in enumerate(facts * times)]
        (corpus,) = corpora.probed("probe", of_rows({"a": [questions(rows)]}))
        low, high = between(replicates(corpus, 400, 1)[:, 0, corpus.metrics.index("color_accuracy_all_heldout")], 0.95)
        wide.append(high - low)
    assert wide[0] == pytest.approx(wide[1]) and wide[0] > 0.3


def test_seeds_ids_and_references_that_differ_are_named():
    random = np.random.default_rng(10)
    one, more = answers(random, 5), answers(random, 6)
    with pytest.raises(ValueError, match=r"reddit: a \(zero\) has seeds 1, 2 but b \(zero\) has seed 1"):
        written("reddit", of_rows({"a": [one, one], "b": [one]}))
    with pytest.raises(
        ValueError, match=r"a \(zero\) and b \(zero\) \(seed 1\) answered other examples \(5 and 6 ids\)"
    ):
        written("reddit", of_rows({"a": [one], "b": [more]}))
    with pytest.raises(ValueError, match=r"a \(zero\) and b \(zero\) .* same ids but other references"):
        written("reddit", of_rows({"a": [one], "b": [answers(random, 5, reference=["two"] * 5)]}))
    with pytest.raises(ValueError, match="an id stands twice"):
        written("reddit", of_rows({"a": [answers(random, 2, id=["x", "x"])]}))


def test_holm_is_the_one_calculated_by_hand():
    # sorted 0.01 0.03 0.04: 3 * 0.01, 2 * 0.03, then 0.04 not below the one before
    assert holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_the_t_interval_is_the_one_calculated_by_hand():
    # mean 2, standard deviation 1, t(0.975; 2) = 4.302653: 2 -+ 4.302653 / sqrt(3)
    assert t_interval([1.0, 2.0, 3.0], 0.95) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert t_interval([1.0], 0.95) == (None, None)


def test_of_several_references_ead_is_left_out_since_the_table_has_the_first_alone():
    random = np.random.default_rng(3)
    for count, known in ((1, True), (2, False)):
        with_what = [f"tok:space|case:kept|refs:{count}"] * 40
        rows = {"vikdf": [answers(random, 40, scored_with=with_what)]}
        corpus = written("reddit", of_rows(rows))
        found = dict(zip(corpus.metrics, corpus.values()[0, 0], strict=True))
        assert {np.isfinite(found[name]) for name in ("ead1", "ead2")} == {known} and np.isfinite(found["dis1"])


def test_a_bootstrap_interval_of_a_mean_is_as_wide_as_theory_says():
    random, size = np.random.default_rng(14), 400
    own = random.normal(0.5, 0.1, size)
    corpus = written("reddit", of_rows({"a": [table(["w"] * size, rouge_l=own)]}))
    low, high = between(replicates(corpus, 4000, 1)[:, 0, WRITTEN.index("rouge_l")], 0.95)
    assert high - low == pytest.approx(100 * 2 * 1.96 * own.std() / np.sqrt(size), rel=0.05)


def test_a_subsampling_interval_of_dis_n_is_as_wide_as_its_spread_over_new_answers():
    random, size, place = np.random.default_rng(15), 150, WRITTEN.index("dis2")
    corpora = [written("reddit", of_rows({"a": [table(texts(random, size))]})) for _ in range(300)]
    spread = np.std([corpus.values()[0, 0, place] for corpus in corpora])
    ends = [between(replicates(corpus, 300, 1)[:, 0, place], 0.95) for corpus in corpora[:20]]
    assert np.mean([high - low for low, high in ends]) == pytest.approx(2 * 1.96 * spread, rel=0.2)
