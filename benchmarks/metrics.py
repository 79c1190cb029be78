"""The metrics of Table 1: ours against plain per-sentence code, on the same random answers, interleaved, medians.

Two plain forms: the reference tool's method (for Average and Extrema it builds the cosines of all pairs and keeps the
diagonal; it cuts the words once more for the vectors) and the same code without the square matrix. Ours also makes what
stands beside the eight metrics (EAD, shares of empty and repeated answers, ROUGE-L F1); the plain forms do not.
Before that the memory curve: what ours allocates beside its input at a quarter, all, four and ten times the pairs. What may
grow is the set of distinct words and pairs of words, of which four in five are distinct at
20,000 answers, and of which a copy is made when they are merged, and eight bytes an answer.
Run: python -m benchmarks.metrics [--pairs 20000] [--rounds 3]; the last line gives the first ratio.
"""

import itertools
import math
import random
import re
import string
import sys
import time
import tracemalloc
from collections import Counter
from statistics import median

import numpy as np

from vikdf import flags, metrics
from vikdf.metrics import distinct, vectors, words

WIDTH, LEXICON = 300, 20000
SMALL, TINY = 1e-9, 1e-15


def data(pairs: int, seed: int = 0) -> tuple[list[str], list[str], vectors.Vectors]:
    """Answers and references of 3 to 22 words with a Zipf-like lexicon, and vectors for nine tenths of it."""
    rng = random.Random(seed)
    lexicon = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(LEXICON)]
    weights = list(itertools.accumulate(1 / (rank + 5) for rank in range(LEXICON)))

    def text() -> str:
        chosen = rng.choices(lexicon, cum_weights=weights, k=rng.randint(3, 22))
        place = rng.randrange(len(chosen))
        chosen[place] += rng.choice(["", "", "'s", ",", "n't"])
        return " ".join(chosen).capitalize() + rng.choice([".", "!", "?", "..."])

    known = list(dict.fromkeys(lexicon))[: LEXICON * 9 // 10]
    matrix = np.random.default_rng(seed).normal(size=(len(known), WIDTH)).astype(np.float32)
    mean = matrix.mean(axis=0, dtype=np.float64)
    table = vectors.Vectors("random", "0" * 64, {word: row for row, word in enumerate(known)}, matrix, mean)
    return [text() for _ in range(pairs)], [text() for _ in range(pairs)], table


def plain_bleu(hypotheses: list[list[str]], references: list[list[list[str]]], order: int) -> float:
    """references[i]: all of item i."""
    correct, guess, length, target = [0] * order, [0] * order, 0, 0
    for words_, refs in zip(hypotheses, references, strict=True):
        length += len(words_)
        target += min((abs(len(ref) - len(words_)), len(ref)) for ref in refs)[1]
        for n in range(order):
            grams = Counter(tuple(words_[i : i + n + 1]) for i in range(len(words_) - n))
            most: Counter = Counter()
            for ref in refs:
                most |= Counter(tuple(ref[i : i + n + 1]) for i in range(len(ref) - n))
            correct[n] += sum(min(count, most[gram]) for gram, count in grams.items())
            guess[n] += max(len(words_) - n, 0)
    value = math.prod((c + TINY) / (g + SMALL) for c, g in zip(correct, guess, strict=True)) ** (1 / order)
    ratio = (length + TINY) / (target + SMALL)
    return 100 * value * (math.exp(1 - 1 / ratio) if ratio < 1 else 1)


def plain_lcs(a: list, b: list) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        above = row
        row = [0]
        for j, y in enumerate(b):
            row.append(above[j] + 1 if x == y else max(above[j + 1], row[j]))
    return row[-1]


def plain_rouge_l(hypotheses: list[list[str]], references: list[list[list[str]]], beta: float = 1.2) -> float:
    scores = []
    for words_, refs in zip(hypotheses, references, strict=True):
        common = [plain_lcs(words_, ref) for ref in refs]
        p = max((c / len(words_) if words_ else 0.0) for c in common)
        r = max((c / len(ref) if ref else 0.0) for c, ref in zip(common, refs, strict=True))
        scores.append((1 + beta**2) * p * r / (r + beta**2 * p) if p and r else 0.0)
    return 100 * sum(scores) / len(scores)


def plain_distinct(texts: list[str], order: int) -> float:
    grams: Counter = Counter()
    for text in texts:
        text = "".join(" " if letter in string.punctuation else letter for letter in text.lower())
        kept = words_without_articles(text)
        grams.update(tuple(kept[i : i + order]) for i in range(len(kept) - order + 1))
    return 100 * len(grams) / grams.total() if grams else 0.0


def words_without_articles(text: str) -> list[str]:
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _unit(vector: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.divide(vector, norm, out=np.zeros_like(vector), where=norm > 0)


def _extreme(rows: np.ndarray) -> np.ndarray:
    high, low = rows.max(axis=0), rows.min(axis=0)
    return np.array([x if x > -y else y for x, y in zip(high, low, strict=True)])


def plain_embedding(
    hypotheses: list[list[str]], references: list[list[str]], table: vectors.Vectors, square: bool
) -> tuple[float, float, float]:
    """Average, Extrema, Greedy with one reference an item; `square`: cosines of all pairs for their diagonal."""

    def look(text: list[str]) -> np.ndarray:
        known = [table.place.get(word) for word in text]
        return np.array([table.mean if row is None else table.matrix[row].astype(np.float64) for row in known])

    sides: list[list[np.ndarray]] = [[], [], [], []]
    greedy = []
    for a, b in zip(hypotheses, references, strict=True):
        if not a or not b:
            for side in sides:
                side.append(np.zeros(table.matrix.shape[1]))
            greedy.append(0.0)
            continue
        x, y = look(a), look(b)
        for side, vector in zip(sides, (x.sum(axis=0), y.sum(axis=0), _extreme(x), _extreme(y)), strict=True):
            side.append(_unit(vector))
        cosines = _unit(x) @ _unit(y).T
        greedy.append((cosines.max(axis=1).mean() + cosines.max(axis=0).mean()) / 2)
    values = []
    for one, other in (sides[:2], sides[2:]):
        one, other = np.array(one), np.array(other)
        diagonal = (one @ other.T).diagonal() if square else np.einsum("nd,nd->n", one, other)
        values.append(100 * diagonal.mean())
    return values[0], values[1], 100 * sum(greedy) / len(greedy)


def plain(hypotheses: list[str], references: list[str], table: vectors.Vectors, square: bool) -> dict[str, float]:
    cut = [words.nltk_plain(text) for text in hypotheses]
    refs = [words.nltk_plain(text) for text in references]
    values = {f"bleu{order}": plain_bleu(cut, [[ref] for ref in refs], order) for order in (1, 2, 3, 4)}
    values["rouge_l"] = plain_rouge_l(cut, [[ref] for ref in refs])
    if square:  # the tool cuts its input again for the vectors
        cut, refs = ([words.nltk_plain(" ".join(text)) for text in side] for side in (cut, refs))
    values["average"], values["extrema"], values["greedy"] = plain_embedding(cut, refs, table, square)
    return values | {f"dis{order}": plain_distinct(hypotheses, order) for order in (1, 2)}


def ours(hypotheses: list[str], references: list[str], table: vectors.Vectors) -> dict[str, float]:
    words.forget()  # what was remembered in the round before would be a gift
    scored = metrics.score(metrics.Answers(hypotheses, [references], vectors=table))
    return {name: score.value for name, score in scored.items()}


def _timed(function, *arguments) -> tuple[float, dict[str, float]]:
    start = time.process_time()
    values = function(*arguments)
    return time.process_time() - start, values


def _peak(pairs: list[list[str]], table: vectors.Vectors) -> int:
    """Most bytes that ours held at a time beside its input; malloc's own traces, so that no earlier work counts."""
    words.forget()
    tracemalloc.start()
    metrics.score(metrics.Answers(pairs[0], [pairs[1]], vectors=table))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def memory(hypotheses: list[str], references: list[str], table: vectors.Vectors) -> None:
    """Prints the memory curve."""
    peaks, told = {}, {}
    for count in (len(hypotheses) // 40, len(hypotheses) // 10, len(hypotheses) * 4 // 10, len(hypotheses)):
        cut = [hypotheses[:count], references[:count]]
        peaks[count] = _peak(cut, table)
        texts = sum(sys.getsizeof(text) for side in cut for text in side)
        told[count] = max(8 * distinct.counts(side)[2][0] for side in cut)  # one side after the other
        print(
            f"memory: {count:,} pairs of {texts / 2**20:.1f} MiB: {peaks[count] / 2**20:.1f} MiB beside them, "
            f"{told[count] / 2**20:.1f} of it for distinct pairs of words",
            flush=True,
        )
    few, *_, many = sorted(peaks)
    more, words_ = ((sizes[many] - sizes[few]) / (many - few) for sizes in (peaks, told))
    print(f"memory: {more:.0f} bytes more a pair, {words_:.0f} of them for distinct pairs of words", flush=True)


def main(*, pairs: int = 20000, rounds: int = 3) -> None:
    """Times the metrics against plain code.

    pairs: answers and references
    rounds: repetitions; the medians count
    """
    hypotheses, references, table = data(10 * pairs)
    words.nltk_plain("a")  # the import is no part of it
    memory(hypotheses, references, table)
    hypotheses, references = hypotheses[:pairs], references[:pairs]
    middle = compare(hypotheses, references, table, rounds)
    less = middle["diagonal"]
    print(f"without the square matrix: {less / middle['ours']:.1f}x  plain {less:.2f} CPU s")
    ratio, figures = middle["square"] / middle["ours"], (middle["ours"], middle["square"])
    print(f"metrics {ratio:.1f}x  ours {figures[0]:.2f} CPU s  plain {figures[1]:.2f} CPU s")


def compare(hypotheses: list[str], references: list[str], table: vectors.Vectors, rounds: int) -> dict[str, float]:
    """Medians of CPU seconds of each form, one after the other in each round; different values end it."""
    times: dict[str, list[float]] = {"ours": [], "square": [], "diagonal": []}
    expected: dict[str, float] = {}
    for number in range(rounds):
        for name, function, extra in (("ours", ours, ()), ("square", plain, (True,)), ("diagonal", plain, (False,))):
            seconds, values = _timed(function, hypotheses, references, table, *extra)
            times[name].append(seconds)
            expected = values if name == "ours" else expected
            wrong = [key for key in values if abs(values[key] - expected[key]) > 1e-8 * max(1, abs(expected[key]))]
            if wrong:
                sys.exit(f"{name} and ours differ in {', '.join(wrong)}")
            print(f"round {number + 1}: {name} {seconds:.2f} CPU s", flush=True)
    return {name: median(values) for name, values in times.items()}


if __name__ == "__main__":
    flags.main(main)
