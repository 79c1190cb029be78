"""The table of metrics: name -> function; each score carries its signature.

    answers = Answers(hypotheses, [references], nll=nll, tokens=tokens, vectors=vectors)
    score(answers)  ->  {"ppl": Score(12.3, "ppl|eos:counted|n:500|..."), "bleu1": ...}

To add a metric: one function of Answers under `@metric(...)` in a file of this folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from vikdf import __version__
from vikdf.metrics.vectors import Vectors
from vikdf.metrics.words import TOKENIZERS, Ragged, encode, tokenizer_signature


class Score(NamedTuple):
    value: float
    signature: str


@dataclass(frozen=True)
class Metric:
    name: str
    function: Callable[["Answers"], float]
    needs: str  # "" | "nll" | "vectors": without it the metric is left out
    words: bool  # it counts the tokenizer's words, so that the tokenizer stands in its signature
    settings: str


METRICS: dict[str, Metric] = {}


def metric(name: str, needs: str = "", words: bool = True, **settings) -> Callable:
    """Puts the function into METRICS; `settings` stand in the signature as key:value."""

    def put(function: Callable[["Answers"], float]) -> Callable[["Answers"], float]:
        text = "|".join(f"{key}:{value}" for key, value in settings.items())
        METRICS[name] = Metric(name, function, needs, words, text)
        return function

    return put


class Answers:
    """What is scored: N hypotheses, columns of N references each, and what goes with them.

    references[r][i] is the r-th reference of item i. An item with fewer references than others repeats one: every
    metric here takes the best or the largest over the references, so that a repeated one changes nothing.
    """

    def __init__(
        self,
        hypotheses: Sequence[str],
        references: Sequence[Sequence[str]],
        nll: np.ndarray | None = None,  # [N] summed over the tokens of the reference
        tokens: np.ndarray | None = None,  # [N]
        vectors: Vectors | None = None,
        tokenizer: str = "nltk",
    ):
        if not hypotheses:
            raise ValueError("no answers to score: at least one is needed")
        for column in references:
            if len(column) != len(hypotheses):
                raise ValueError(f"{len(hypotheses)} hypotheses but {len(column)} references: one line each is needed")
        if not references:
            raise ValueError("no references: at least one column of them is needed")
        if tokenizer not in TOKENIZERS:
            raise ValueError(f"tokenizer {tokenizer!r} is unknown: choose one of {', '.join(TOKENIZERS)}")
        self.hypotheses, self.references = list(hypotheses), [list(column) for column in references]
        self.nll, self.tokens, self.vectors, self.tokenizer = nll, tokens, vectors, tokenizer

    def __len__(self) -> int:
        return len(self.hypotheses)

    @cached_property
    def _encoded(self) -> tuple[Ragged, list[Ragged], dict[str, int]]:
        vocabulary: dict[str, int] = {}
        cut = TOKENIZERS[self.tokenizer]
        hypotheses = encode(self.hypotheses, cut, vocabulary)
        return hypotheses, [encode(column, cut, vocabulary) for column in self.references], vocabulary

    @property
    def hypothesis_words(self) -> Ragged:
        return self._encoded[0]

    @property
    def reference_words(self) -> list[Ragged]:
        return self._encoded[1]

    @property
    def vocabulary(self) -> dict[str, int]:
        return self._encoded[2]

    @cached_property
    def table(self) -> np.ndarray:
        """[V, d] vectors of the words that occur, in the order of their ids; unknown words have the mean vector."""
        return self.vectors.rows(list(self.vocabulary))

    @cached_property
    def memo(self) -> dict:
        """Counts that several metrics share (BLEU-1 to BLEU-4)."""
        return {}

    def signature(self, metric: Metric) -> str:
        parts = [metric.name, metric.settings]
        parts += [tokenizer_signature(self.tokenizer)] if metric.words else []
        parts += [self.vectors.signature] if metric.needs == "vectors" else []
        parts += [f"refs:{len(self.references)}", "answers:all", f"n:{len(self)}"]
        return "|".join(part for part in parts if part) + f"|vikdf:{__version__}"


def score(answers: Answers) -> dict[str, Score]:
    """Every metric for which the answers bring what it needs, in the order of METRICS."""
    there = {"": True, "nll": answers.nll is not None, "vectors": answers.vectors is not None}
    chosen = [metric for metric in METRICS.values() if there[metric.needs]]
    return {metric.name: Score(float(metric.function(answers)), answers.signature(metric)) for metric in chosen}
