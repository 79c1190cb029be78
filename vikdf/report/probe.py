"""The probe on the page: for each system the share of right answers about each look, with its interval, and every measure.

In: rows of probe.csv and of intervals.csv (task probe). Out: one dict a kind of noun, and the whole table.
"""

from vikdf.means import MEASURES
from vikdf.report.rows import LOOKS, between, figure, key

KINDS = {"heldout": "held-out nouns: no text told their looks", "seen": "seen nouns: text told their looks"}
MEASURE = "accuracy_all"  # right answers among all, also those that state nothing


def kinds(probed: list[dict], intervals: list[dict], controls: dict) -> list[dict]:
    """A table a kind of noun: systems down, looks across; below it what always guessing the commonest value gives."""
    ranges = {key(row, "system", "data", "metric"): row for row in intervals if row["task"] == "probe"}
    made = []
    for nouns, heading in KINDS.items():
        here = [row for row in probed if row["nouns"] == nouns]
        if here:
            looks = list(dict.fromkeys(row["attribute"] for row in here))
            made.append({
                "name": nouns, "title": heading, "looks": [LOOKS.get(name, name) for name in looks],
                "rows": [
                    {"system": system, "data": data, "control": system in controls,
                     "cells": [_cell(here, system, data, look, nouns, ranges) for look in looks]}
                    for system, data in dict.fromkeys(key(row, "system", "data") for row in here)
                ],
                "floors": [figure(_first(here, look, "floor")) for look in looks],
                "counts": [figure(_first(here, look, "n")) for look in looks],
            })  # fmt: skip
    return made


def _first(rows: list[dict], look: str, name: str) -> float | None:
    return next((row[name] for row in rows if row["attribute"] == look), None)


def _cell(rows: list[dict], system: str, data: str, look: str, nouns: str, ranges: dict) -> dict:
    row = next((row for row in rows if key(row, "system", "data", "attribute") == (system, data, look)), {})
    span = ranges.get((system, data, f"{look}_{MEASURE}_{nouns}"), {})
    value, spread = row.get(MEASURE), row.get(f"{MEASURE}_sd")
    return {
        "text": figure(value), "share": round(100 * (value or 0), 1), "floor": round(100 * (row.get("floor") or 0), 1),
        "range": between(span.get("low"), span.get("high")), "spread": "" if spread is None else f"± {figure(spread)}",
    }  # fmt: skip


def whole(probed: list[dict]) -> dict:
    """Every measure of every system."""
    rows = [
        [row["system"], row["data"], row["nouns"], LOOKS.get(row["attribute"], row["attribute"]), figure(row["n"]),
         *(figure(row[name]) for name in MEASURES)]
        for row in probed
    ]  # fmt: skip
    return {"head": ["system", "data", "nouns", "look", "n", *MEASURES.values()], "rows": rows, "texts": 4}
