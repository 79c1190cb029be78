"""Scores by how much of Image-Chat's training set a system saw: zero, an eighth, a quarter, all.

In: rows of table1.csv and of intervals.csv. Out: fractions.svg. Run: by vikdf/figures/__main__.py.
Bars are the intervals over test items, given the seeds; a system without training has its one point at zero.
"""

from pathlib import Path

from vikdf.figures import style
from vikdf.means import TASKS, TITLES, lower_is_better

TASK = "image_chat"
MANY = len(style.COLORS)  # more systems than this cannot be told apart in one panel
DATA = {"zero": "zero", "eighth": "1/8", "quarter": "1/4", "full": "full"}
TITLE = f"{TASKS[TASK]}: scores by data"


def draw(rows: list[dict], path: Path, intervals: list[dict], systems: list[str]) -> None:
    """A panel a metric, a line a system; controls stand in table 1."""
    rows = [row for row in rows if row["task"] == TASK and row["system"] in systems]
    metrics = [name for name in TITLES if any(row[name] is not None for row in rows)]
    if not metrics:
        return style.nothing(path, "fractions", TITLE, f"no system was scored on {TASKS[TASK]}")
    bounds = {
        (row["system"], row["data"], row["metric"]): (row["low"], row["high"])
        for row in intervals
        if row["task"] == TASK
    }
    looks = style.looks(systems)
    there = [name for name in systems if any(row["system"] == name for row in rows)]
    if len(there) > MANY:  # those with one share of the data stand in table 1: they have no line here
        there = [name for name in there if len({row["data"] for row in rows if row["system"] == name}) > 1] or there
    seeds = max(row["seeds"] for row in rows)
    given = "given these models (one seed)" if seeds == 1 else f"given these {seeds:.0f} seeds"
    height = 0.7 + 1.45 * -(-len(metrics) // 2)
    with style.figure(path, "fractions", title=TITLE, about=_told(rows, metrics[0]), height=height) as made:
        for panel, metric in zip(style.panels(made, len(metrics)), metrics, strict=False):
            style.bare(panel, TITLES[metric] + (" (lower is better)" if lower_is_better(metric) else ""))
            for place, name in enumerate(there):
                here = {row["data"]: row[metric] for row in rows if row["system"] == name and row[metric] is not None}
                shift = min(0.06, 0.6 / len(there)) * (
                    place - (len(there) - 1) / 2
                )  # so that bars at one place do not hide each other
                _line(panel, here, {data: bounds.get((name, data, metric)) for data in here}, shift, name, looks[name])
            panel.set_xticks(range(len(DATA)), DATA.values())
            panel.set_xlim(-0.4, len(DATA) - 0.6)
        handles, names = made.axes[0].get_legend_handles_labels()
        made.legend(handles, names, loc="outside upper left", ncols=3)
        made.supxlabel(
            f"across: share of the training set; up: score (per cent, but PPL)\nbars: interval over test items, {given}",
            fontsize=8,
        )


def _line(panel, values: dict, bounds: dict, shift: float, name: str, look: dict) -> None:
    there = [data for data in DATA if data in values]
    at = [list(DATA).index(data) + shift for data in there]
    for x, data in zip(at, there, strict=True):
        low, high = bounds.get(data) or (None, None)
        if low is not None and high is not None:
            panel.plot([x, x], [low, high], color=look["color"], linewidth=1, solid_capstyle="butt")
    panel.plot(at, [values[data] for data in there], label=name, **look)


def _told(rows: list[dict], metric: str) -> str:
    parts = [
        f"{row['system']} {DATA.get(row['data'], row['data'])} {row[metric]:.2f}"
        for row in rows
        if row[metric] is not None
    ]
    return f"{TITLES[metric]}: {', '.join(parts)}."
