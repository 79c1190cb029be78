"""Figure 7 of the paper: VIKDF at zero data by the number of its queries.

In: results/evaluate/<system>-zero-s<seed>.parquet (SCORES) of the points, every seed.
Out: figure7.csv (means over seeds, their spread, tuned parameters), figure7.svg (the same drawn).
Run: python -m vikdf.queries --scores results/evaluate/*-zero-s*.parquet --output results ... (the rule `figure7`)
"""

from pathlib import Path

from vikdf import flags, tracking
from vikdf.ablations import MEASURES, NUMBERS, zero_data
from vikdf.figures import style
from vikdf.means import read, write_csv

PANELS = {  # title -> {legend: column}
    "BLEU-1": {"Reddit": "reddit_bleu1", "Image-Chat": "image_chat_bleu1"},
    "ROUGE-L": {"Reddit": "reddit_rouge_l", "Image-Chat": "image_chat_rouge_l"},
    "PPL (lower is better)": {"Reddit": "reddit_ppl", "Image-Chat": "image_chat_ppl"},
    "right about held-out nouns": {"colour": "color_heldout", "place": "place_heldout"},
}


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
    draw(rows, output / "figure7.svg")
    with tracking.Run("figure7", "figure7", params={"points": figure7}, folder=state_root / "figure7") as run:
        for row in rows:
            run.log(row["queries"], {name: row[name] for name in MEASURES if row[name] is not None})
        for name in ("figure7.csv", "figure7.svg"):
            run.artifact(output / name)


def draw(rows: list[dict], path: Path) -> None:
    """One panel a metric, one line a task; bars of one standard deviation where there are several seeds; always the same bytes."""
    shown = {
        title: lines
        for title, lines in PANELS.items()
        if any(row[name] is not None for row in rows for name in lines.values())
    }
    count = rows[0]["seeds"]
    spread = f"{count} seeds, bars: one standard deviation" if count > 1 else "one seed"
    about = f"{', '.join(shown)} of {', '.join(row['system'] for row in rows)} at zero data, {spread}."
    height = 0.3 + 1.5 * max(len(shown), 1)
    with style.figure(path, "figure7", title="Scores by the number of queries", about=about, height=height) as made:
        for panel, (title, lines) in zip(style.panels(made, len(shown), columns=1), shown.items(), strict=False):
            style.bare(panel, title)
            for (label, name), look in zip(lines.items(), style.looks(list(lines.values())).values(), strict=True):
                _line(panel, [row for row in rows if row[name] is not None], name, label=label, **look)
            panel.set_xscale("log", base=2)
            panel.set_xticks(
                [row["queries"] for row in rows], [f"{row['queries']}\n{_short(row['tuned_params'])}" for row in rows]
            )
            panel.minorticks_off()
            panel.legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2)
        made.supxlabel(f"number of queries, tuned parameters below; zero data\n{spread}", fontsize=8)


def _line(panel, rows: list[dict], name: str, **look) -> None:
    bars = [row[f"{name}_sd"] for row in rows]
    bars = None if None in bars else bars
    panel.errorbar([row["queries"] for row in rows], [row[name] for row in rows], yerr=bars, capsize=3, **look)


def _short(count: int) -> str:
    return f"{count / 1e6:.3f} M"


if __name__ == "__main__":
    flags.main(queries)
