"""The filter's report: how many pictures and captions each rule dropped, as a table, as text and as a drawing.

In: counts by (source, unit, reason); `kept` is the reason of what stays.
Out: report.parquet (REPORT; 0 for a rule that dropped nothing), report.txt, report.svg.
Run: by the stage, vikdf/filter/__main__.py.
"""

from collections import Counter
from pathlib import Path

import polars as pl
import pyarrow as pa

from vikdf import drawn, files, schemas
from vikdf.filter import rules
from vikdf.filter.verdicts import WITH_ITS_PICTURE

REPORT = pa.schema([("source", pa.string()), ("unit", pa.string()), ("reason", pa.string()), ("count", pa.int64())])
FILES = ("report.parquet", "report.txt", "report.svg")
UNITS = ("picture", "caption")
ORDER = ["no picture", *rules.NAMES[1:], WITH_ITS_PICTURE]  # of the drawing: as the rules are asked
# A picture goes with the rule that took its captions, so that all rules apply to it.
APPLY = {
    "picture": rules.NAMES[1:],
    "caption": [*rules.CAPTION_RULES, *rules.COSTLY_RULES, *rules.REPEATS],
}


def table(counts: Counter, off: frozenset[str] = frozenset()) -> pl.DataFrame:
    """A row a count, 0 for a rule that dropped nothing: one sees that it was asked. `off` are those that were not."""
    whole = {(source, unit, rule): 0 for source, unit, _ in counts for rule in APPLY[unit] if rule not in off}
    rows = [(*key, count) for key, count in (whole | counts).items()]
    return pl.DataFrame(rows, schema=REPORT.names, orient="row").sort("unit", "source", "reason")


def write(report: pl.DataFrame, folder: Path) -> None:
    schemas.write(report.to_arrow(), folder / "report.parquet", REPORT)
    with files.whole(folder / "report.txt") as aside:
        aside.write_text(written(report))
    with files.whole(folder / "report.svg") as aside:
        draw(report, aside)


def counts(folder: Path) -> dict:
    """What the manifest tells: of each unit how many there were, and how many stay."""
    report = pl.from_arrow(schemas.read(folder / "report.parquet", REPORT))
    kept = report.filter(reason="kept")
    return {
        f"{unit}s": {"read": _sum(report.filter(unit=unit)), "kept": _sum(kept.filter(unit=unit))} for unit in UNITS
    }


def _sum(report: pl.DataFrame) -> int:
    return int(report["count"].sum())


def written(report: pl.DataFrame) -> str:
    """The report as a table for people: a row a reason, a column a source; kept first, then the heaviest; then the rest."""
    parts = [(unit, report.filter(unit=unit)) for unit in UNITS]
    return "\n".join(_aligned(unit, part) for unit, part in parts if len(part))


def _aligned(unit: str, report: pl.DataFrame) -> str:
    wide = report.pivot("source", index="reason", values="count", sort_columns=True).fill_null(0)
    sources = [name for name in wide.columns if name not in ("reason", "unit")]
    wide = wide.select("reason", pl.sum_horizontal(sources).alias("all"), *sources)
    idle = {"dropped nothing": [*wide.filter(all=0)["reason"]]}
    idle["were not asked"] = [name for name in APPLY[unit] if name not in wide["reason"]]
    wide = wide.filter(pl.col("all") > 0)
    wide = wide.sort(pl.col("reason") != "kept", -pl.col("all"), "reason")
    rows = [[f"{unit}s", *wide.columns[1:]], *wide.rows(), ["in all", *wide.drop("reason").sum().row(0)]]
    width = max(len(row[0]) for row in rows)
    lines = ["  ".join([row[0].ljust(width), *(f"{cell:>9}" for cell in row[1:])]) for row in rows]
    return "\n".join([*lines, *(f"{said}: {', '.join(sorted(names))}" for said, names in idle.items() if names), ""])


def steps(report: pl.DataFrame, unit: str) -> tuple[list[str], dict[str, list[int]]]:
    """What dropped any, in order, after "in all"; for each source what was left after each."""
    lost: dict[str, Counter] = {}
    for source, _, reason, count in report.filter(unit=unit).iter_rows():
        name = reason if reason in [*ORDER, "kept"] else ORDER[0]
        lost.setdefault(source, Counter())[name] += count
    names = [name for name in ORDER if any(counts[name] for counts in lost.values())]
    left = {source: [counts.total()] for source, counts in lost.items()}
    for source, counts in lost.items():
        for name in names:
            left[source].append(left[source][-1] - counts[name])
    return ["in all", *names], left


def draw(report: pl.DataFrame, path: Path) -> None:
    """A funnel a source: what is left after each rule; pictures above, captions below. Always the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    shown = {unit: steps(report, unit) for unit in UNITS if unit in report["unit"]}
    sources = report["source"].unique().sort().to_list()
    heights = [len(names) + 2 for names, _ in shown.values()]
    with matplotlib.rc_context({"svg.hashsalt": "vikdf", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(1.8 + 2.2 * len(sources), 0.2 * sum(heights) + 0.4), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(len(shown), len(sources), squeeze=False, sharey="row", height_ratios=heights)
        for line, (unit, (names, left)) in zip(grid, shown.items(), strict=True):
            for panel, source in zip(line, sources, strict=True):
                panel.set_title(f"{source}: {unit}s left")
                _bars(panel, names, left.get(source, [0] * len(names)))
        drawn.save(figure, path)


def _bars(panel, names: list[str], left: list[int]) -> None:
    """Bars as shares of what there was; beside each how many are left, and how many the rule took."""
    whole = max(left[0], 1)
    panel.barh(range(len(names)), [count / whole for count in left], height=0.75, color="#9ecae1")
    for place, count in enumerate(left):
        taken = left[place - 1] - count if place else 0
        panel.text(0.02, place, f"{count:,}", va="center")
        if taken:
            panel.text(1.04, place, f"\u2212{taken:,}", va="center", color="#a50f15")
    panel.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_xlim(0, 1.4)
    panel.set_xticks([])
    panel.tick_params(length=0)
    panel.spines[["top", "right", "bottom"]].set_visible(False)
