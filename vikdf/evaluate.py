"""Scores of one system's answers: the metrics of Table 1 for each task, and the probe of the embedded world.

In: results/generate/X.parquet (RESPONSES), word vectors (a folder or a file, see vikdf/metrics/vectors.py), an encoder or none.
Out: results/evaluate/X.parquet (SCORES): one row a metric, each with its signature; results/evaluate/examples/X.parquet
(EXAMPLES): one row an answer, with the counts that the metrics are made of.
Run: python -m vikdf.evaluate --responses results/generate/X.parquet --vectors data/backbones/vectors --encoder \
         --output results/evaluate/X.parquet --output-examples results/evaluate/examples/X.parquet \
         --state-root state --tokenizer nltk
"""

from pathlib import Path

import numpy as np

from vikdf import examples as rows_of
from vikdf import flags, metrics, probe, schemas, shown
from vikdf.metrics import similarity
from vikdf.metrics import vectors as word_vectors

PROBE = "probe"
HEAD = ("system", "data", "images", "seed", "tuned_params")  # the same in every row of a task


def evaluate(
    *,
    responses: Path,
    vectors: Path,
    encoder: list[Path],
    output: Path,
    output_examples: Path,
    state_root: Path,
    tokenizer: str,
) -> None:
    """Scores one system's answers.

    responses: RESPONSES table of one system
    vectors: word vectors for Average, Extrema and Greedy: a folder or a file
    encoder: folder of a text encoder for the metric `similarity`; none: without that metric
    output: SCORES table
    output_examples: EXAMPLES table
    state_root: the folder `state`; the journal that feeds MLflow lies below it
    tokenizer: how BLEU, ROUGE-L and the embedding metrics cut words: nltk (as the paper) or space (as nlg-eval's input)
    """
    rows = schemas.read(responses, schemas.RESPONSES).to_pylist()
    if not rows:
        cure = f"delete it and run `snakemake --cores all {responses}` to make it again"
        raise ValueError(f"{responses} has no rows: {cure}")
    table, encoders = word_vectors.load(vectors), [similarity.load(folder) for folder in encoder]
    scores, each = [], []
    for task in sorted({row["task"] for row in rows}):
        asked = [row for row in rows if row["task"] == task]
        head = _head(asked, responses)
        if task == PROBE:
            items = probe.items(asked, responses)
            measured, lines = probe.measures(items), rows_of.probed(asked, items)
        else:
            answers = answers_of(asked, table, tokenizer, *encoders)
            lines, measured = rows_of.written(asked, answers), written(answers)
        scores += [head | measure | {"value": round(measure["value"], rows_of.DIGITS)} for measure in measured]
        each += lines
    schemas.write(each, output_examples, schemas.EXAMPLES)
    schemas.write(scores, output, schemas.SCORES)
    inputs = {"responses": responses, "vectors": vectors} | {f"encoder/{path.name}": path for path in encoder}
    tables = {"output": output, "examples": output_examples}
    shown.track(scores=scores, inputs=inputs, settings={"tokenizer": tokenizer}, **tables, state_root=state_root)


def _head(rows: list[dict], path: Path) -> dict:
    """What all rows of one task share."""
    heads = {tuple(row[name] for name in HEAD) for row in rows}
    if len(heads) > 1:
        raise ValueError(
            f"{path}, task {rows[0]['task']}: answers of several systems in one table: {sorted(heads)[:2]}"
        )
    return {name: rows[0][name] for name in ("task", *HEAD)}


def answers_of(rows: list[dict], vectors: word_vectors.Vectors, tokenizer: str, encoder=None) -> metrics.Answers:
    """The answers to one task; without NLL (a system behind an interface) they have no perplexities."""
    known = all(row["nll"] is not None for row in rows)
    return metrics.Answers(
        [row["hypothesis"] for row in rows],
        [[row["reference"] for row in rows]],
        nll=np.array([row["nll"] for row in rows]) if known else None,
        tokens=np.array([row["tokens"] for row in rows]) if known else None,
        vectors=vectors,
        encoder=encoder,
        tokenizer=tokenizer,
    )


def written(answers: metrics.Answers) -> list[dict]:
    """Every metric that the answers bring enough for."""
    scores = metrics.score(answers)
    return [{"metric": name, "n_test": len(answers)} | score._asdict() for name, score in scores.items()]


if __name__ == "__main__":
    flags.main(evaluate)
