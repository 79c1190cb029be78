"""The order of the data is a function of seed and epoch, f(seed, epoch); where a run stands in it is (epoch, position).

In: the number of rows, a batch size, a seed, and the rows' sizes where batches of like length are wanted. Out: batches of
(epoch, row), from any (epoch, position) on, without end.
Nothing else decides the order: not the number of loader workers or processes, not what ran before. So a run that goes
on from (epoch, position) sees exactly the batches that it would have seen. Used by vikdf.loop.
"""

from collections.abc import Iterator

import numpy as np

POOL = (
    100  # batches sorted together: few enough that a batch's company changes with the epoch, see benchmarks/padding.py
)


def order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """The rows of one epoch in their order."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def order_by_size(sizes: list[int], batch: int, seed: int, epoch: int) -> np.ndarray:
    """The rows of one epoch, batch after batch, like sizes in a batch: what is computed is then hardly padding.

    The shuffled rows are cut into pools, a pool is sorted (equal sizes stay shuffled) and cut into batches, and all
    batches are shuffled. What does not fill a batch is dropped before, so that it is no matter of size.
    """
    random = np.random.default_rng([seed, epoch])
    rows = random.permutation(len(sizes))
    rows = rows[: len(rows) // batch * batch]
    pools = (rows[start : start + POOL * batch] for start in range(0, len(rows), POOL * batch))
    sizes = np.asarray(sizes)
    sorted_rows = np.concatenate([pool[np.argsort(sizes[pool], kind="stable")] for pool in pools])
    return random.permutation(sorted_rows.reshape(-1, batch)).ravel()


def draw(choices: int, seed: int, epoch: int, row: int) -> int:
    """Which of a row's choices (its captions) this epoch draws: the same for any batch size, worker or process."""
    return int(np.random.default_rng([seed, epoch, row, 1]).integers(choices))


def lot(seed: int, epoch: int, row: int) -> int:
    """The seed of what is drawn for this row (masks, prompts): a function of its place too."""
    return int(np.random.default_rng([seed, epoch, row, 2]).integers(2**62))


def derangement(rows: int, seed: int) -> np.ndarray:
    """A permutation without a fixed point, by Sattolo's walk: one cycle through all rows, so no row keeps its place."""
    if rows < 2:
        raise ValueError(f"{rows} row cannot change places with another: at least two rows are needed to shuffle pairs")
    random, places = np.random.default_rng(seed), np.arange(rows)
    for i in range(rows - 1, 0, -1):
        j = random.integers(i)
        places[i], places[j] = places[j], places[i]
    return places


def split(rows: int, held_back: int, seed: int) -> tuple[list[int], list[int]]:
    """Rows to train on and rows held back for the scores: at most a tenth of all."""
    if rows < 10:
        raise ValueError(
            f"the shards hold {rows} image-text pairs, but at least 10 are needed, as a tenth is held back for the scores: "
            "name more under `sources.corpora` in params.yaml, or let `filter` drop less, and repeat the command of the run"
        )
    places = order(rows, seed, 0).tolist()
    held = min(held_back, rows // 10)
    return sorted(places[held:]), sorted(places[:held])


class Batches:
    """A batch sampler that starts anywhere and never ends; what does not fill a batch is left out of its epoch.

    Each process takes its share of every batch, one stretch of it: with `sizes` (one a row) that is like with like too.
    A set smaller than a batch is one batch.
    """

    def __init__(
        self,
        rows: int,
        batch: int,
        seed: int,
        epoch: int = 0,
        position: int = 0,
        rank: int = 0,
        processes: int = 1,
        sizes: list[int] | None = None,
    ):
        if rows < processes:
            raise ValueError(f"{rows} rows to train on, but {processes} processes: give at least one row to each")
        if sizes is not None and len(sizes) != rows:
            raise ValueError(f"{len(sizes)} sizes for {rows} rows: expected one a row")
        self.rows, self.seed, self.sizes = rows, seed, sizes
        self.batch = min(batch, rows // processes * processes)  # every process has as many rows as the others
        self.epoch, self.position, self.rank, self.processes = epoch, position, rank, processes

    def order(self, epoch: int) -> np.ndarray:
        if self.sizes is None:
            return order(self.rows, self.seed, epoch)
        return order_by_size(self.sizes, self.batch, self.seed, epoch)

    def after(self, epoch: int, position: int) -> tuple[int, int]:
        """Where a run stands after the batch that begins at (epoch, position)."""
        position += self.batch
        return (epoch, position) if position + self.batch <= self.rows else (epoch + 1, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, position, rows = self.epoch, self.position, self.order(self.epoch)
        while True:
            share = np.array_split(rows[position : position + self.batch], self.processes)[self.rank]
            yield [(epoch, int(row)) for row in share]
            following, position = self.after(epoch, position)
            if following != epoch:
                epoch, rows = following, self.order(following)
