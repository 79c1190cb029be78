"""The table of metrics: name -> function; each score carries its signature.

    answers = Answers(hypotheses, [references], nll=nll, tokens=tokens, vectors=vectors)
    score(answers)  ->  {"ppl": Score(12.3, "ppl|eos:counted|n:500|..."), "bleu1": ...}
    answers.each("rouge_l")  ->  [N] what each item adds to it

To add a metric: one function of Answers under `@metric(...)` in a file of this folder. What it counts of each item is made
under `@piece(...)`, for some items at a time: only the sums are kept, so that memory stays flat however many answers there are.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vikdf import __version__
from vikdf.metrics.vectors import Vectors
from vikdf.metrics.words import BLOCK, TOKENIZERS, Ragged, Vocabulary, blocks, encode, tokenizer_signature

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


@dataclass(frozen=True)
class Piece:
    function: Callable[["Block"], dict[str, np.ndarray]]  # name -> [n, ...], a row an item
    needs: str  # as a metric's


METRICS: dict[str, Metric] = {}
PIECES: list[Piece] = []


def metric(name: str, needs: str = "", words: bool = True, **settings) -> Callable:
    """Puts the function into METRICS; `settings` stand in the signature as key:value, a value may be asked of the answers."""

    def put(function: Callable[["Answers"], float]) -> Callable[["Answers"], float]:
        METRICS[name] = Metric(name, function, needs, words, settings)
        return function

    return put


def piece(needs: str = "") -> Callable:
    """Puts a function into PIECES: what several metrics are made of is made once, in one pass over the items."""

    def put(function: Callable[["Block"], dict[str, np.ndarray]]) -> Callable[["Block"], dict[str, np.ndarray]]:
        PIECES.append(Piece(function, needs))
        return function

    return put


class Block:
    """Some of the items, as the pieces read them."""

    def __init__(self, answers: "Answers", items: range):
        self.answers, self.cut = answers, slice(items.start, items.stop)

    def _words(self, texts: Sequence[str]) -> Ragged:
        return encode(texts[self.cut], TOKENIZERS[self.answers.tokenizer], self.answers.vocabulary)

    @cached_property
    def hypothesis_words(self) -> Ragged:
        return self._words(self.answers.hypotheses)

    @cached_property
    def reference_words(self) -> list[Ragged]:
        return [self._words(column) for column in self.answers.references]


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
        self.hypotheses, self.references = hypotheses, references  # as given: a copy would grow with their number
        self.nll, self.tokens, self.vectors, self.tokenizer = nll, tokens, vectors, tokenizer
        self.encoder, self.kept = encoder, kept
        self.vocabulary = Vocabulary()
        self.memo: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.hypotheses)

    def remember(self, name: str, make: Callable[[], Any]) -> Any:
        """What several metrics share is made once."""
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

    def has(self, needs: str) -> bool:
        return not needs or getattr(self, needs) is not None

    def _pass(self, keep: bool) -> None:
        """Block by block every piece that the answers bring enough for; their sums, and on demand the pieces themselves."""
        sums: dict[str, Any] = {}
        kept: dict[str, list[np.ndarray]] = {}
        chosen = [piece for piece in PIECES if self.has(piece.needs)]
        for items in blocks(len(self), BLOCK, "scores"):
            block = Block(self, items)
            for name, values in (pair for piece in chosen for pair in piece.function(block).items()):
                sums[name] = sums.get(name, 0) + values.sum(axis=0)
                if keep:
                    kept.setdefault(name, []).append(values)
        self.memo["sums"] = sums
        if keep:
            self.memo["each"] = {name: np.concatenate(parts) for name, parts in kept.items()}

    def sum(self, name: str) -> Any:
        """A piece summed over all items."""
        if "sums" not in self.memo:
            self._pass(keep=False)
        return self.memo["sums"][name]

    def mean(self, name: str) -> float:
        return self.sum(name) / len(self)

    def each(self, name: str) -> np.ndarray:
        """[N, ...] a piece of each item. Ask for these before score() where both are wanted: then one pass makes both."""
        if "each" not in self.memo:
            self._pass(keep=True)
        return self.memo["each"][name]

    @property
    def scored_with(self) -> str:
        """What two systems must have in common, so that their numbers may be compared."""
        tables = [each.signature for each in (self.vectors, self.encoder) if each is not None]
        return "|".join([tokenizer_signature(self.tokenizer), *tables, f"refs:{len(self.references)}"])

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
    chosen = [metric for metric in METRICS.values() if answers.has(metric.needs)]
    return {metric.name: Score(float(metric.function(answers)), answers.signature(metric)) for metric in chosen}
