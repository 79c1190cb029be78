"""Table 1 on the page: each task's rows with best, second best and stars, intervals, and the paper's numbers to switch on.

In: rows of table1.csv, significance.csv, intervals.csv and of the paper's reported table. Out: one dict a task.
"""

from vikdf.marks import marks
from vikdf.means import BESIDE, METRICS, lower_is_better
from vikdf.report.rows import DATA, TASKS, between, figure, key, title

KEY = ("task", "system", "data")


def tasks(
    means: list[dict], reported: list[dict], significance: list[dict], intervals: list[dict], about: dict
) -> list:
    """`about`: {"systems": {name: line}, "controls": {name: line}, "alpha": number}; rows are in the order of table1.csv."""
    found = []
    known = {
        "marks": marks(means, significance, about["controls"], about["alpha"]),
        "ranges": {(*key(row, *KEY), row["metric"]): row for row in intervals},
        "reported": {key(row, *KEY): row for row in reported},
        "about": about["systems"] | about["controls"],
        "shown": [each["name"] for each in metrics(means)],
    }
    for task in dict.fromkeys(row["task"] for row in means):
        here = [row for row in means if row["task"] == task]
        split = [
            ("", [row for row in here if row["system"] not in about["controls"]]),
            ("Controls", [row for row in here if row["system"] in about["controls"]]),
        ]
        groups = [
            {"heading": heading, "reported": False, "rows": [_line(row, known) for row in rows]}
            for heading, rows in split if rows
        ]  # fmt: skip
        ours = {key(row, *KEY) for row in here}
        groups += _only_theirs([row for row in reported if row["task"] == task and key(row, *KEY) not in ours], known)
        found.append({"name": task, "title": TASKS.get(task, task), "n": here[0]["n_test"], "groups": groups})
    return found


def metrics(means: list[dict]) -> list[dict]:
    """The columns: the paper's eight, then those beside them that have a value."""
    names = METRICS + [name for name in BESIDE if any(row.get(name) is not None for row in means)]
    return [
        {"name": name, "title": title(name), "lower": lower_is_better(name), "further": name in BESIDE}
        for name in names
    ]


def _line(row: dict, known: dict) -> dict:
    theirs = known["reported"].get(key(row, *KEY), {})
    return _head(row, known["about"]) | {"cells": [_cell(row, name, theirs, known) for name in known["shown"]]}


def _cell(row: dict, name: str, theirs: dict, known: dict) -> dict:
    """One value, its marks, what is known of its chance, and what the paper reports in its place."""
    place = (*key(row, *KEY), name)
    found, span, spread = known["marks"].get(place, set()), known["ranges"].get(place, {}), row.get(f"{name}_sd")
    return {
        "value": row.get(name), "text": figure(row.get(name)), "further": name in BESIDE,
        "mark": next((mark for mark in ("best", "second") if mark in found), ""),
        "sign": "*" if "significant" in found else "†" if "paper_only" in found else "",
        "range": between(span.get("low"), span.get("high")), "spread": "" if spread is None else f"± {figure(spread)}",
        "reported": figure(theirs.get(name)) if theirs else "",
    }  # fmt: skip


def _head(row: dict, about: dict) -> dict:
    return {
        "system": row["system"], "data": row["data"], "about": about.get(row["system"], ""),
        "tuned": figure(row.get("tuned_params")), "order": DATA.get(row["data"], len(DATA)),
    }  # fmt: skip


def _only_theirs(rows: list[dict], known: dict) -> list[dict]:
    """Rows that only the paper has: nothing of ours stands in them."""
    empty = {"value": None, "text": "", "mark": "", "sign": "", "range": "", "spread": ""}
    lines = [
        _head(row, {})
        | {"cells": [empty | {"reported": figure(row.get(name)), "further": name in BESIDE} for name in known["shown"]]}
        for row in rows
    ]
    return [{"heading": "Reported by the paper, not run here", "reported": True, "rows": lines}] if rows else []


def glance(means: list[dict], significance: list[dict], pairs: list[dict], about: dict) -> list[dict]:
    """Of the first system of the table, on each task and amount of data: in how many metrics it is better than the best
    other row, in how many of these by more than chance, and the same against systems with as much data."""
    first = next(iter(about["systems"]), "")
    tiles: dict[str, list[dict]] = {}
    for task, data in dict.fromkeys(key(row, "task", "data") for row in significance if row["system"] == first):
        here = [row for row in significance if key(row, *KEY) == (task, first, data) and row["metric"] in METRICS]
        leads = [row for row in here if row["better"] == "yes"]
        sure = [row for row in leads if row["significant"] == "yes"]
        behind = [title(row["metric"]) for row in here if row["better"] != "yes"]
        line = {"data": data, "of": len(here), "leads": len(leads), "sure": len(sure), "behind": ", ".join(behind)}
        rivals = [
            row for row in means if key(row, "task", "data") == (task, data) and row["system"] in about["systems"]
        ]
        line["alike"] = _against([row for row in rivals if row["system"] != first], (task, first, data), pairs)
        tiles.setdefault(task, []).append(line)
    return [{"system": first, "title": TASKS.get(task, task), "lines": lines} for task, lines in tiles.items()]


def _against(rivals: list[dict], row: tuple, pairs: list[dict]) -> dict | None:
    """The same count against the best of these rows alone, from the tests of pairs; None where there is none."""
    leads, sure, of = 0, 0, 0
    tested = {
        (pair["metric"], *key(pair, "a", "a_data", "b", "b_data")): pair for pair in pairs if pair["task"] == row[0]
    }
    for name in METRICS:
        known = [rival for rival in rivals if rival[name] is not None]
        if not known:
            continue
        sign = -1 if lower_is_better(name) else 1
        best = max(known, key=lambda rival: sign * rival[name])
        ours, theirs = row[1:], key(best, "system", "data")
        turned = (name, *ours, *theirs) not in tested
        pair = tested.get((name, *theirs, *ours) if turned else (name, *ours, *theirs))
        if pair:
            better = sign * (-1 if turned else 1) * pair["difference"] > 0
            of, leads, sure = of + 1, leads + better, sure + (better and pair["significant"] == "yes")
    return {"of": of, "leads": leads, "sure": sure} if of else None
