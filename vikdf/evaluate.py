"""Scores of one system's answers: the metrics of Table 1 for each task, and the probe of the embedded world.

In: results/generate/X.parquet (RESPONSES), word vectors (a folder or a file, see vikdf/metrics/vectors.py).
Out: results/evaluate/X.parquet (SCORES): one row a metric, each with its signature.
Run: python -m vikdf.evaluate --responses results/generate/X.parquet --vectors data/backbones/vectors \
         --output results/evaluate/X.parquet --tokenizer nltk

The probe asks for one look of a noun. Its metrics are named <attribute>_<measure>_<heldout|seen>:
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

import numpy as np

from vikdf import flags, metrics, schemas
from vikdf.metrics import vectors as word_vectors

PROBE = "probe"
GROUPS = {True: "heldout", False: "seen"}
DIGITS = 9  # beyond these another CPU may differ; the files shall not


def evaluate(*, responses: Path, vectors: Path, output: Path, tokenizer: str) -> None:
    """Scores one system's answers.

    responses: RESPONSES table of one system
    vectors: word vectors for Average, Extrema and Greedy: a folder or a file
    output: SCORES table
    tokenizer: how BLEU, ROUGE-L and the embedding metrics cut words: nltk (as the paper) or space (as nlg-eval's input)
    """
    rows = schemas.read(responses, schemas.RESPONSES).to_pylist()
    if not rows:
        cure = f"delete it and run `snakemake --cores all {responses}` to make it again"
        raise ValueError(f"{responses} has no rows: {cure}")
    table = word_vectors.load(vectors)
    scores = []
    for task in sorted({row["task"] for row in rows}):
        asked = [row for row in rows if row["task"] == task]
        fixed = ("system", "data", "images", "seed", "tuned_params")
        heads = {tuple(row[name] for name in fixed) for row in asked}
        if len(heads) > 1:
            raise ValueError(f"{responses}, task {task}: answers of several systems in one table: {sorted(heads)[:2]}")
        head = {"task": task} | {name: asked[0][name] for name in fixed}
        measured = probe(asked, responses) if task == PROBE else written(asked, table, tokenizer)
        scores += [head | measure | {"value": round(measure["value"], DIGITS)} for measure in measured]
    schemas.write(scores, output, schemas.SCORES)


def written(rows: list[dict], vectors: word_vectors.Vectors, tokenizer: str) -> list[dict]:
    """All metrics of the answers to one task; without NLL (a system behind an interface) no perplexities."""
    known = all(row["nll"] is not None for row in rows)
    answers = metrics.Answers(
        [row["hypothesis"] for row in rows],
        [[row["reference"] for row in rows]],
        nll=np.array([row["nll"] for row in rows]) if known else None,
        tokens=np.array([row["tokens"] for row in rows]) if known else None,
        vectors=vectors,
        tokenizer=tokenizer,
    )
    scores = metrics.score(answers)
    return [{"metric": name, "n_test": len(rows)} | score._asdict() for name, score in scores.items()]


def probe(rows: list[dict], path: Path) -> list[dict]:
    """Every measure for every attribute, seen and held-out nouns apart."""
    items = [_item(row, path) for row in rows]
    scores = []
    for attribute in sorted({item["attribute"] for item in items}):
        for held_out, group in GROUPS.items():
            chosen = [item for item in items if (item["attribute"], item["held_out"]) == (attribute, held_out)]
            for name, value in _measures(chosen).items() if chosen else ():
                signature = f"{name}|attribute:{attribute}|nouns:{group}|n:{len(chosen)}"
                score = {"metric": f"{attribute}_{name}_{group}", "value": value, "n_test": len(chosen)}
                scores.append(score | {"signature": signature})
    return scores


def _item(row: dict, path: Path) -> dict:
    facts = json.loads(row["probe"])
    cloze = row["cloze"] or []
    if cloze and len(cloze) != len(facts["choices"]):
        found = f"{len(cloze)} cloze values for {len(facts['choices'])} choices"
        raise ValueError(f"{path}, row {row['id']}: {found}; delete it and run `snakemake --cores all {path}` again")
    stated = stated_values(row["hypothesis"], facts["choices"])
    rank = cloze_rank(cloze, facts["choices"].index(facts["value"])) if cloze else None
    return facts | {"stated": bool(stated), "right": stated == {facts["value"]}, "rank": rank}


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


if __name__ == "__main__":
    flags.main(evaluate)
