"""Figure 7 of the paper: VIKDF at zero data by the number of its queries.

In: results/evaluate/<system>-zero-s<seed>.parquet (SCORES) of the points, every seed.
Out: figure7.csv (means over seeds, their spread, tuned parameters), figure7.svg (the same drawn).
Run: python -m vikdf.queries --scores results/evaluate/*-zero-s*.parquet --output results ... (the rule `figure7`)
"""

from pathlib import Path

from vikdf import files, flags, tracking
from vikdf.ablations import MEASURES, NUMBERS, zero_data
from vikdf.tables import read, write_csv

PANELS = {  # title -> {legend: column}
    "BLEU-1": {"Reddit": "reddit_bleu1", "Image-Chat": "image_chat_bleu1"},
    "ROUGE-L": {"Reddit": "reddit_rouge_l", "Image-Chat": "image_chat_rouge_l"},
    "PPL (lower is better)": {"Reddit": "reddit_ppl", "Image-Chat": "image_chat_ppl"},
    "right about held-out nouns": {"colour": "color_heldout", "place": "place_heldout"},
}
LOOKS = [("#1b7837", "o"), ("#762a83", "s")]  # of a panel's two lines: told apart in print too


def queries(*, scores: list[Path], output: Path, state_root: Path, seeds: list, figure7: dict) -> None:
    """Figure 7: BLEU-1, ROUGE-L, PPL and the probe at zero data, by the number of queries and what they tune.

    scores: SCORES tables of the points at zero data
    output: folder of figure7.csv and figure7.svg
    state_root: the folder `state`; the journal that feeds MLflow lies below it
    seeds: the seeds that every point must have
    figure7: system -> its number of queries
    """
    twice = sorted(name for name, number in figure7.items() if list(figure7.values()).count(number) > 1)
    if twice:
        raise ValueError(f"{' and '.join(twice)} have the same number of queries: keep one of them in `tables.figure7`")
    found = zero_data(read(scores), figure7, seeds, output / "figure7.csv")
    points = sorted(figure7.items(), key=lambda point: point[1])
    rows = [{"queries": number, "system": system} | found[system] for system, number in points]
    write_csv(output / "figure7.csv", ["queries", "system", *NUMBERS], rows)
    with files.whole(output / "figure7.svg") as aside:
        draw(rows, aside)
    with tracking.Run("figure7", "figure7", params={"points": figure7}, folder=state_root / "figure7") as run:
        for row in rows:
            run.log(row["queries"], {name: row[name] for name in MEASURES if row[name] is not None})
        for name in ("figure7.csv", "figure7.svg"):
            run.artifact(output / name)


def draw(rows: list[dict], path: Path) -> None:
    """One panel a metric, one line a task; bars of one standard deviation where there are several seeds; always the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    shown = {
        title: lines
        for title, lines in PANELS.items()
        if any(row[name] is not None for row in rows for name in lines.values())
    }
    with matplotlib.rc_context({"svg.hashsalt": "vikdf", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(3.2 * max(len(shown), 1), 3), layout="constrained")
        FigureCanvasSVG(figure)
        for panel, (title, lines) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
            panel.set_title(title)
            for (label, name), (color, marker) in zip(lines.items(), LOOKS, strict=True):
                _line(
                    panel, [row for row in rows if row[name] is not None], name, label=label, color=color, marker=marker
                )
            panel.set_xscale("log", base=2)
            panel.set_xticks(
                [row["queries"] for row in rows], [f"{row['queries']}\n{_short(row['tuned_params'])}" for row in rows]
            )
            panel.minorticks_off()
            panel.spines[["top", "right"]].set_visible(False)
            panel.legend(frameon=False)
        count = rows[0]["seeds"]
        about = f"{count} seeds, bars: one standard deviation" if count > 1 else "one seed"
        figure.supxlabel(f"number of queries, tuned parameters below; zero data, {about}")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _line(panel, rows: list[dict], name: str, **look) -> None:
    bars = [row[f"{name}_sd"] for row in rows]
    bars = None if None in bars else bars
    panel.errorbar(
        [row["queries"] for row in rows], [row[name] for row in rows], yerr=bars, capsize=3, markersize=4, **look
    )


def _short(count: int) -> str:
    return f"{count / 1e6:.3f} M"


if __name__ == "__main__":
    flags.main(queries)
