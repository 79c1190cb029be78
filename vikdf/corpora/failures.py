"""What became of every row of the corpora, by reason: as a table, a text and a picture.

In: {corpus: {(reason, pass): count}}, where pass 0 means that no host was asked. Out: failures.parquet (FAILURES, sorted; the
counts of a corpus add up to its rows, `ok` is one of its reasons), failures.txt and failures.svg (the same, to be read).
Same counts, same bytes.
"""

from collections import Counter
from pathlib import Path

import pyarrow as pa

from vikdf import drawn, files, schemas
from vikdf.corpora.download import TRANSIENT

FAILURES = pa.schema(
    [
        ("corpus", pa.string()),
        ("reason", pa.string()),  # ok, or what was wrong: data/README.md
        ("count", pa.int64()),
        ("share", pa.float64()),  # of the corpus' rows
        ("transient", pa.bool_()),  # it may pass: asked again while there are passes left
        ("pass", pa.int32()),  # the pass that had the last word; 0 = never asked, or not from the web
    ]
)
COLOURS = {True: "#e08214", False: "#542788"}  # may pass, final
SHOWN = 15  # reasons a panel; the rarest are summed up


def write(output: Path, counts: dict[str, Counter]) -> None:
    """failures.parquet, failures.txt and failures.svg below `output`."""
    table = rows(counts)
    schemas.write(table, output / "failures.parquet", FAILURES)
    with files.whole(output / "failures.txt") as aside:
        aside.write_text(text(counts))
    with files.whole(output / "failures.svg") as aside:
        draw(counts, aside)


def rows(counts: dict[str, Counter]) -> list[dict]:
    made = []
    for corpus, said in counts.items():
        total = sum(said.values())
        for (reason, number), count in sorted(said.items(), key=lambda item: (-item[1], item[0])):
            about = {"share": count / total, "transient": bool(TRANSIENT.fullmatch(reason)), "pass": number}
            made.append({"corpus": corpus, "reason": reason, "count": count} | about)
    return made


def by_reason(said: Counter) -> list[tuple[str, int]]:
    """(failure, rows) over all passes, the commonest first."""
    summed = Counter()
    for (reason, _), count in said.items():
        summed[reason] += count
    return sorted(((reason, n) for reason, n in summed.items() if reason != "ok"), key=lambda item: (-item[1], item[0]))


def pictures(said: Counter) -> int:
    return sum(count for (reason, _), count in said.items() if reason == "ok")


def text(counts: dict[str, Counter]) -> str:
    lines = []
    for corpus, said in counts.items():
        total = sum(said.values())
        lines.append(f"{corpus}: {total} rows, {pictures(said)} pictures ({_share(pictures(said), total)})")
        for reason, count in by_reason(said):
            may = "  may pass" if TRANSIENT.fullmatch(reason) else ""
            lines.append(f"  {reason:20} {count:10} {_share(count, total):>7}{may}")
        for number, found in sorted((n, count) for (reason, n), count in said.items() if reason == "ok" and n > 1):
            lines.append(f"  pictures that pass {number} brought: {found}")
    return "\n".join(lines) + "\n"


def _share(count: int, total: int) -> str:
    return f"{count / total:.2%}" if total else "-"


def draw(counts: dict[str, Counter], path: Path) -> None:
    """One panel a corpus, one bar a reason, on one logarithmic scale of rows; always the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "vikdf", "svg.fonttype": "none", "font.size": 9}):
        bars = {corpus: _bars(said) for corpus, said in counts.items()}
        heights = [max(len(some), 1) + 2 for some in bars.values()]
        figure = Figure(figsize=(6.4, 0.22 * sum(heights) + 0.8), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(len(bars), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for panel, (corpus, some) in zip(panels, bars.items(), strict=True):
            total = sum(counts[corpus].values())
            panel.set_title(f"{corpus}: {_share(pictures(counts[corpus]), total)} of {total} rows are pictures")
            _panel(panel, some)
        figure.supxlabel("rows without a picture (orange: for a reason that may pass)")
        drawn.save(figure, path)


def _bars(said: Counter) -> list[tuple[str, int]]:
    found = by_reason(said)
    rest = sum(count for _, count in found[SHOWN:])
    return found[:SHOWN] + ([("others", rest)] if rest else [])


def _panel(panel, bars: list[tuple[str, int]]) -> None:
    reasons, counts = [reason for reason, _ in bars], [count for _, count in bars]
    drawn = panel.barh(reasons, counts, color=[COLOURS[bool(TRANSIENT.fullmatch(reason))] for reason in reasons])
    panel.bar_label(drawn, padding=3)
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_xlim(left=0.5, right=max([10, *counts]) * 4)
    panel.spines[["top", "right"]].set_visible(False)
