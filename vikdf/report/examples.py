"""Answers side by side: the first test items of each task, chosen by their place in the test set and by no score.

In: EXAMPLES tables, one a row of table 1, of one seed. Out: a list of items, each with every system's answer.
"""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from vikdf import schemas
from vikdf.report.rows import DATA, LOOKS, TASKS, figure

COLUMNS = ["id", "task", "system", "data", "seed", "context", "reference", "hypothesis", "rouge_l", "noun", "attribute"]
COLUMNS += ["held_out", "stated", "right"]
WANTED = pa.schema([schemas.EXAMPLES.field(name) for name in COLUMNS])


def items(paths: list[Path], count: int, order: list[str]) -> list[dict]:
    """The items in the order of the test sets; in each the answers in the order of table 1."""
    found: dict[tuple, dict] = {}
    for path in paths:
        for row in first(path, count):
            item = found.setdefault((row["task"], row["id"]), _item(row))
            if (item["context"], item["reference"]) != (row["context"], row["reference"]):
                raise ValueError(
                    f"{path}: {row['task']} {row['id']} is another item than in {paths[0]}: evaluate both anew"
                )
            item["answers"].append(_answer(row))
    if lost := [item["id"] for item in found.values() if len(item["answers"]) < _most(found, item["task"])]:
        raise ValueError(
            f"{', '.join(lost[:3])}: not every system answered these items; generate and evaluate all anew"
        )
    ranks = {name: rank for rank, name in enumerate(order)}
    for item in found.values():
        item["answers"].sort(
            key=lambda each: (DATA.get(each["data"], len(DATA)), ranks.get(each["system"], len(ranks)))
        )
    tasks = list(TASKS)
    return sorted(found.values(), key=lambda item: tasks.index(item["task"]) if item["task"] in tasks else len(tasks))


def _most(found: dict, task: str) -> int:
    return max(len(item["answers"]) for item in found.values() if item["task"] == task)


def first(path: Path, count: int) -> Iterable[dict]:
    """The first `count` rows of each task."""
    seen: dict[str, int] = {}
    for table in schemas.batches(path, WANTED):
        for row in table.to_pylist():
            seen[row["task"]] = seen.get(row["task"], 0) + 1
            if seen[row["task"]] <= count:
                yield row


def _item(row: dict) -> dict:
    about = ""
    if row["noun"]:
        kind = "held-out" if row["held_out"] else "seen"
        about = f"{LOOKS.get(row['attribute'], row['attribute'])} of a {kind} noun: {row['noun']}"
    head = {"id": row["id"], "task": row["task"], "title": TASKS.get(row["task"], row["task"]), "about": about}
    return head | {"context": row["context"], "reference": row["reference"], "answers": []}


def _answer(row: dict) -> dict:
    verdict = "" if row["right"] is None else "right" if row["right"] else "wrong" if row["stated"] else "states none"
    score = "" if row["rouge_l"] is None else figure(100 * row["rouge_l"], 0)
    return {"system": row["system"], "data": row["data"], "text": row["hypothesis"], "score": score, "verdict": verdict}
