"""Pictures of training dialogues as CLIP's vectors, for a system that sees them while it learns.

In: pictures.parquet (PICTURES) and the folder of a CLIP. Out: vectors by name. The table is read once, from start to end,
when the first dialogue with a picture comes; the vectors stay in memory (186,000 of width 768 are 0.6 GB), the pictures do not.
    scenes = Scenes(Path("data/dialogues/pictures.parquet"), Path("data/backbones/clip"))
    vectors, seen = scenes.of(["image_chat/0a1b", ""], device)   # [2, E]; the second row has none
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vikdf import schemas
from vikdf.decode import opened

AT_ONCE = 64  # pictures


def vectors_of(clip, pixels: Tensor) -> Tensor:
    """Of prepared pictures [B, E], as long as a vector of standard normal numbers: one noise serves any width."""
    return F.normalize(clip.image(pixels)[:, 0].float(), dim=-1) * clip.width**0.5


class Scenes:
    def __init__(self, path: Path | None, clip: Path):
        """path: None for a system that is shown no pictures, whatever its dialogues name."""
        self.path, self.clip, self.places, self.vectors = path, clip, None, None

    def shown(self, names: list[str]) -> list[str]:
        return names if self.path else [""] * len(names)

    def of(self, names: list[str], device) -> tuple[Tensor, Tensor] | None:
        """Vectors [B, E] and which rows have one [B]; None where no row has."""
        if not any(names):
            return None
        if self.places is None:
            self._read(device)
        if lost := [name for name in names if name and name not in self.places]:
            raise ValueError(f"{self.path} holds no picture {lost[0]!r}: make the dialogues anew")
        rows = torch.tensor([self.places.get(name, 0) for name in names])
        return self.vectors[rows].to(device), torch.tensor([bool(name) for name in names], device=device)

    def _read(self, device) -> None:
        from vikdf.model.encoders import CLIP

        made, self.places = [], {}
        # Loading draws random numbers: a run that goes on would draw them once more than one that was never stopped.
        with torch.random.fork_rng(), torch.autocast(torch.device(device).type, enabled=False):
            clip = CLIP.load(self.clip).to(device)
            for part in schemas.batches(self.path, schemas.PICTURES, AT_ONCE):
                pixels = [self._prepared(clip, row) for row in part.to_pylist()]
                made.append(vectors_of(clip, torch.stack(pixels).to(device)).cpu())
        if not made:
            raise ValueError(f"{self.path} holds no picture, but dialogues name some: make the dialogues anew")
        self.vectors = torch.cat(made)

    def _prepared(self, clip, row: dict) -> Tensor:
        picture = opened(row["image"])
        if picture is None:
            raise ValueError(f"the picture {row['name']!r} in {self.path} cannot be decoded: make the dialogues anew")
        self.places[row["name"]] = len(self.places)
        return clip.preprocess(picture)
