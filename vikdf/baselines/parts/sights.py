"""Pictures as a ViT of transformers reads them, one by one or by their place in an index.

    eye = Eye.load("data/backbones/vit")
    pixels = eye.normal(eye.prepare(picture)[None])                    # [1, 3, S, S], normalised
    sights = Sights(Shards(folder), index.names, eye); sights([4, 0])  # [2, 3, S, S] of those pictures, uint8

In: a ViT's folder (its preprocessor's mean and deviation, its config's side), shards. A prepared picture is kept in bytes,
a quarter of the memory of numbers, so that it is decoded once. S side of the ViT's picture.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vikdf.baselines.parts import index
from vikdf.model import pretrained

KEPT = 2**29  # bytes of prepared pictures that stay in memory: 3,500 of 224 pixels a side


class Eye:
    """The short side at S, bicubic, and the middle of the picture: nothing is drawn at random."""

    def __init__(self, pixels: int, mean: list[float], deviation: list[float]):
        self.pixels = pixels
        self.mean, self.deviation = (torch.tensor(x).view(3, 1, 1) for x in (mean, deviation))

    @classmethod
    def load(cls, folder: Path) -> "Eye":
        from transformers import AutoConfig, AutoImageProcessor

        side = pretrained.read(AutoConfig, folder).image_size
        processor = pretrained.read(AutoImageProcessor, folder)
        return cls(side if isinstance(side, int) else side[0], processor.image_mean, processor.image_std)

    def prepare(self, picture) -> Tensor:
        from PIL import Image, ImageOps

        square = (self.pixels, self.pixels)
        picture = picture.convert("RGB")
        if picture.size != square:
            picture = ImageOps.fit(picture, square, method=Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()  # [3, S, S], uint8

    def normal(self, pixels: Tensor) -> Tensor:
        """[..., 3, S, S] of bytes -> normalised."""
        return (pixels.float() / 255 - self.mean.to(pixels.device)) / self.deviation.to(pixels.device)


class Sights:
    """The prepared pictures of an index by their place in it; the latest stay in memory."""

    def __init__(self, shards, names: list[str], eye: Eye):
        self.shards, self.rows, self.eye, self.kept = shards, index.rows_of(shards, names), eye, {}
        self.room = max(1, KEPT // (3 * eye.pixels**2))

    def __call__(self, places: list[int]) -> Tensor:
        return torch.stack([self._one(place) for place in places])  # [N, 3, S, S], uint8

    def _one(self, place: int) -> Tensor:
        if place not in self.kept:
            if len(self.kept) >= self.room:
                self.kept.pop(next(iter(self.kept)))  # the oldest
            self.kept[place] = self.eye.prepare(self.shards[self.rows[place]]["image"])
        return self.kept[place]
