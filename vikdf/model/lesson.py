"""What a baseline learns from image-text pairs before it meets a dialogue: the form that vikdf.pretrain_baseline trains.

A batch: pictures [B, 3, S, S] as `prepare` makes them, captions (of each picture the one that this epoch draws), lots (a seed
a row, of masks and noise), keys. A Lesson is the objective of the one loop (vikdf/loop.py) and writes what it learned.
"""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn


class Lesson(nn.Module):
    def frozen(self) -> list[nn.Module]:
        """Parts whose untrained weights may be kept in half precision, see vikdf.place."""
        raise NotImplementedError

    def prepare(self, picture) -> Tensor:
        """A picture of Pillow, RGB -> [3, S, S]."""
        raise NotImplementedError

    def counts(self, batch: dict) -> dict[str, int]:
        """The targets of each loss, known before anything is computed."""
        raise NotImplementedError

    def forward(self, batch: dict, whole: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """What goes down, and by name each loss: this batch's sum over the targets of the `whole` step."""
        raise NotImplementedError

    def judge(self, batches: Iterator[dict]) -> dict[str, float]:
        """Scores on pairs that were held back; "validation" is what decides which state is kept: the lowest."""
        raise NotImplementedError

    def write(self, folder: Path, shards) -> None:
        """Saves what was learned, and what is made of it: an index over all pictures of the shards, if it retrieves."""
        raise NotImplementedError
