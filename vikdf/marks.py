"""What is marked in Table 1, and which differences are more than chance.

In: rows of table1.csv and of significance.csv. Out: {(task, system, data, metric): marks}.

    marks(rows, verdicts, controls, alpha)["image_chat", "vikdf", "zero", "bleu1"]  ->  {"best", "significant"}

best, second  of the column in its block: a task's systems, or its controls; values that are printed alike share the mark
significant   `significant` of significance.csv: better than the best row of any other system of the block, by the paired
              test, corrected over the metrics, and, with several seeds, by the interval over them too
paper_only    better, and the paper's one-sample t-test over seeds alone would call it significant; ours does not
"""

from pathlib import Path

from vikdf.means import METRICS, PER_WORD, cell, lower_is_better

VERDICTS = ["task", "block", "metric", "system", "data", "value", "other", "better", "significant", "p_paper"]
RANGES = ["task", "system", "data", "metric", "value", "low", "high", "method", "t_low", "t_high"]
ROUNDED = 2e-4  # both files hold four decimals


def marks(rows: list[dict], verdicts: list[dict], controls, alpha: float) -> dict[tuple, set[str]]:
    """The marks of every value of the eight columns; one without any has the empty set."""
    found = {(*_row(row), name): set() for row in rows for name in METRICS if row[name] is not None}
    for task in dict.fromkeys(row["task"] for row in rows):
        for apart in (False, True):
            block = [row for row in rows if row["task"] == task and (row["system"] in controls) == apart]
            for name in METRICS:
                for row, rank in _ranked(block, name):
                    found[*_row(row), name].add(rank)
    for verdict in verdicts:
        key = (*_row(verdict), verdict["metric"])
        if key in found and verdict["better"] == "yes":
            if verdict["significant"] == "yes":
                found[key].add("significant")
            elif verdict["p_paper"] is not None and verdict["p_paper"] < alpha:
                found[key].add("paper_only")
    return found


def _row(row: dict) -> tuple[str, str, str]:
    return row["task"], row["system"], row["data"]


def _ranked(block: list[dict], name: str) -> list[tuple[dict, str]]:
    """The best and the second best of a column; a block of one row has nothing to compare."""
    there = [row for row in block if row[name] is not None]
    if len(there) < 2:
        return []
    values = sorted({f"{row[name]:.2f}" for row in there}, key=float, reverse=not lower_is_better(name))
    ranks = dict(zip(values, ("best", "second"), strict=False))  # as many as there are
    return [(row, ranks[text]) for row in there if (text := f"{row[name]:.2f}") in ranks]


def told_apart(line: dict, alpha: float) -> bool:
    """Do the test and the intervals that it needs beside it all say that there is a difference?"""
    if line["p_holm"] is None or line["p_holm"] >= alpha:
        return False
    beside = [("t_low", "t_high")] + [("low", "high")] * (line["metric"] in ("dis1", "dis2"))
    ends = [(line[low], line[high]) for low, high in beside if line[low] is not None]
    return all(low > 0 or high < 0 for low, high in ends)


def same_answers(means: list[dict], rows: list[dict], path: Path, every: bool) -> None:
    """A table of statistics must be of these scores: its values are theirs, and, if asked, none of theirs is missing."""
    told = {(*_row(row), row["metric"]): row["value"] for row in rows if row["value"] is not None}
    for mean in means:
        for name in [*METRICS, PER_WORD]:
            found, value = told.get((*_row(mean), name)), mean[name]
            if found is None and (value is None or not every):
                continue
            if found is None or value is None or abs(found - value) > ROUNDED + 1e-6 * abs(value):
                where = f"{name} of {mean['system']} on {mean['task']}, data {mean['data']}"
                said = (
                    f"{where} is {cell(value) or 'not there'} in the scores and {cell(found) or 'not there'} in {path}"
                )
                raise ValueError(f"{said}: it is of other answers; delete it and run `snakemake --cores all {path}`")
