"""Rows of a CSV table as the page uses them: numbers as numbers, nothing as None. In: a path or rows. Out: rows, texts."""

import csv
from pathlib import Path

from vikdf import means

TEXTS = {
    "task",
    "system",
    "data",
    "images",
    "metric",
    "method",
    "stage",
    "run",
    "device",
    "contrast",
    "question",
    "favours",
}
TEXTS |= {"attribute", "nouns", "other", "other_data", "a", "b", "a_data", "b_data", "block", "better", "significant"}
FURTHER = {
    "ppl_per_word": "PPL a word", "ead1": "EAD-1", "ead2": "EAD-2", "mean_length": "length", "empty": "empty %",
    "repeated": "repeated %", "rouge_l_f1": "ROUGE-L F1", "similarity": "similarity", "bleu2": "BLEU-2", "bleu3": "BLEU-3",
    "bleu4": "BLEU-4", "tuned_params": "tuned parameters",
}  # fmt: skip
TITLES = means.TITLES | FURTHER
TASKS = means.TASKS | {"probe": "Probe"}
DATA = {name: place for place, name in enumerate(means.DATA)}
LOOKS = {"color": "colour"}
NOUNS = {"heldout": "held-out nouns", "seen": "seen nouns"}
MEASURES = {
    "stated": "states a value", "accuracy": "right among these", "accuracy_all": "right of all", "cloze_accuracy": "cloze right",
    "cloze_rank": "cloze rank", "floor": "majority guess", "cloze_rank_floor": "its rank",
}  # fmt: skip


def read(path: Path) -> list[dict]:
    """The rows of a table of ours; a number that is none is named."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: run `snakemake --cores all {path}` to make it")
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            return [
                {name: number(name, text) for name, text in row.items()} for row in csv.DictReader(stream, strict=True)
            ]
    except (ValueError, csv.Error, AttributeError, TypeError) as error:
        cure = f"delete it and run `snakemake --cores all {path}` to make it again"
        raise ValueError(f"{path} is damaged ({error}): {cure}") from None


def number(name: str, text: str) -> str | int | float | None:
    if name in TEXTS:
        return text
    if text == "":
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


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
    return ", ".join(filter(None, [LOOKS.get(look, look), MEASURES.get(measure, measure), NOUNS[nouns]]))


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
