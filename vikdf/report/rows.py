"""What a table holds, as the page says it. In: names of metrics, values. Out: texts."""

from vikdf import means

TITLES = means.TITLES | means.BESIDE | {"tuned_params": "tuned parameters"}
TITLES |= {f"bleu{order}": f"BLEU-{order}" for order in (2, 3, 4)}
TASKS = means.TASKS | {"probe": "Probe"}
DATA = {name: place for place, name in enumerate(means.DATA)}
LOOKS = {"color": "colour"}
NOUNS = {"heldout": "held-out nouns", "seen": "seen nouns"}


def key(row: dict, *names: str) -> tuple:
    return tuple(row[name] for name in names)


def title(metric: str) -> str:
    """`color_accuracy_all_heldout` is "colour, right of all, held-out nouns"; table 1's are as the paper writes them."""
    if metric in TITLES:
        return TITLES[metric]
    name, _, nouns = metric.rpartition("_")
    if nouns not in NOUNS:
        return metric.replace("_", " ")
    look, _, measure = name.partition("_")
    return ", ".join(filter(None, [LOOKS.get(look, look), means.MEASURES.get(measure, measure), NOUNS[nouns]]))


def figure(value: object, decimals: int = 2) -> str:
    """A value as it stands in a cell: counts with commas, a dash for nothing."""
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:,.{decimals}f}".replace("-", "−")
    return f"{value:,}" if isinstance(value, int) else str(value)


def between(low: float | None, high: float | None, decimals: int = 2) -> str:
    return "" if low is None or high is None else f"{figure(low, decimals)} … {figure(high, decimals)}"


def chance(p: float | None) -> str:
    """A p-value: no more digits than it has meaning."""
    return "–" if p is None else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
