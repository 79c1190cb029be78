"""Draws every figure of a run from its tables.

In: curves.jsonl of pretrain and finetune, the filter's report, table1.csv, probe.csv, intervals.csv, significance.csv,
cost.csv. Out: one SVG each, a figure without rows too: it says why.
Run: python -m vikdf.figures --table results/table1.csv ... --output results/figures (the rule `figures`)
"""

from pathlib import Path

import polars as pl

from vikdf import flags, schemas
from vikdf.figures import cost as costs
from vikdf.figures import curves, fractions, significance
from vikdf.figures import funnel as funnels
from vikdf.figures import probe as probes
from vikdf.filter.funnel import REPORT
from vikdf.means import read_csv


def figures(
    *,
    pretrain: list[Path],
    finetune: list[Path],
    funnel: Path,
    table: Path,
    probe: Path,
    intervals: Path,
    significances: Path,
    cost: Path,
    output: Path,
    systems: dict,
    controls: dict,
    alpha: float,
) -> None:
    """Draws the learning curves, the funnel, the data fractions, the probe, the significances and the cost.

    pretrain: curves.jsonl of every variant of pretrain
    finetune: curves.jsonl of every tuned system
    funnel: report.parquet of the filter
    table: table1.csv
    probe: probe.csv
    intervals: intervals.csv
    significances: significance.csv
    cost: cost.csv
    output: folder of the SVGs
    systems: name -> one line about it: the names' order is that of rows and colours
    controls: the same for the rows that stand apart
    alpha: a p-value below it counts as more than chance
    """
    order, bounds = [*systems, *controls], read_csv(intervals)
    curves.draw_pretrain(curves.read(pretrain), output / "curves_pretrain.svg", order)
    curves.draw_finetune(curves.read(finetune), output / "curves_finetune.svg", order)
    funnels.draw(pl.from_arrow(schemas.read(funnel, REPORT)), output / "funnel.svg")
    fractions.draw(read_csv(table), output / "fractions.svg", bounds, list(systems))
    probes.draw(read_csv(probe), output / "probe.svg", bounds, order)
    significance.draw(read_csv(significances), output / "significance.svg", alpha)
    costs.draw(read_csv(cost), output / "cost.svg")


if __name__ == "__main__":
    flags.main(figures)
