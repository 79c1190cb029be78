"""Every system against the best other one, every metric: which differences are more than chance.

In: rows of significance.csv. Out: significance.svg. Run: by vikdf/figures/__main__.py.
A cell holds the difference to the best other row of its block; blue: better, orange: worse; a star and a frame: p after
Holm's correction is below alpha and the intervals say so too: what table 1 calls significant, for worse as for better.
"""

from pathlib import Path

from vikdf.figures import style
from vikdf.marks import told_apart
from vikdf.means import PER_WORD, TASKS, TITLES

TITLE = "Each row against the best other system"
SHORT = TITLES | {PER_WORD: "PPL/w", "average": "Avg.", "extrema": "Extr."}


def draw(rows: list[dict], path: Path, alpha: float) -> None:
    """A matrix a task and block: rows are systems with their data, columns metrics."""
    blocks = [
        (f"{title}{'' if block == 'systems' else ': controls'}", found)
        for task, title in TASKS.items()
        for block in ("systems", "controls")
        if (found := [row for row in rows if row["task"] == task and row["block"] == block])
    ]
    if not blocks:
        return style.nothing(path, "significance", TITLE, "fewer than two systems were scored on a task")
    lines = {title: list(dict.fromkeys((row["system"], row["data"]) for row in found)) for title, found in blocks}
    sizes = [len(names) + 2 for names in lines.values()]
    with style.figure(
        path, "significance", title=TITLE, about=_told(rows, alpha), height=0.2 + 0.2 * sum(sizes)
    ) as made:
        grid = made.subplots(len(blocks), 1, squeeze=False, height_ratios=sizes)[:, 0]
        for panel, (title, found) in zip(grid, blocks, strict=True):
            panel.set_title(title, loc="left")
            _matrix(panel, found, lines[title], alpha)
        more = " and over seeds" if any(row["t_low"] is not None for row in rows) else ""
        made.supxlabel(f"difference; blue: better, orange: worse; * and frame: p < {alpha:g} (Holm){more}", fontsize=8)


def _sure(row: dict, alpha: float) -> bool:
    """Whether table 1 stars it; of a worse row, whether it would the other way round."""
    return row["significant"] == "yes" if row["better"] == "yes" else told_apart(row, alpha)


def _matrix(panel, rows: list[dict], lines: list[tuple], alpha: float) -> None:
    metrics = [name for name in SHORT if any(row["metric"] == name for row in rows)]
    for row in rows:
        if row["metric"] in metrics and row["difference"] is not None:
            _cell(panel, metrics.index(row["metric"]), lines.index((row["system"], row["data"])), row, alpha)
    panel.set_xticks(range(len(metrics)), [SHORT[name] for name in metrics], fontsize=7)
    panel.set_yticks(range(len(lines)), [" ".join(filter(None, line)) for line in lines], fontsize=7)
    panel.set_xlim(-0.5, len(metrics) - 0.5)
    panel.set_ylim(len(lines) - 0.5, -0.5)
    panel.xaxis.tick_top()
    panel.tick_params(length=0)
    panel.set_facecolor("none")
    panel.spines[:].set_visible(False)


def _cell(panel, x: int, y: int, row: dict, alpha: float) -> None:
    """The difference on its colour, pale enough for light and for dark ink; what is sure has a frame."""
    starred, decimals = _sure(row, alpha), 2 if abs(row["difference"]) >= 0.1 else 3
    color = style.PLAIN if row["difference"] == 0 else style.GOOD if row["better"] == "yes" else style.BAD
    frame = {"edgecolor": color, "linewidth": 1.3} if starred else {"linewidth": 0}
    panel.bar(x, 0.84, bottom=y - 0.42, width=0.92, facecolor=(color, 0.28 if starred else 0.1), **frame)
    text = f"{row['difference']:+.{decimals}f}".replace("-", "\u2212") + ("*" if starred else "")
    panel.text(x, y, text, ha="center", va="center", fontsize=7)


def _told(rows: list[dict], alpha: float) -> str:
    found = [row for row in rows if _sure(row, alpha)]
    better = sum(row["better"] == "yes" for row in found)
    told = f"{len(found)} of {len(rows)} differences are more than chance (p < {alpha:g} after Holm)"
    return f"{told}: {better} better, {len(found) - better} worse."
