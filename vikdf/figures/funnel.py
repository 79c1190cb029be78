"""The filter's funnel: how many pictures and captions are left after each rule, all sources in one bar.

In: report.parquet of `filter` (REPORT). Out: funnel.svg. Run: by vikdf/figures/__main__.py.
The stage's own report.svg has one funnel a source; here a bar's colours are the sources.
"""

from pathlib import Path

import polars as pl

from vikdf.figures import style
from vikdf.filter.funnel import UNITS, steps

TITLE = "What the filter left"


def draw(report: pl.DataFrame, path: Path) -> None:
    """Bars one below the other, as the rules are asked; beside each how many are left, and how many the rule took."""
    shown = {unit: steps(report, unit) for unit in UNITS if unit in report["unit"]}
    if not shown:
        return style.nothing(path, "funnel", TITLE, "the filter read no picture")
    sources = style.looks(sorted({source for _, left in shown.values() for source in left}))
    sizes = [len(names) + 1.5 for names, _ in shown.values()]
    height = 0.5 + 0.19 * sum(sizes)
    with style.figure(path, "funnel", title=TITLE, about=_told(shown), height=height) as made:
        grid = made.subplots(len(shown), 1, squeeze=False, height_ratios=sizes)[:, 0]
        for panel, (unit, (names, left)) in zip(grid, shown.items(), strict=True):
            panel.set_title(f"{unit}s left after each rule", loc="left")
            _bars(panel, names, {source: left[source] for source in sources if source in left}, sources)
        handles = {name: handle for handle, name in zip(*grid[0].get_legend_handles_labels(), strict=True)}
        made.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=min(len(handles), 5))


def _told(shown: dict) -> str:
    parts = []
    for unit, (_, left) in shown.items():
        first, last = (sum(counts[place] for counts in left.values()) for place in (0, -1))
        parts.append(f"{last:,} of {first:,} {unit}s stay")
    return "; ".join(parts) + "."


def _bars(panel, names: list[str], left: dict[str, list[int]], looks: dict) -> None:
    totals = [sum(counts[place] for counts in left.values()) for place in range(len(names))]
    whole, begin = max(totals[0], 1), [0.0] * len(names)
    for source, counts in left.items():
        shares = [count / whole for count in counts]
        panel.barh(
            range(len(names)), shares, left=begin, height=0.72, color=looks[source]["color"], label=source, alpha=0.75
        )
        begin = [low + share for low, share in zip(begin, shares, strict=True)]
    for place, total in enumerate(totals):
        panel.text(1.16, place, f"{total:,}", va="center", ha="right", fontsize=8)
        if place and totals[place - 1] > total:
            panel.text(1.34, place, f"\u2212{totals[place - 1] - total:,}", va="center", ha="right", fontsize=8)
    panel.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_xlim(0, 1.35)
    panel.set_xticks([])
    panel.tick_params(length=0)
    panel.set_facecolor("none")
    panel.spines[["left", "bottom"]].set_visible(False)
