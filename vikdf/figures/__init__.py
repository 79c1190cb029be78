"""The run's figures as SVG, drawn from its tables: one module a figure, each with `draw(rows, path, ...)`.

In: the tables of results/, as `rows` reads them. Out: one SVG each, always the same bytes for the same rows.
Run: python -m vikdf.figures (the rule `figures`); `style` holds what they share.
"""

import csv
from pathlib import Path

TEXT = {"task", "system", "data", "block", "metric", "attribute", "nouns", "stage", "run"}  # a system may be called 007


def rows(path: Path) -> list[dict]:
    """A table of ours: numbers as numbers, names as text, an empty cell as None."""
    with open(path, newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    return [{name: (text or None) if name in TEXT else _value(text) for name, text in line.items()} for line in lines]


def _value(text: str | None) -> str | float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text
