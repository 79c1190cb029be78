"""What each run of the work cost: seconds, with its memory.

In: rows of cost.csv (vikdf/costs.py). Out: cost.svg. Run: by vikdf/figures/__main__.py.
"""

from pathlib import Path

from vikdf.figures import style

TITLE = "Cost of each run"
SHOWN = 0.02  # of the longest run's time: shorter ones are one bar a stage, with their number
BARS = 40  # at most, about: of more runs, more are short


def draw(rows: list[dict], path: Path) -> None:
    """A bar a run, a colour a stage, in the order of the work."""
    if not rows:
        return style.nothing(path, "cost", TITLE, "no journal of a run was found")
    bars = folded(rows)
    colors = style.looks(list(dict.fromkeys(bar["stage"] for bar in bars)))
    longest = max(*(bar["seconds"] / 60 for bar in bars), 1e-3)
    total = sum(row["seconds"] for row in rows)
    about = f"{len(rows)} runs took {said(total)} summed up; the longest: {_longest(rows)}."
    with style.figure(path, "cost", title=TITLE, about=about, height=0.7 + 0.16 * len(bars)) as made:
        panel = made.subplots()
        style.bare(panel, f"{len(rows)} runs, {said(total)} summed up")
        panel.grid(visible=False, axis="y")
        for place, bar in enumerate(bars):
            panel.barh(place, bar["seconds"] / 60, height=0.7, color=colors[bar["stage"]]["color"], alpha=0.75)
            memory = "" if bar["peak_memory_mb"] is None else f", {bar['peak_memory_mb']:,.0f} MB"
            panel.text(
                bar["seconds"] / 60 + longest / 100, place, said(bar["seconds"]) + memory, va="center", fontsize=7
            )
        panel.set_yticks(range(len(bars)), [bar["run"] for bar in bars], fontsize=7)
        panel.set_ylim(len(bars) - 0.4, -0.6)
        panel.set_xlim(0, 1.45 * longest)
        panel.tick_params(axis="y", length=0)
        panel.set_xlabel("minutes of wall time", fontsize=8)


def folded(rows: list[dict]) -> list[dict]:
    """The runs worth a bar; the short ones of a stage together in one."""
    longest = sorted((row["seconds"] for row in rows), reverse=True)
    least = max(SHOWN * longest[0], longest[BARS - 1] if len(longest) > BARS else 0)
    bars = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        here = [row for row in rows if row["stage"] == stage]
        short = [row for row in here if row["seconds"] < least]
        bars += [row for row in here if row not in short] if len(short) > 1 else here
        if len(short) > 1:
            memory = max((row["peak_memory_mb"] for row in short if row["peak_memory_mb"] is not None), default=None)
            seconds = sum(row["seconds"] for row in short)
            bars.append(
                {
                    "stage": stage,
                    "run": f"{stage}: {len(short)} short runs",
                    "seconds": seconds,
                    "peak_memory_mb": memory,
                }
            )
    return bars


def said(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _longest(rows: list[dict]) -> str:
    row = max(rows, key=lambda row: row["seconds"])
    return f"{row['run']}, {said(row['seconds'])}"
