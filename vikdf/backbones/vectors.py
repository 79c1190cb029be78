"""Word vectors for Average, Extrema and Greedy, trained on a plain text: PPMI of neighbours, then its SVD.

In: a text, one document a line, its turns apart by tabs. Out: a folder with vectors.npy [V, width] float32, words.txt
(one word a row, commonest first) and about.json (the name that stands in the metrics' signatures).
Words are cut as the metrics cut them: lower case, NLTK's word tokenizer. The whole V x V table is held, so this is for
texts of some thousand different words; with real text use published vectors.
"""

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from vikdf import files

DECIMALS = 4  # what another CPU's last bits cannot reach: the same bytes everywhere


def train(*, texts: Path, width: int, window: int, seed: int, output: Path) -> dict:
    """Vectors of `width` numbers from neighbours at most `window` words apart. Nothing is drawn: any seed will do."""
    from nltk.tokenize import NLTKWordTokenizer

    cut = cache(NLTKWordTokenizer().tokenize)  # turns and captions come again and again
    lines = Counter(line for line in Path(texts).read_text(encoding="utf-8").lower().splitlines() if line.strip())
    documents = [([word for turn in line.split("\t") for word in cut(turn)], count) for line, count in lines.items()]
    frequency = Counter()
    for document, count in documents:
        frequency.update({word: times * count for word, times in Counter(document).items()})
    words = sorted(frequency, key=lambda word: (-frequency[word], word))
    if len(words) < width:
        raise ValueError(f"{texts} has {len(words)} different words, too few for vectors of width {width}")
    vectors = _axes(_ppmi(_neighbours(documents, words, window)), width)
    np.save(output / "vectors.npy", vectors.round(DECIMALS).astype(np.float32) + 0)  # + 0: no minus zero
    (output / "words.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    files.write_json(output / "about.json", {"name": f"ppmi-svd-{width}-window-{window}"})
    return {"words": len(words)}


def _neighbours(documents: list[tuple[list[str], int]], words: list[str], window: int) -> np.ndarray:
    """[V, V]: how often two words stand at most `window` words apart in a document; both orders."""
    place = {word: row for row, word in enumerate(words)}
    flat = np.array([place[word] for document, _ in documents for word in document])
    owner = np.repeat(np.arange(len(documents)), [len(document) for document, _ in documents])
    times = np.array([count for _, count in documents])
    table = np.zeros(len(words) ** 2)
    for step in range(1, window + 1):
        near = owner[step:] == owner[:-step]
        pairs = flat[:-step][near] * len(words) + flat[step:][near]
        table += np.bincount(pairs, weights=times[owner[step:][near]], minlength=len(table))
    table = table.reshape(len(words), len(words))
    return table + table.T


def _ppmi(counts: np.ndarray) -> np.ndarray:
    """Positive pointwise mutual information: how much oftener two words meet than by chance, as a logarithm."""
    sums = counts.sum(axis=1)
    chance = np.outer(sums, sums) / sums.sum()
    ratio = np.divide(counts, chance, out=np.ones_like(counts), where=counts > 0)
    return np.maximum(np.log(ratio), 0)


def _axes(table: np.ndarray, width: int) -> np.ndarray:
    """[V, width]: the strongest axes, each weighted by the root of its strength; its largest entry is positive."""
    left, strength, _ = np.linalg.svd(table)
    axes = left[:, :width]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(width)])
    return axes * signs * np.sqrt(strength[:width])
