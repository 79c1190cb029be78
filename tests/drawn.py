"""EXAMPLES tables of systems that are random numbers: what the statistics are tried on, since there the truth is known.

table(texts(random, 100), rouge_l=random.random(100))   one system and seed; what is not given is constant
of_rows({"a": [tables of its seeds], "b": [...]})       what statistics.corpus.written takes
"""

import numpy as np
import pyarrow as pa

from vikdf import schemas
from vikdf.metrics.bleu import ORDERS

WORDS = 300


def texts(random, size: int, steep: float = 1.0, words: int = WORDS) -> list[str]:
    """Answers of 4 to 12 words, the k-th word as frequent as k ** -steep: as words are."""
    shares = 1 / np.arange(1, words + 1) ** steep
    lengths = random.integers(4, 13, size)
    drawn = np.searchsorted(np.cumsum(shares / shares.sum())[:-1], random.random(lengths.sum()))
    ends = np.cumsum(lengths)[:-1]
    return [" ".join(f"w{number}" for number in part) for part in np.split(drawn, ends)]


def table(hypotheses: list[str], task="reddit", system="vikdf", data="zero", seed=1, **columns) -> pa.Table:
    size = len(hypotheses)
    fixed = {name: [None] * size for name in schemas.EXAMPLES.names}
    fixed |= {"id": [f"{number:06}" for number in range(size)], "task": [task] * size, "system": [system] * size}
    fixed |= {"data": [data] * size, "seed": [seed] * size, "context": [[]] * size, "reference": ["one"] * size}
    ones, zeros = np.ones(size, dtype=int), np.zeros(size)
    fixed |= {"hypothesis": hypotheses, "words": ones, "tokens": ones, "nll": zeros, "hypothesis_words": ones}
    fixed |= {"reference_words": ones, "correct": [[0] * ORDERS] * size, "guess": [[1] * ORDERS] * size}
    fixed |= {name: zeros for name in ("rouge_l", "rouge_l_f1", "average", "extrema", "greedy")}
    fixed |= columns
    return pa.table({field.name: pa.array(fixed[field.name], field.type) for field in schemas.EXAMPLES})


def of_rows(rows: dict[str, list[pa.Table]]) -> dict:
    return {(name, "zero"): dict(enumerate(seeds, 1)) for name, seeds in rows.items()}


def answers(random, size: int, **more) -> pa.Table:
    """A system of which every metric is random."""
    words = random.integers(3, 12, size)
    tokens = random.integers(3, 15, size)
    guess = np.maximum(words[:, None] - np.arange(ORDERS), 0)
    columns = {name: random.beta(2, 3, size) for name in ("rouge_l", "average", "extrema", "greedy")}
    columns |= {"guess": list(guess), "correct": list(random.binomial(guess, 0.4)), "hypothesis_words": words}
    columns |= {"reference_words": random.integers(3, 12, size), "tokens": tokens, "nll": random.gamma(tokens, 1.5)}
    return table(**{"hypotheses": texts(random, size)} | columns | more)


def question(number: int, noun: str, right: bool, stated=True, rank=1.0, held_out=True, attribute="color") -> dict:
    """A row of the probe."""
    head = {"id": f"p{number:05}", "task": "probe", "reference": "it is red.", "hypothesis": "it is."}
    head |= {"noun": noun, "attribute": attribute, "held_out": held_out, "stated": stated, "right": right}
    return dict.fromkeys(schemas.EXAMPLES.names) | head | {"cloze_rank": rank}


def questions(rows: list[dict], system="vikdf", seed=1) -> pa.Table:
    full = [row | {"system": system, "data": "zero", "seed": seed} for row in rows]
    return pa.Table.from_pylist(full, schema=schemas.EXAMPLES)
