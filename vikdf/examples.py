"""The rows of EXAMPLES: each answer with what every metric is made of, for statistics, reports and whoever looks for a case.

In: RESPONSES rows of one task, their metrics.Answers, or the probe's items. Out: EXAMPLES rows in the same order.
Sums of `correct`, `guess`, `hypothesis_words` and `reference_words` over any rows give their BLEU, means of the shares their
ROUGE-L, Average, Extrema and Greedy, sums of `nll`, `tokens` and `words` their perplexities. Used by vikdf.evaluate and
vikdf.score.
"""

import numpy as np

from vikdf import metrics
from vikdf.metrics import bleu, embedding, rouge, similarity

DIGITS = 9  # beyond these another CPU may differ; the files shall not
HEAD = ("id", "task", "system", "data", "seed", "context", "reference", "hypothesis", "nll", "tokens")


def written(rows: list[dict], answers: metrics.Answers) -> list[dict]:
    """Rows of a task that is scored by what was written."""
    counts = bleu.bleu_counts(answers)
    columns = {
        "correct": counts.correct.astype(int).tolist(),
        "guess": counts.guess.astype(int).tolist(),
        "hypothesis_words": counts.hypothesis.tolist(),
        "reference_words": counts.reference.tolist(),
    }
    columns |= {name: np.round(values, DIGITS).tolist() for name, values in _shares(answers).items()}
    return [_head(row) | {name: column[i] for name, column in columns.items()} for i, row in enumerate(rows)]


def _shares(answers: metrics.Answers) -> dict[str, np.ndarray]:
    """Name -> [N], 0 to 1: what each example scores on its own."""
    shares = {"rouge_l": rouge.rouge_l_each(answers, beta=1.2), "rouge_l_f1": rouge.rouge_l_each(answers, beta=1)}
    if answers.vectors is not None:
        shares["average"] = embedding.average_each(answers)
        shares["extrema"] = embedding.extrema_each(answers)
        shares["greedy"] = embedding.greedy_each(answers)
    if answers.encoder is not None:
        shares["similarity"] = similarity.similarity_each(answers)
    return shares


def probed(rows: list[dict], items: list[dict]) -> list[dict]:
    """Rows of the probe: what was asked and whether it was told, in place of the scores of what was written."""
    facts = [{name: item[name] for name in ("noun", "attribute", "held_out", "stated", "right")} for item in items]
    ranks = [{"cloze_rank": item["rank"]} for item in items]
    return [_head(row) | fact | rank for row, fact, rank in zip(rows, facts, ranks, strict=True)]


def _head(row: dict) -> dict:
    return {name: row[name] for name in HEAD} | {"words": len(row["reference"].split())}
