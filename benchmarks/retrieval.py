"""Looking pictures up: the index of Maria and ZRIGF (FAISS) against numpy, at as many vectors as theirs hold.

Unit vectors around common middles, as pictures of common things lie; queries are some of them, disturbed. The plain form
multiplies with every vector and takes the largest. Both must find the same pictures; the index of cells finds a share of them.
What a trained retriever finds of the world's held-back pairs stands in the metrics.json of its pretraining, and is shown where
that lies. The last line is the index of cells, which the paper preset names, against numpy; figures are queries a CPU second.
Run: python -m benchmarks.retrieval
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from vikdf import files, flags
from vikdf.baselines.parts.index import Index

MIDDLES = 2000  # things that pictures show


def drawn(rows: int, width: int, seed: int) -> np.ndarray:
    """Unit vectors [rows, width]; made in parts, so that no more than they themselves lie in memory."""
    random = np.random.default_rng(seed)
    middles = random.normal(size=(MIDDLES, width)).astype(np.float32)
    made = np.empty((rows, width), np.float32)
    for start in range(0, rows, 10000):
        part = middles[random.integers(MIDDLES, size=len(made[start : start + 10000]))]
        part = part + random.normal(size=part.shape).astype(np.float32)
        made[start : start + 10000] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return made


def by_numpy(vectors: np.ndarray, queries: np.ndarray, top: int) -> np.ndarray:
    scores = queries @ vectors.T  # [Q, N]
    places = np.argpartition(-scores, top, axis=1)[:, :top]
    order = np.argsort(-np.take_along_axis(scores, places, axis=1), axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1)


def measure(search: Callable[[], np.ndarray], queries: int, rounds: int) -> float:
    """Queries a CPU second, by the median round."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        search()
        seconds.append(time.process_time() - start)
    return queries / median(seconds)


def tell_learned(results: Path) -> None:
    """What the retrievers of a run find of pairs that they never saw."""
    for path in sorted(results.glob("*/metrics.json")):
        found = files.read_json(path)
        if "recall_at_1" in found:
            told = ", ".join(f"{name} {found[name]:.3f}" for name in sorted(found) if name.startswith("recall"))
            print(f"{path.parent}: {told} of {found['held_back']} held-back pairs")


def main(
    *,
    vectors: int = 500_000,
    width: int = 512,
    queries: int = 64,
    top: int = 3,
    lists: int = 1024,
    probes: int = 64,
    rounds: int = 3,
    results: Path = Path("results/pretrain"),
) -> None:
    """Measures looking pictures up by FAISS against numpy.

    vectors: pictures in the index
    width: of a vector
    queries: asked at once
    top: pictures that each query gets
    lists: cells of the index of cells
    probes: cells that it looks into
    rounds: repetitions; the medians count
    results: where trained retrievers lie
    """
    tell_learned(results)
    pictures, names = drawn(vectors, width, 1), [str(place) for place in range(vectors)]
    asked = pictures[:: max(1, vectors // queries)][:queries]
    asked = asked + np.random.default_rng(2).normal(size=asked.shape).astype(np.float32) / width**0.5 / 2
    start = time.process_time()
    flat = Index.build(names, pictures)
    print(f"flat: built of {vectors} vectors of {width} in {time.process_time() - start:.1f} CPU s")
    right = by_numpy(pictures, asked, top)
    same = (flat.search(asked, top)[0] == right).mean()
    assert same > 0.99, same  # numpy adds in single precision, so the last of nearly equal ones may differ
    ours = measure(lambda: flat.search(asked, top)[0], queries, rounds)
    plain = measure(lambda: by_numpy(pictures, asked, top), queries, rounds)
    print(f"flat: {ours / plain:.2f}x  ours {ours:.0f} queries a CPU second, {same:.3f} as numpy")
    start = time.process_time()
    cells = Index.build(names, pictures, "ivf", lists=lists, probes=probes)
    print(f"ivf: built of {lists} cells in {time.process_time() - start:.1f} CPU s")
    found = (cells.search(asked, top)[0][:, :1] == right[:, :1]).mean()
    ours = measure(lambda: cells.search(asked, top)[0], queries, rounds)
    print(f"ivf: {found:.3f} of the nearest pictures found, {probes} cells looked into")
    print(f"retrieval {ours / plain:.2f}x  ours {ours:.0f}  plain {plain:.0f} queries a CPU second")


if __name__ == "__main__":
    flags.main(main)
