"""The rows of EXAMPLES: each answer with what every metric is made of, for statistics, reports and whoever looks for a case.

In: RESPONSES rows of one task, their metrics.Answers, or the probe's items. Out: EXAMPLES rows in the same order.
Sums of `correct`, `guess`, `hypothesis_words` and `reference_words` over any rows give their BLEU, means of the shares their
ROUGE-L, Average, Extrema and Greedy, sums of `nll`, `tokens` and `words` their perplexities. Used by vikdf.evaluate and
vikdf.score.
"""

import numpy as np

from vikdf import metrics

DIGITS = 9  # beyond these another CPU may differ; the files shall not
HEAD = ("id", "task", "system", "data", "seed", "context", "reference", "hypothesis", "nll", "tokens")
COUNTS = ("correct", "guess", "hypothesis_words", "reference_words")
SHARES, VECTORS, ENCODER = ("rouge_l", "rouge_l_f1"), ("average", "extrema", "greedy"), ("similarity",)


def written(rows: list[dict], answers: metrics.Answers) -> list[dict]:
    """Rows of a task that is scored by what was written."""
    columns = {name: answers.each(name).tolist() for name in COUNTS}
    shares = [*SHARES, *(VECTORS if answers.vectors is not None else ()), *(ENCODER if answers.encoder else ())]
    columns |= {name: np.round(answers.each(name), DIGITS).tolist() for name in shares}
    with_what = answers.scored_with
    return [
        _head(row) | {"scored_with": with_what} | {name: column[i] for name, column in columns.items()}
        for i, row in enumerate(rows)
    ]


def probed(rows: list[dict], items: list[dict]) -> list[dict]:
    """Rows of the probe: what was asked and whether it was told, in place of the scores of what was written."""
    facts = [{name: item[name] for name in ("noun", "attribute", "held_out", "stated", "right")} for item in items]
    ranks = [{"cloze_rank": item["rank"]} for item in items]
    return [_head(row) | fact | rank for row, fact, rank in zip(rows, facts, ranks, strict=True)]


def _head(row: dict) -> dict:
    return {name: row[name] for name in HEAD} | {"words": len(row["reference"].split())}
