"""The probe of the embedded world: which look of a noun an answer states, and which one the model thinks likeliest.

In: RESPONSES rows of the task probe. Out: `items`, one dict an answer; `measures`, the rows of SCORES made of them.
Used by vikdf.evaluate. The measures are named <attribute>_<measure>_<heldout|seen>:
  stated          share of replies that state a value of the attribute
  accuracy        share of right ones among these (the right value and no other); no row where no reply states one
  accuracy_all    share of right ones among all replies
  cloze_accuracy  share of items whose right answer has a lower NLL than each other choice
  cloze_rank      mean rank of the right answer by NLL, 1 = best; equal ones share the mean of their ranks
  floor           what always answering the commonest value would score
  cloze_rank_floor  mean rank if the choices were ordered by how common they are
"""

import json
import re
from collections import Counter
from pathlib import Path
from statistics import fmean

GROUPS = {True: "heldout", False: "seen"}


def items(rows: list[dict], path: Path) -> list[dict]:
    """What was asked of each row, and `stated`, `right` and `rank` of its answer; path: the table, for what is wrong in it."""
    return [_item(row, path) for row in rows]


def _item(row: dict, path: Path) -> dict:
    facts = json.loads(row["probe"])
    cloze = row["cloze"] or []
    if cloze and len(cloze) != len(facts["choices"]):
        found = f"{len(cloze)} cloze values for {len(facts['choices'])} choices"
        raise ValueError(f"{path}, row {row['id']}: {found}; delete it and run `snakemake --cores all {path}` again")
    stated = stated_values(row["hypothesis"], facts["choices"])
    rank = cloze_rank(cloze, facts["choices"].index(facts["value"])) if cloze else None
    return facts | {"stated": bool(stated), "right": stated == {facts["value"]}, "rank": rank}


def measures(items: list[dict]) -> list[dict]:
    """Every measure for every attribute, seen and held-out nouns apart."""
    scores = []
    for attribute in sorted({item["attribute"] for item in items}):
        for held_out, group in GROUPS.items():
            chosen = [item for item in items if (item["attribute"], item["held_out"]) == (attribute, held_out)]
            for name, value in _measures(chosen).items() if chosen else ():
                signature = f"{name}|attribute:{attribute}|nouns:{group}|n:{len(chosen)}"
                score = {"metric": f"{attribute}_{name}_{group}", "value": value, "n_test": len(chosen)}
                scores.append(score | {"signature": signature})
    return scores


def stated_values(reply: str, choices: list[str]) -> set[str]:
    """The choices that stand in the reply as whole words, whatever their case."""
    return {value for value in choices if re.search(rf"\b{re.escape(value)}\b", reply, flags=re.IGNORECASE)}


def cloze_rank(nll: list[float], right: int) -> float:
    """Rank of the right choice by NLL, 1 = lowest; equal ones share the mean of their ranks."""
    lower = sum(value < nll[right] for value in nll)
    equal = sum(value == nll[right] for value in nll)
    return lower + (equal + 1) / 2


def _measures(items: list[dict]) -> dict[str, float]:
    common = Counter(item["value"] for item in items)
    choices = items[0]["choices"]
    by_count = {value: cloze_rank([-common[v] for v in choices], i) for i, value in enumerate(choices)}
    stated = [item["right"] for item in items if item["stated"]]
    ranks = [item["rank"] for item in items if item["rank"] is not None]
    values = {
        "stated": fmean(item["stated"] for item in items),
        "accuracy": fmean(stated) if stated else None,
        "accuracy_all": fmean(item["right"] for item in items),
        "cloze_accuracy": fmean(rank == 1 for rank in ranks) if ranks else None,
        "cloze_rank": fmean(ranks) if ranks else None,
        "floor": max(common.values()) / len(items),
        "cloze_rank_floor": fmean(by_count[item["value"]] for item in items),
    }
    return {name: value for name, value in values.items() if value is not None}
