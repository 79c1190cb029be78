"""`vikdf human table`: Table 2 of the paper from the files that raters sent back.

In: key.json and one file a rater. Out: a CSV with a row a system, and the same to read. A row holds, for each criterion, the
mean over dialogues and raters with its bootstrap interval (low, high: over dialogues, given these raters), then how far
the raters agree: Fleiss' kappa and Krippendorff's alpha (interval), over all three criteria and for each. The last row,
`all`, tells the agreement over all systems; it has no means. `pictures`: yes where the raters saw one with each dialogue.
"""

from pathlib import Path

import numpy as np

from vikdf.human import CRITERIA, SCALE, agreement, ratings
from vikdf.means import write_csv

CONFIDENCE = 0.95
RESAMPLES = 10_000  # the interval's third digit stands still
EVERY = "all"
MEASURES = ["kappa", "alpha"]
COLUMNS = ["system", *CRITERIA, *MEASURES]
COLUMNS += [f"{name}_{end}" for name in CRITERIA for end in ("low", "high")]
COLUMNS += [f"{measure}_{name}" for measure in MEASURES for name in CRITERIA] + ["dialogues", "raters", "pictures"]


def table(*, key: Path, returned: list[Path], without: list[str], output: Path) -> str:
    """Writes the CSV; gives the page to read."""
    told, found = ratings.read(key, returned, without)
    rows = summary(found, [each["name"] for each in told["systems"]], told["seed"])
    rows = [row | {"pictures": "yes" if told["pictures"] else "no"} for row in rows]
    write_csv(output, COLUMNS, rows)
    return readable(rows, told, without)


def summary(found: list[ratings.Rating], systems: list[str], seed: int) -> list[dict]:
    values = arranged(found, systems)  # [systems, criteria, dialogues, raters]
    rows = [{"system": system} | means(values[place], seed) for place, system in enumerate(systems)]
    for row, block in zip(rows, values, strict=True):
        row |= agreed(block)
    whole = np.concatenate(list(values), axis=1)  # the dialogues of all systems
    size = {"dialogues": values.shape[2], "raters": values.shape[3]}
    return [row | size for row in [*rows, dict.fromkeys(COLUMNS) | {"system": EVERY} | agreed(whole)]]


def arranged(found: list[ratings.Rating], systems: list[str]) -> np.ndarray:
    """All ratings as one block of numbers; ratings.read has seen to it that none is missing."""
    names = [sorted({getattr(each, name) for each in found}) for name in ("dialogue", "rater")]
    places = [{name: place for place, name in enumerate(each)} for each in (systems, CRITERIA, *names)]
    values = np.zeros([len(each) for each in places], dtype=int)
    for each in found:
        spot = each.system, each.criterion, each.dialogue, each.rater
        values[tuple(place[name] for place, name in zip(places, spot, strict=True))] = each.value
    return values


def means(block: np.ndarray, seed: int) -> dict:
    """Of one system [criteria, dialogues, raters]."""
    found = {}
    for name, values in zip(CRITERIA, block, strict=True):
        low, high = interval(values.mean(axis=1), seed)
        found |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
    return found


def interval(values: np.ndarray, seed: int) -> tuple[float | None, float | None]:
    """Percentile bootstrap of the mean; None of one dialogue."""
    from scipy.stats import bootstrap

    if len(values) < 2:
        return None, None
    drawn = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=seed,
        batch=1000,
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def agreed(block: np.ndarray) -> dict:
    """Agreement over all criteria and on each [criteria, items, raters]."""
    found = {}
    for ending, values in {"": np.concatenate(list(block)), **dict(zip(CRITERIA, block, strict=True))}.items():
        ending = f"_{ending}" if ending else ""
        rows = values.tolist()
        found[f"kappa{ending}"] = agreement.fleiss_kappa(agreement.counts(rows, SCALE))
        found[f"alpha{ending}"] = agreement.krippendorff_alpha(rows)
    return found


def readable(rows: list[dict], told: dict, without: list[str]) -> str:
    width = max(len(row["system"]) for row in rows)
    lines = [" ".join([" " * width, *(f"{name:>23}" for name in CRITERIA), *(f"{name:>6}" for name in MEASURES)])]
    for row in rows:
        cells = [_spread(row, name) for name in CRITERIA]
        lines.append(" ".join([f"{row['system']:{width}}", *cells, *(f"{_cell(row[name]):>6}" for name in MEASURES)]))
    count = rows[0]
    about = [
        f"{count['dialogues']} dialogues of {told['task']} at data {told['data']}, {count['raters']} raters, "
        f"{SCALE[0]} to {SCALE[-1]}; means over both.",
        f"In brackets: {CONFIDENCE:.0%} bootstrap interval over dialogues, given these raters.",
        "kappa: Fleiss', five categories without order; alpha: Krippendorff's, interval; over all three criteria.",
        "A dash: not defined, as of one rater or where all ratings are the same.",
    ]
    if not told["pictures"]:
        about.append(
            "Relevance was asked of the text alone; the paper's raters judged text and picture (--pictures of the sheets)."
        )
    about += [f"Left out by --without: rater {', '.join(without)}."] if without else []
    return "\n".join([*lines, "", *about])


def _spread(row: dict, name: str) -> str:
    if row[name] is None:
        return " " * 23
    ends = f" [{_cell(row[f'{name}_low'])}, {_cell(row[f'{name}_high'])}]"
    return f"{_cell(row[name]) + ends:>23}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
