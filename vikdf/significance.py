"""Are the differences of Table 1 more than chance? Tests and intervals from the per-example counts of every row.

In: results/evaluate/examples/*.parquet (EXAMPLES) of every system and seed.
Out: significance.csv (each row of table 1 against the best row of any other system of its task and block, each metric),
intervals.csv (each row's own intervals, the probe's too), pairs.csv (any two rows of a task, the probe's too).
Run: python -m vikdf.significance --examples results/evaluate/examples/*.parquet --output results ... (the rule `significance`)

p: paired permutation test, two-sided; p_holm: corrected over the metrics of the row. low, high: bootstrap over examples, for
Dis-n subsampling, both given the trained models. t_low, t_high: over seeds, paired; empty with one. p_paper: the paper's
one-sample t-test of the row's seeds against the other's mean, which takes that mean for exact; empty with one seed. The best
other row is picked on the same answers, which no p-value here allows for. significant: better, p_holm < alpha, and with
several seeds the t-interval leaves out 0; for Dis-n the other interval too, since two systems may have equally many words, yet
other ones, and a test that swaps answers then finds such a difference in up to 9 of 100 cases instead of 5. In pairs.csv the
same, in either direction.
"""

import itertools
import math
from pathlib import Path

from vikdf import flags
from vikdf.marks import told_apart
from vikdf.means import DATA, TASKS, lower_is_better, write_csv
from vikdf.statistics import corpus as corpora
from vikdf.statistics.corpus import SUBSAMPLED, TESTED, Corpus
from vikdf.statistics.intervals import between, replicates
from vikdf.statistics.permutation import holm, permuted
from vikdf.statistics.seeds import one_sample, t_interval

PROBE = "probe"
SIGNIFICANCE = [
    "task",
    "block",
    "metric",
    "system",
    "data",
    "value",
    "other",
    "other_data",
    "other_value",
    "difference",
]
SIGNIFICANCE += ["low", "high", "t_low", "t_high", "p", "p_holm", "p_paper", "seeds", "n", "better", "significant"]
INTERVALS = ["task", "system", "data", "metric", "value", "low", "high", "method", "t_low", "t_high", "seeds", "n"]
PAIRS = ["task", "metric", "a", "a_data", "b", "b_data", "difference", "low", "high", "t_low", "t_high", "p", "p_holm"]
PAIRS += ["significant"]


class Study:
    """A corpus with all its draws: every figure below is read from them."""

    def __init__(self, corpus: Corpus, statistics: dict):
        self.corpus, self.statistics = corpus, statistics
        self.values = corpus.values()  # [R, S, M]
        self.means = self.values.mean(axis=1)  # [R, M]
        self.draws = replicates(corpus, statistics["resamples"], statistics["seed"])  # [B, R, M]
        self.pairs = list(itertools.combinations(range(len(corpus.rows)), 2))
        _, self.p = permuted(corpus, self.pairs, statistics["permutations"], statistics["seed"])
        self.place = {pair: place for place, pair in enumerate(self.pairs)}

    def tested(self) -> list[str]:
        return [name for name in self.corpus.metrics if self.corpus.unit != "examples" or name in TESTED]

    def chance(self, a: int, b: int, metric: str) -> float | None:
        """The p-value of two rows."""
        return _known(self.p[self.place[min(a, b), max(a, b)], self.corpus.metrics.index(metric)])


def significance(*, examples: list[Path], output: Path, systems: dict, controls: dict, statistics: dict) -> None:
    """Tests every row of table 1 against the best other one, and gives every number its interval.

    examples: EXAMPLES tables, one a system, fraction and seed
    output: folder of significance.csv, intervals.csv and pairs.csv
    systems: name -> one line about it, in the order of the rows; a system that is not named here comes after them
    controls: the same for the rows that stand apart below each task, and are compared among themselves
    statistics: permutations, resamples, confidence, alpha and seed of the tests and intervals
    """
    tables = corpora.load(examples)
    order = [*systems, *sorted({system for _, system, _ in tables} - set(systems) - set(controls)), *controls]
    studies = [Study(corpus, statistics) for corpus in gathered(tables, order)]
    dialogues = [study for study in studies if study.corpus.task in TASKS]
    rows = [row for study in dialogues for row in against_best(study, controls)]
    write_csv(output / "significance.csv", SIGNIFICANCE, rows)
    write_csv(output / "intervals.csv", INTERVALS, [row for study in studies for row in own(study)])
    write_csv(output / "pairs.csv", PAIRS, [row for study in studies for row in any_two(study)])


def gathered(tables: dict, order: list[str]) -> list[Corpus]:
    """A corpus for each task, rows in the order of table 1; of the probe one for each kind of noun."""
    found = []
    there = sorted({task for task, _, _ in tables})
    for task in [*(name for name in TASKS if name in there), *(name for name in there if name not in TASKS)]:
        rows = [row for row in tables if row[0] == task]
        rows.sort(key=lambda row: (order.index(row[1]), DATA.index(row[2])))
        chosen = {row[1:]: tables[row] for row in rows}
        found += corpora.probed(task, chosen) if task == PROBE else [corpora.written(task, chosen)]
    return found


def own(study: Study) -> list[dict]:
    """intervals.csv: each row and metric that has a value."""
    corpus, confidence, made = study.corpus, study.statistics["confidence"], []
    for row, (system, data) in enumerate(corpus.rows):
        for place, metric in enumerate(corpus.metrics):
            if (value := _known(study.means[row, place])) is not None:
                low, high = between(study.draws[:, row, place], confidence) if corpus.size > 1 else (None, None)
                t_low, t_high = t_interval(study.values[row, :, place].tolist(), confidence)
                method = "subsampling" if metric in SUBSAMPLED else "nouns" if corpus.unit == "nouns" else "bootstrap"
                line = {"task": corpus.task, "system": system, "data": data, "metric": metric, "value": value}
                line |= {"low": low, "high": high, "method": method, "t_low": t_low, "t_high": t_high}
                made.append(line | {"seeds": len(corpus.seeds), "n": corpus.size})
    return made


def any_two(study: Study) -> list[dict]:
    """pairs.csv: first row minus second, whichever is better; p_holm over the metrics of the two."""
    corpus, made = study.corpus, []
    for a, b in study.pairs:
        names = [name for name in study.tested() if study.chance(a, b, name) is not None]
        lines = [{"metric": name} | versus(study, a, b, name) for name in names]
        for line, corrected in zip(lines, holm([line["p"] for line in lines]), strict=True):
            line |= {"task": corpus.task, "a": corpus.rows[a][0], "a_data": corpus.rows[a][1], "p_holm": corrected}
            line |= {"b": line["other"], "b_data": line["other_data"]}
            made.append(line | {"significant": "yes" if told_apart(line, study.statistics["alpha"]) else "no"})
    return made


def against_best(study: Study, controls: dict) -> list[dict]:
    """significance.csv of one task: every row and metric, against the best row of any other system of its block."""
    made = []
    for inside in (False, True):
        block = [row for row, (system, _) in enumerate(study.corpus.rows) if (system in controls) == inside]
        for row in block:
            others = [other for other in block if study.corpus.rows[other][0] != study.corpus.rows[row][0]]
            lines = [_against(study, row, others, metric) for metric in TESTED]
            for line, corrected in zip(lines, holm([line["p"] for line in lines]), strict=True):
                line |= {"block": "controls" if inside else "systems", "p_holm": corrected}
                sure = line["better"] == "yes" and told_apart(line, study.statistics["alpha"])
                made.append(line | {"significant": "yes" if sure else "no"})
    return made


def _against(study: Study, row: int, others: list[int], metric: str) -> dict:
    corpus, place = study.corpus, study.corpus.metrics.index(metric)
    line = dict.fromkeys(SIGNIFICANCE) | {"task": corpus.task, "metric": metric, "better": "no"}
    line |= {"system": corpus.rows[row][0], "data": corpus.rows[row][1], "value": _known(study.means[row, place])}
    line |= {"seeds": len(corpus.seeds), "n": corpus.size}
    others = [other for other in others if _known(study.means[other, place]) is not None]
    if line["value"] is None or not others:
        return line
    sign = -1 if lower_is_better(metric) else 1
    other = max(others, key=lambda each: sign * study.means[each, place])
    return line | versus(study, row, other, metric)


def versus(study: Study, row: int, other: int, metric: str) -> dict:
    """The cells of one row against another one: difference, intervals, p-values."""
    corpus, place, confidence = study.corpus, study.corpus.metrics.index(metric), study.statistics["confidence"]
    each = study.values[row, :, place] - study.values[other, :, place]  # [S]
    difference = float(each.mean())
    draws = study.draws[:, row, place] - study.draws[:, other, place]
    low, high = between(draws, confidence) if corpus.size > 1 else (None, None)
    t_low, t_high = t_interval(each.tolist(), confidence)
    made = {"other": corpus.rows[other][0], "other_data": corpus.rows[other][1], "difference": difference}
    made |= {
        "other_value": float(study.means[other, place]),
        "low": low,
        "high": high,
        "t_low": t_low,
        "t_high": t_high,
    }
    made |= {"p": study.chance(row, other, metric)}
    made |= {"p_paper": one_sample(study.values[row, :, place].tolist(), made["other_value"])}
    better = difference < 0 if lower_is_better(metric) else difference > 0
    return made | {"better": "yes" if better else "no"}


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


if __name__ == "__main__":
    flags.main(significance)
