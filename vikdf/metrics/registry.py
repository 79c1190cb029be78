"""The table of metrics: name -> function; each score carries its signature.

    answers = Answers(hypotheses, [references], nll=nll, tokens=tokens, vectors=vectors)
    score(answers)  ->  {"ppl": Score(12.3, "ppl|eos:counted|n:500|..."), "bleu1": ...}

To add a metric: one function of Answers under `@metric(...)` in a file of this folder.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vikdf import __version__
from vikdf.metrics.vectors import Vectors
from vikdf.metrics.words import TOKENIZERS, Ragged, Vocabulary, encode, tokenizer_signature

if TYPE_CHECKING:  # it imports this file
    from vikdf.metrics.similarity import Encoder


class Score(NamedTuple):
    value: float
    signature: str


@dataclass(frozen=True)
class Metric:
    name: str
    function: Callable[["Answers"], float]
    needs: str  # "" | "nll" | "vectors" | "encoder": without it the metric is left out
    words: bool  # it counts the tokenizer's words, so that the tokenizer stands in its signature
    settings: dict[str, Any]


METRICS: dict[str, Metric] = {}


def metric(name: str, needs: str = "", words: bool = True, **settings) -> Callable:
    """Puts the function into METRICS; `settings` stand in the signature as key:value, a value may be asked of the answers."""

    def put(function: Callable[["Answers"], float]) -> Callable[["Answers"], float]:
        METRICS[name] = Metric(name, function, needs, words, settings)
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
        encoder: "Encoder | None" = None,
        kept: str = "all",  # which answers these are, for the signature
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
        self.encoder, self.kept = encoder, kept
        self.memo: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.hypotheses)

    def remember(self, name: str, make: Callable[[], Any]) -> Any:
        """What several metrics share (the counts of BLEU-1 to BLEU-4) is made once."""
        if name not in self.memo:
            self.memo[name] = make()
        return self.memo[name]

    def without(self, words: Sequence[str]) -> tuple["Answers", int]:
        """The pairs whose answer has none of the words in it, whatever its case; and how many were dropped.

        The paper's script drops answers so before it scores. A figure of these may stand beside that of all, with the count.
        """
        lowered = [word.lower() for word in words]
        keep = [i for i, text in enumerate(self.hypotheses) if not any(word in text.lower() for word in lowered)]
        if not keep:
            raise ValueError(f"each of the {len(self)} answers has one of {words} in it: nothing is left to score")
        dropped = len(self) - len(keep)
        rest = Answers(
            [self.hypotheses[i] for i in keep],
            [[column[i] for i in keep] for column in self.references],
            None if self.nll is None else self.nll[keep],
            None if self.tokens is None else self.tokens[keep],
            self.vectors,
            self.tokenizer,
            self.encoder,
            kept=f"without{json.dumps(list(words), ensure_ascii=False)},dropped:{dropped}",
        )
        return rest, dropped

    @cached_property
    def _encoded(self) -> tuple[Ragged, list[Ragged], Vocabulary]:
        vocabulary = Vocabulary()
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
    def vocabulary(self) -> Vocabulary:
        return self._encoded[2]

    def signature(self, metric: Metric) -> str:
        settings = {key: value(self) if callable(value) else value for key, value in metric.settings.items()}
        parts = [metric.name, *(f"{key}:{value}" for key, value in settings.items())]
        parts += [tokenizer_signature(self.tokenizer)] if metric.words else []
        parts += [self.vectors.signature] if metric.needs == "vectors" else []
        parts += [self.encoder.signature] if metric.needs == "encoder" else []
        parts += [f"refs:{len(self.references)}", f"answers:{self.kept}", f"n:{len(self)}", f"vikdf:{__version__}"]
        return "|".join(parts)


def score(answers: Answers) -> dict[str, Score]:
    """Every metric for which the answers bring what it needs, in the order of METRICS."""
    given = {"": True} | {name: getattr(answers, name) is not None for name in ("nll", "vectors", "encoder")}
    chosen = [metric for metric in METRICS.values() if given[metric.needs]]
    return {metric.name: Score(float(metric.function(answers)), answers.signature(metric)) for metric in chosen}
