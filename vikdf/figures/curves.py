"""Learning curves of pretrain and of finetune.

In: curves.jsonl of every run, from folders named <variant>-s<seed> or <system>-<fraction>-s<seed>.
Out: curves_pretrain.svg (a panel a loss), curves_finetune.svg (a panel a fraction of the data).
Run: by vikdf/figures/__main__.py. A long curve is drawn as means of equal stretches; validation points stay as they are.
"""

import json
import re
from pathlib import Path
from statistics import fmean

from vikdf.figures import style

POINTS = 60  # of a line at most: more is noise at this width
MANY = len(style.COLORS)  # lines of a panel at most
DATA = ["zero", "eighth", "quarter", "full"]
LOSSES = {
    "tim": "TIM", "tamim": "TAMIM", "iamtm": "IAMTM", "iaci": "IACI", "iakr": "IAKR",
}  # fmt: skip


def read(paths: list[Path]) -> list[dict]:
    """A row a point: run, name, fraction (of finetune's), seed, step and the values."""
    found = []
    for path in paths:
        run = Path(path).parent.name
        parts = re.fullmatch(r"(?P<name>.+?)(?:-(?P<fraction>zero|eighth|quarter|full))?-s(?P<seed>\d+)", run)
        if parts is None:
            raise ValueError(
                f"{path}: its folder is called {run}, expected <name>-s<seed>: keep the names that the rules give"
            )
        for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
            try:
                found.append({"run": run, **parts.groupdict(), **json.loads(line)})
            except (ValueError, TypeError, RecursionError) as error:
                cure = f"delete {Path(path).parent} and run `snakemake --cores all` to make it again"
                raise ValueError(f"{path}, line {number} is no point of a curve ({error}): {cure}") from None
    return found


def thinned(points: list[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most `most` points: means of equal stretches, each at its middle."""
    size = -(-len(points) // most)
    parts = [points[first : first + size] for first in range(0, len(points), size or 1)]
    return [(fmean(x for x, _ in part), fmean(y for _, y in part)) for part in parts]


def draw_pretrain(rows: list[dict], path: Path, order: list[str]) -> None:
    """A panel a loss, a colour a variant of pretrain, a line a seed."""
    title = "Learning curves of the distillation"
    losses = [
        *LOSSES,
        *sorted({key for row in rows for key in row} - {*LOSSES, "run", "name", "fraction", "seed", "step"}),
    ]
    losses = [loss for loss in losses if any(loss in row for row in rows)]
    if not losses:
        return style.nothing(path, "curves_pretrain", title, "no run of pretrain has taken a step")
    named = {loss: LOSSES.get(loss) or f"{loss} ({', '.join(_who(rows, loss))})" for loss in losses}
    looks = style.looks(list(_looks(rows, order)))  # few variants: the colours that are easiest to tell apart
    last = {name: max(row["step"] for row in rows if row["name"] == name) for name in looks}
    about = f"{', '.join(named.values())} by step, of {', '.join(f'{name} ({steps} steps)' for name, steps in last.items())}."
    count = len(losses)
    with style.figure(path, "curves_pretrain", title=title, about=about, height=0.5 + 1.5 * -(-count // 2)) as made:
        for panel, (loss, called) in zip(style.panels(made, count), named.items(), strict=False):
            style.bare(panel, called)
            for name, look in looks.items():
                _lines(
                    panel,
                    [row for row in rows if row["name"] == name],
                    loss,
                    color=look["color"],
                    linestyle=look["linestyle"],
                    label=name,
                )
            panel.locator_params(axis="x", nbins=5)
        _legend(made, panel)
        made.supxlabel("across: step; up: loss, as means of equal stretches", fontsize=8)


def draw_finetune(rows: list[dict], path: Path, order: list[str]) -> None:
    """A panel a fraction of the data and some systems, a colour a system: training as a thin line, validation as points."""
    title = "Learning curves of fine-tuning"
    fractions = [name for name in DATA if any(row["fraction"] == name for row in rows)]
    if not fractions:
        return style.nothing(path, "curves_finetune", title, "no system was tuned")
    looks = _looks(rows, order)
    about = f"NLL a token by step: training and validation of {', '.join(looks)}, tuned on {', '.join(fractions)}."
    parts = [(fraction, names) for fraction in fractions for names in _parts(rows, fraction, list(looks))]
    count, height = len(parts), 0.5 + 2 * -(-len(parts) // 2) + 0.14 * -(-len(looks) // 3)
    with style.figure(path, "curves_finetune", title=title, about=about, height=height) as made:
        for panel, (fraction, names) in zip(style.panels(made, count, sharey=True), parts, strict=False):
            style.bare(panel, "Reddit (zero data)" if fraction == "zero" else f"Image-Chat, {fraction}")
            for name, look in ((name, looks[name]) for name in names):
                here = [row for row in rows if row["fraction"] == fraction and row["name"] == name]
                _lines(panel, here, "nll", color=look["color"], alpha=0.35, linewidth=0.8)
                _lines(panel, here, "validation", most=10**9, label=name, **look, linewidth=1, markersize=3.5)
            panel.locator_params(axis="x", nbins=5)
        made.axes[0].set_ylim(*_bounds(rows))
        _legend(made, *made.axes)
        made.supxlabel(
            "across: step; up: NLL a token (nats), to compare where tokenizers are the same; marks: validation, pale: training",
            fontsize=8,
        )


def _parts(rows: list[dict], fraction: str, names: list[str]) -> list[list[str]]:
    """The systems that were tuned on the fraction, at most MANY a panel."""
    there = {row["name"] for row in rows if row["fraction"] == fraction}
    here = [name for name in names if name in there]
    return [here[first : first + MANY] for first in range(0, len(here), MANY)]


def _who(rows: list[dict], loss: str) -> list[str]:
    return sorted({row["name"] for row in rows if loss in row})


def _looks(rows: list[dict], order: list[str]) -> dict[str, dict]:
    """Of the names that have rows: as in every other figure."""
    there = {row["name"] for row in rows}
    every = style.looks([*order, *sorted(there - set(order))])
    return {name: look for name, look in every.items() if name in there}


def _lines(panel, rows: list[dict], value: str, label: str = "", most: int = POINTS, **look) -> None:
    """One line a run; the first carries the name."""
    for run in dict.fromkeys(row["run"] for row in rows):
        points = thinned([(row["step"], row[value]) for row in rows if row["run"] == run and value in row], most)
        if points:
            panel.plot(*zip(*points, strict=True), label=label or None, **look)
            label = ""


def _bounds(rows: list[dict]) -> tuple[float, float]:
    """From the lowest value that is drawn to one that few are above: a wild first step does not flatten all lines."""
    values = sorted(row[name] for row in rows for name in ("nll", "validation") if name in row)
    return 0.95 * values[len(values) // 100], 1.05 * max(values[int(0.97 * (len(values) - 1))], 1e-6)


def _legend(made, *panels) -> None:
    """One legend for all panels, above them."""
    found = {}
    for panel in panels:
        found |= {
            name: handle for handle, name in zip(*panel.get_legend_handles_labels(), strict=True) if name not in found
        }
    made.legend(found.values(), found.keys(), loc="outside upper left", ncols=3)
