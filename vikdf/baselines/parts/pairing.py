"""ZRIGF's first stage: pictures and their captions are matched, and masked pictures are rebuilt with the caption's help.

    L = L_match + weight * L_rebuild
    L_match    cross-entropy of s * cos(text, picture) over the batch, mean of both directions
    L_rebuild  mean absolute error of the masked, normalised pixels: the ViT reads the covered picture, the block reads the
               caption with it, and a head draws each patch

In: pictures of bytes and captions; BART's encoder stays as it is. Out: the matcher's weights, and an index of all pictures.
Masks: squares of `mask_pixels`, a share `mask_image` of them; a patch in them is covered with a chance of 1 - `mask_shown`.

Shapes: B batch, S side of the picture, p side of a patch, P patches + 1, D width of the text states, E of the ViT's.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vikdf import files
from vikdf.baselines.parts.index import Index, chosen
from vikdf.baselines.parts.matching import Matcher, read
from vikdf.baselines.parts.sights import Eye
from vikdf.model.distill import uniform
from vikdf.model.lesson import Lesson

WEIGHTS = "model.safetensors"
TOGETHER = 64  # pictures encoded at once for the index


class Pairing(Lesson):
    def __init__(
        self,
        encoder: nn.Module,
        matcher: Matcher,
        words,
        eye: Eye,
        *,
        weight: float,
        longest: int,
        mask_pixels: int,
        mask_image: float,
        mask_shown: float,
        index: dict,
    ):
        super().__init__()
        self.encoder, self.matcher = encoder.requires_grad_(False), matcher
        self.words, self.eye, self.weight, self.longest, self.kept = words, eye, weight, longest, index
        self.mask_image, self.mask_shown = mask_image, mask_shown
        shape = matcher.vit.config
        self.patch, self.pixels = shape.patch_size, shape.image_size
        if mask_pixels % self.patch or self.pixels % mask_pixels:
            raise ValueError(
                f"mask_pixels is {mask_pixels}: expected a multiple of the ViT's patch ({self.patch}) that divides the "
                f"side of its picture ({self.pixels})"
            )
        self.wide = mask_pixels // self.patch  # patches along a square
        width = matcher.v2t.out_features
        self.t2v = nn.Linear(width, shape.hidden_size, bias=False)
        self.head = nn.Conv2d(shape.hidden_size, 3 * self.patch**2, kernel_size=1)
        matcher.vit.embeddings.mask_token = nn.Parameter(torch.zeros(1, 1, shape.hidden_size))

    def frozen(self) -> list[nn.Module]:
        return [self.encoder]

    def train(self, mode: bool = True) -> "Pairing":
        super().train(mode)
        self.encoder.train(False)  # frozen: without dropout
        return self

    def prepare(self, picture) -> Tensor:
        return self.eye.prepare(picture)  # [3, S, S], bytes

    @property
    def squares(self) -> int:
        return (self.pixels // self.patch // self.wide) ** 2

    @property
    def chosen(self) -> int:
        return math.ceil(self.mask_image * self.squares)

    def counts(self, batch: dict) -> dict[str, int]:
        count = len(batch["captions"])
        return {"match": count, "rebuild": count * self.chosen * (self.wide * self.patch) ** 2 * 3}

    def forward(self, batch: dict, whole: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        pixels = self.eye.normal(batch["pictures"])  # [B, 3, S, S]
        states, mask = self.read(batch["captions"])
        _, pictures = self.matcher.image(pixels)
        shares = {"match": self.match(self.matcher.text(states), pictures) / whole["match"]}
        shares["rebuild"] = self.rebuild(pixels, states, mask, batch["lots"]) / whole["rebuild"]
        return shares["match"] + self.weight * shares["rebuild"], shares

    @torch.no_grad()
    def read(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        return read(self.encoder, self.words, [row[: self.longest - 2] for row in self.words.encode(captions)])

    def match(self, texts: Tensor, pictures: Tensor) -> Tensor:
        """Summed over the rows; each is contrasted with the others of this micro-batch."""
        with torch.autocast(texts.device.type, enabled=False):
            logits = self.matcher.log_scale.exp() * texts @ pictures.T  # [B, B]
            own = torch.arange(len(texts), device=texts.device)
            both = [F.cross_entropy(each, own, reduction="sum") for each in (logits, logits.T)]
        return sum(both) / 2

    def rebuild(self, pixels: Tensor, states: Tensor, mask: Tensor, lots: list[int]) -> Tensor:
        """Summed absolute error of the pixels in masked squares, covered or not."""
        inside, covered = self.cover(lots, pixels.device)  # [B, P - 1]
        tokens, _ = self.matcher.image(pixels, covered)
        told = self.t2v(self.matcher.block(tokens, states, mask))[:, 1:]  # [B, P - 1, E]
        side = self.pixels // self.patch
        drawn = F.pixel_shuffle(self.head(told.transpose(1, 2).unflatten(2, (side, side))), self.patch)
        apart = F.pixel_unshuffle((drawn.float() - pixels).abs(), self.patch).flatten(2)  # [B, 3 p p, P - 1]
        return (apart * inside[:, None]).sum()

    def cover(self, lots: list[int], device) -> tuple[Tensor, Tensor]:
        """Which patches lie in masked squares, and which of them the mask token stands for: [B, P - 1] both."""
        side = self.pixels // self.patch // self.wide
        order = uniform(lots, 1, self.squares).argsort(dim=1)  # [B, squares]
        inside = torch.zeros(len(lots), self.squares).scatter(1, order[:, : self.chosen], 1.0)
        inside = inside.unflatten(1, (side, side)).repeat_interleave(self.wide, 1).repeat_interleave(self.wide, 2)
        inside = inside.flatten(1).bool()
        covered = inside & (uniform(lots, 2, inside.shape[1]) >= self.mask_shown)
        return inside.to(device), covered.to(device)

    def judge(self, batches: Iterator[dict]) -> dict[str, float]:
        """As in the original, the matching alone decides; here all held-back pairs are contrasted at once."""
        texts, pictures, errors, counted = [], [], 0.0, 0
        for batch in batches:
            pixels = self.eye.normal(batch["pictures"])
            states, mask = self.read(batch["captions"])
            texts.append(self.matcher.text(states))
            pictures.append(self.matcher.image(pixels)[1])
            errors += self.rebuild(pixels, states, mask, batch["lots"]).item()
            counted += self.counts(batch)["rebuild"]
        texts, pictures = torch.cat(texts), torch.cat(pictures)
        own = torch.arange(len(texts), device=texts.device)
        ranks = (texts @ pictures.T).argsort(dim=1, descending=True, stable=True)  # [pairs, pairs]
        found = {f"text_to_image_recall_at_{k}": self._recall(ranks, own, k) for k in (1, 3) if k <= len(own)}
        found["text_to_image_recall_at_1_by_chance"] = 1 / len(own)
        return found | {
            "validation": self.match(texts, pictures).item() / len(own),
            "masked_error": errors / counted,
        }

    @staticmethod
    def _recall(ranks: Tensor, own: Tensor, k: int) -> float:
        return (ranks[:, :k] == own[:, None]).any(dim=1).float().mean().item()

    @torch.no_grad()
    def write(self, folder: Path, shards) -> None:
        kept = {name: value for name, value in self.named_parameters() if value.requires_grad}
        with files.whole(Path(folder) / WEIGHTS) as aside:
            files.save_tensors({name: value.detach().cpu().contiguous() for name, value in kept.items()}, aside)
        rows, names, settings = chosen(shards, self.kept)
        Index.build(names, self.vectors(shards, rows), **settings).save(folder)

    def vectors(self, shards, rows: list[int]):
        """Unit vectors of pictures [N, D], of numpy."""
        from tqdm import tqdm

        made, device = [], self.t2v.weight.device
        for start in tqdm(range(0, len(rows), TOGETHER), desc="index", unit="batch", mininterval=5):
            pictures = [self.prepare(shards[row]["image"]) for row in rows[start : start + TOGETHER]]
            pixels = self.eye.normal(torch.stack(pictures).to(device))
            made.append(self.matcher.image(pixels)[1].float().cpu())
        return torch.cat(made).numpy()
