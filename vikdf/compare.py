"""`vikdf compare`: is one system better than another one, or is it chance? Any two, one or several seeds each.

In: the EXAMPLES tables of both, as `evaluate` and `vikdf score --examples` write them. Out: for each task that both have a
line a metric: both values, the difference with its intervals, p-values. Used by vikdf.cli.
"""

import argparse
import json
from pathlib import Path

from vikdf.flags import printable

MORE = """
Both must have answered the same examples, with the same seeds. The difference is a - b. The interval is a bootstrap over
examples (Dis-n: subsampling; the probe: over nouns), the t-interval is over seeds; p is a paired permutation test, p Holm the
same corrected over the metrics of the task (the probe: over the measures of one kind of noun), p paper the one-sample t-test of
a's seeds against b's mean.

examples
  vikdf compare --a results/evaluate/examples/vikdf-zero-s1.parquet --b results/evaluate/examples/llm_lora-zero-s1.parquet
  vikdf compare --a results/evaluate/examples/vikdf-zero-s*.parquet --b results/evaluate/examples/llm_lora-zero-s*.parquet
  vikdf score --hypotheses A.txt --references R.txt --examples A.parquet; vikdf score --hypotheses B.txt --references R.txt \\
      --examples B.parquet; vikdf compare --a A.parquet --b B.parquet --json
"""
NUMBERS = ["a_value", "b_value", "difference", "low", "high", "t_low", "t_high", "p", "p_holm", "p_paper"]
TITLES = ["a", "b", "a - b", "from", "to", "t from", "t to", "p", "p Holm", "p paper"]


def compare(given: argparse.Namespace) -> None:
    from vikdf.statistics import notes

    names = ("permutations", "resamples", "confidence", "alpha", "seed")
    settings = {name: getattr(given, name) for name in names}
    _check(settings)
    lines = compared(given.a, given.b, given.task, settings)
    if given.json:
        print(json.dumps(lines, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print("\n\n".join([*_tables(lines), "\n".join(f"- {said}" for said in notes.below_two(lines, settings))]))


def compared(a: list[Path], b: list[Path], task: str, settings: dict) -> list[dict]:
    """A line a task and metric that both sides have."""
    from vikdf.significance import PROBE, Study
    from vikdf.statistics import corpus as corpora

    sides = {side: _side(side, corpora.load(paths)) for side, paths in (("a", a), ("b", b))}
    tasks = [name for name in sides["a"] if name in sides["b"] and task in ("", name)]
    if not tasks:
        said = "; ".join(f"{side} has {', '.join(tasks_of)}" for side, tasks_of in sides.items())
        raise ValueError(f"no task{f' {task}' if task else ''} is in the tables of both: {said}")
    lines = []
    for name in tasks:
        rows = {(f"{side}: {sides[side][name][0]}", sides[side][name][1]): sides[side][name][2] for side in sides}
        made = corpora.probed(name, rows) if name == PROBE else [corpora.written(name, rows)]
        lines += [line for corpus in made for line in _lines(Study(corpus, settings))]
    if not lines:
        raise ValueError(f"nothing in {', '.join(map(str, a + b))} can be compared: {', '.join(tasks)} holds no score")
    return lines


def _side(side: str, tables: dict) -> dict[str, tuple]:
    """Task -> system, data, {seed: table}; two systems on one side are an error."""
    found = {}
    for (task, system, data), seeds in tables.items():
        if task in found:
            both = f"{found[task][0]} ({found[task][1]}) and {system} ({data})"
            raise ValueError(f"--{side} holds {both} for task {task}: give the tables of one system, a file a seed")
        found[task] = (system, data, seeds)
    return found


def _lines(study) -> list[dict]:
    from vikdf.marks import told_apart
    from vikdf.significance import versus
    from vikdf.statistics.permutation import holm

    corpus, alpha = study.corpus, study.statistics["alpha"]
    (a, a_data), (b, b_data) = corpus.rows
    head = {"task": corpus.task, "a": a[3:], "a_data": a_data, "b": b[3:], "b_data": b_data}
    tail = {"seeds": len(corpus.seeds), "n": corpus.size, "unit": corpus.unit}
    lines = []
    for metric in study.tested():
        value = float(study.means[0, corpus.metrics.index(metric)])
        if study.chance(0, 1, metric) is not None:
            cells = versus(study, 0, 1, metric)
            line = head | {"metric": metric, "a_value": value, "b_value": cells["other_value"]} | cells | tail
            lines.append({key: cell for key, cell in line.items() if not key.startswith("other")})
    for line, corrected in zip(lines, holm([line["p"] for line in lines]), strict=True):
        line["p_holm"] = corrected
        line["better"] = "neither" if line["difference"] == 0 else "a" if line["better"] == "yes" else "b"
        line["significant"] = "yes" if told_apart(line, alpha) and line["better"] != "neither" else "no"
    return lines


def _tables(lines: list[dict]) -> list[str]:
    """A table a task, its columns as wide as they need to be."""
    made = []
    for task in dict.fromkeys(line["task"] for line in lines):
        rows = [line for line in lines if line["task"] == task]
        one = rows[0]
        shown = [name for name in NUMBERS if any(row[name] is not None for row in rows)]
        head = ["metric", *(TITLES[NUMBERS.index(name)] for name in shown), "better", "significant"]
        texts = [
            [row["metric"], *(_number(row[name]) for name in shown), row["better"], row["significant"]] for row in rows
        ]
        wide = [max(len(text[i]) for text in [head, *texts]) for i in range(len(head))]
        counts = ", ".join(dict.fromkeys(f"{row['n']:,} {row['unit']}" for row in rows))
        title = f"{task}: a = {one['a']} ({one['a_data']}), b = {one['b']} ({one['b_data']}); {counts}, seeds: {one['seeds']}"
        body = [
            "  ".join(
                [text[0].ljust(wide[0]), *(cell.rjust(width) for cell, width in zip(text[1:], wide[1:], strict=True))]
            )
            for text in [head, *texts]
        ]
        made.append(printable("\n".join([title, *body])))
    return made


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _check(settings: dict) -> None:
    for name, least in (("permutations", 99), ("resamples", 100), ("seed", 0)):
        if settings[name] < least:
            raise ValueError(f"--{name} is {settings[name]}: expected {least} or more")
    for name in ("confidence", "alpha"):
        if not 0 < settings[name] < 1:
            raise ValueError(f"--{name} is {settings[name]:g}: expected a number between 0 and 1, such as 0.95 or 0.05")


def _flags(one: argparse.ArgumentParser) -> None:
    for side in ("a", "b"):
        said = f"EXAMPLES tables of system {side}, one a seed"
        one.add_argument(f"--{side}", type=Path, nargs="+", required=True, metavar="FILE", help=said)
    one.add_argument("--task", default="", metavar="NAME", help="this task alone (default: every task that both have)")
    for name, kind, value, meaning in (
        ("permutations", int, 10_000, "swaps of a test; the smallest p is one in so many"),
        ("resamples", int, 2_000, "draws of the examples for an interval"),
        ("confidence", float, 0.95, "of the intervals"),
        (
            "alpha",
            float,
            0.05,
            "significant: a corrected p below this, and intervals (Dis-n; over several seeds) that leave out 0",
        ),
        ("seed", int, 1, "of the draws"),
    ):
        one.add_argument(f"--{name}", type=kind, default=value, metavar="N", help=f"{meaning} (default: %(default)s)")
    one.add_argument("--json", action="store_true", help="a list of objects in place of tables")


COMMANDS = {"compare": ("is one system better than another one, or is it chance?", MORE, _flags, compare)}
