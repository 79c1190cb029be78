"""Regions of pictures and their names, by any object detector of transformers: Maria's visual concepts.

In: a detector's folder (AutoModelForObjectDetection, AutoImageProcessor), pictures. Out: of each picture its `regions` surest
regions, surest first: their features [R, D], which the detector keeps before it names and places them, and their classes [R].
`Concepts` keeps those of all pictures of an index: concepts.safetensors and concepts.json in a folder.

    seen = Detector.load("data/backbones/detector", regions=4)
    features, classes = seen.look(pictures)                     # [B, R, D], [B, R]

Regions of one name stay, since a picture may show two of a thing. Boxes are not kept: Maria never reads them.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from vikdf import files
from vikdf.model import pretrained

TENSORS, NAMES = "concepts.safetensors", "concepts.json"
CURE = "delete the folder and run the step that makes it again, or copy it anew"


class Detector(nn.Module):
    def __init__(self, model, processor, regions: int, folder: Path | None = None):
        super().__init__()
        self.model, self.processor, self.regions, self.folder = (
            model.eval().requires_grad_(False),
            processor,
            regions,
            folder,
        )
        self.names = [model.config.id2label[place] for place in range(len(model.config.id2label))]

    @classmethod
    def load(cls, folder: Path, regions: int) -> "Detector":
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        model = pretrained.load(AutoModelForObjectDetection, folder, torch.float32)
        return cls(model, pretrained.read(AutoImageProcessor, folder), regions, Path(folder))

    @torch.no_grad()
    def look(self, pictures: list) -> tuple[Tensor, Tensor]:
        """features [B, R, D] and classes [B, R] of pictures of Pillow in RGB."""
        asked = self.processor(images=pictures, return_tensors="pt").to(next(self.model.parameters()).device)
        made = self.model(**asked)
        queries = made.logits.shape[1]
        if queries < self.regions:
            raise ValueError(
                f"the detector in {self.folder} gives {queries} regions a picture, but {self.regions} are asked for: "
                "lower `regions` of the entry in `baselines`"
            )
        sure, classes = self.name(made.logits)  # [B, Q] both
        best = sure.argsort(dim=1, descending=True, stable=True)[:, : self.regions]  # [B, R]
        states = made.last_hidden_state[:, -queries:]  # [B, Q, D]; YOLOS has its patches before them
        features = states.gather(1, best[..., None].expand(-1, -1, states.shape[-1]))
        return features, classes.gather(1, best)

    def name(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """How sure, and what; a last class beyond the names is "nothing here", detectors without it judge each by itself."""
        if logits.shape[-1] > len(self.names):
            return logits.softmax(-1)[..., : len(self.names)].max(-1)
        return logits.sigmoid().max(-1)


class Concepts:
    """features [N, R, D] in half precision, classes [N, R], names of the classes."""

    def __init__(self, features: Tensor, classes: Tensor, names: list[str]):
        self.features, self.classes, self.names = features, classes, names

    @classmethod
    def of(cls, detector: Detector, pictures) -> "Concepts":
        """Of batches of pictures, one after the other."""
        seen = [[part.cpu() for part in detector.look(batch)] for batch in pictures]
        features, classes = (torch.cat(parts) for parts in zip(*seen, strict=True))
        return cls(features.half(), classes, detector.names)

    def save(self, folder: Path) -> None:
        tensors = {"features": self.features.contiguous(), "classes": self.classes.contiguous()}
        with files.whole(Path(folder) / TENSORS) as aside:
            files.save_tensors(tensors, aside)
        files.write_json(Path(folder) / NAMES, self.names)

    @classmethod
    def load(cls, folder: Path) -> "Concepts":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        if lost := [name for name in (TENSORS, NAMES) if not (folder / name).is_file()]:
            raise ValueError(f"{folder} holds no concepts of pictures, {lost[0]} is missing: {CURE}")
        names = files.read_json(folder / NAMES)
        try:
            tensors = load_file(folder / TENSORS)
            made = cls(tensors["features"], tensors["classes"], names)
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{folder / TENSORS} is damaged ({error}): {CURE}") from None
        if not made.whole():
            raise ValueError(f"{folder} holds concepts whose files do not fit together: {CURE}")
        return made

    def whole(self) -> bool:
        features, classes, names = self.features, self.classes, self.names
        shaped = features.ndim == 3 and classes.shape == features.shape[:2] and classes.dtype == torch.int64
        named = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
        return bool(
            shaped and named and 0 <= classes.min() and classes.max() < len(names) and features.isfinite().all()
        )
