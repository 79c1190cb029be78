"""Knowledge distillation (section 3.2, Figure 3): TIM, TAMIM and IAMTM, one class an equation.

Each forward gives (sum, count): the loss is their quotient, so that a caller can weigh micro-batches by their targets.
`cover` draws what is masked from one seed a row (a "lot"), so that runs repeat, go on, and a row is masked alike in whatever
micro-batch it stands.

Shapes: B batch, L text tokens, P image patches + 1, m masked places a row, n queries, D IQ-Former width,
E CLIP's joint width, V CLIP's text vocabulary, S side of the picture, p side of a ViT patch.
"""

import math

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn import functional as distributed_functional
from torch.nn import functional as F

from vikdf.model.iqformer import FusionBlock

COLDEST = 0.01  # the temperature's lower bound, as in CLIP: below it one pair decides the whole gradient
WARMEST = 1.0  # its upper bound: above it cosines, which differ by 2 at most, could not tell pairs apart


def uniform(lots: list[int], salt: int, *shape: int) -> Tensor:
    """Numbers in [0, 1) for each row from the row's own seed; the salt keeps what is drawn for one use from another's."""
    generator = torch.Generator()
    seeds = [(lot + salt * 0x9E3779B97F4A7C15) % 2**63 for lot in lots]
    return torch.stack([torch.rand(shape, generator=generator.manual_seed(seed)) for seed in seeds])  # [B, *shape]


def gathered(x: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; each row's gradient goes back to its own process."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return x
    return torch.cat(distributed_functional.all_gather(x))


def take(x: Tensor, places: Tensor) -> Tensor:
    """Rows of x [B, L, E] at places [B, m] -> [B, m, E]."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))


class TIM(nn.Module):
    """Text-image matching, Equation 2: contrast of K_T and K_I in the batch, mean of both directions (chance: ln B).

    The batch is the micro-batch of all processes together: what one process has encoded, the others contrast with.
    Accumulated micro-batches contrast within themselves only, since earlier ones are no longer there.
    `pooled`: cosine of the first knowledge vectors, each in a learned projection (the original code; in the 159 M).
    `set`: cosine of the whole sets K_T and K_I, as the paper words it; nothing is projected.
    """

    def __init__(self, *, width: int, kind: str, projection: int, temperature: float):
        super().__init__()
        if kind not in ("pooled", "set"):
            raise ValueError(f"tim is {kind!r}: expected 'pooled' or 'set'")
        self.kind = kind
        self.text = nn.Linear(width, projection) if kind == "pooled" else None
        self.image = nn.Linear(width, projection) if kind == "pooled" else None
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))  # fp32 also where the rest is bf16

    def trained(self) -> bool:
        return self.kind == "set" or self.text.weight.requires_grad  # whole sets are compared as they are

    def embed(self, K: Tensor, projection: nn.Linear | None) -> Tensor:
        x = K.flatten(1) if projection is None else projection(K[:, 0])
        return F.normalize(x.float(), dim=-1)  # [B, n * D or projection]

    def similarity(self, K_T: Tensor, K_I: Tensor) -> Tensor:
        return self.cosines(self.embed(K_T, self.text), self.embed(K_I, self.image))  # [B, B], of this process alone

    @staticmethod
    def cosines(a: Tensor, b: Tensor) -> Tensor:
        with torch.autocast(
            a.device.type, enabled=False
        ):  # in half precision near vectors would have a cosine of 1 each
            return a @ b.T

    def forward(self, K_T: Tensor, K_I: Tensor) -> tuple[Tensor, int]:
        with torch.no_grad():
            self.log_scale.clamp_(
                math.log(1 / WARMEST), math.log(1 / COLDEST)
            )  # bounded in place: at the bound its gradient lives on
        text, image, scale = self.embed(K_T, self.text), self.embed(K_I, self.image), self.log_scale.exp()
        first = distributed.get_rank() * len(text) if distributed.is_initialized() else 0
        pairs = torch.arange(first, first + len(text), device=text.device)  # where our rows stand among all
        to_image = F.cross_entropy(self.cosines(text, gathered(image)) * scale, pairs, reduction="sum")
        to_text = F.cross_entropy(self.cosines(image, gathered(text)) * scale, pairs, reduction="sum")
        return (to_image + to_text) / 2, len(text)


class TAMIM(nn.Module):
    """Text-assisted masked image modelling, Equation 3: mean absolute error of the masked, normalised pixels.

    Squares of `mask_pixels` are set to 0 after normalisation; the fusion block lets the covered picture's states read
    K_T; a 1x1 convolution and a pixel shuffle give the picture back. Only masked patches are computed in training.
    """

    def __init__(self, *, width: int, knowledge_width: int, heads: int, pixels: int, patch: int,
                 mask_pixels: int, ratio: float, leave_unchanged: float):  # fmt: skip
        super().__init__()
        if mask_pixels % patch or pixels % mask_pixels:
            raise ValueError(
                f"mask_pixels is {mask_pixels}: expected a multiple of CLIP's patch ({patch}) "
                f"that divides the side of its picture ({pixels})"
            )
        self.shape = {
            "width": width,
            "knowledge_width": knowledge_width,
            "heads": heads,
            "pixels": pixels,
            "patch": patch,
        }
        self.shape |= {"mask_pixels": mask_pixels, "ratio": ratio, "leave_unchanged": leave_unchanged}
        self.patch, self.grid, self.ratio, self.leave_unchanged = patch, pixels // patch, ratio, leave_unchanged
        self.block = FusionBlock(width, knowledge_width, heads)
        self.decoder = nn.Conv2d(width, 3 * patch * patch, kernel_size=1)
        numbers = torch.arange(self.grid**2, device="cpu").view(1, 1, self.grid, self.grid)
        squares = F.pixel_unshuffle(numbers, mask_pixels // patch).flatten(2)[0].T  # [squares, patches in each]
        self.register_buffer("squares", squares.contiguous(), persistent=False)

    def count(self) -> int:
        """Targets of one picture: the values of its masked pixels."""
        return max(1, round(self.ratio * len(self.squares))) * self.squares.shape[1] * 3 * self.patch**2

    def cover(self, pixels: Tensor, lots: list[int]) -> tuple[Tensor, Tensor]:
        """The covered pictures [B, 3, S, S] and the numbers of their masked patches [B, m]."""
        squares = self.squares.to(pixels.device)
        count = max(1, round(self.ratio * len(squares)))
        scores, keep = uniform(lots, 1, 2, len(squares)).unbind(1)
        chosen = scores.argsort(dim=1)[:, :count]  # [B, masked squares]
        kept = keep.gather(1, chosen) < self.leave_unchanged
        masked = squares[chosen.to(pixels.device)]  # [B, masked squares, patches in each]
        shown = kept.to(pixels.device)[..., None].expand_as(masked).flatten(1).to(pixels.dtype)
        canvas = pixels.new_ones(len(pixels), self.grid**2).scatter(1, masked.flatten(1), shown)
        canvas = canvas.view(-1, 1, self.grid, self.grid).repeat_interleave(self.patch, 2)
        return pixels * canvas.repeat_interleave(self.patch, 3), masked.flatten(1)

    def forward(self, H: Tensor, K_T: Tensor, pixels: Tensor, masked: Tensor) -> tuple[Tensor, int]:
        """H [B, P, E]: states of the covered pictures, the pooled one first."""
        fused = self.block(take(H[:, 1:], masked), K_T)  # [B, m, E]
        guess = F.linear(fused, self.decoder.weight.flatten(1), self.decoder.bias)  # [B, m, 3 p p]: the convolution
        truth = F.pixel_unshuffle(pixels, self.patch).flatten(2).transpose(1, 2)  # [B, P - 1, 3 p p]
        error = (guess.float() - take(truth, masked)).abs()
        return error.sum(), error.numel()

    def draw(self, H: Tensor, K_T: Tensor) -> Tensor:
        """The whole reconstructed picture, normalised pixels: [B, 3, S, S]."""
        fused = self.block(H[:, 1:], K_T).transpose(1, 2).unflatten(2, (self.grid, self.grid))  # [B, E, grid, grid]
        return F.pixel_shuffle(self.decoder(fused), self.patch)


class IAMTM(nn.Module):
    """Image-assisted masked text modelling, Equation 4: cross-entropy of the masked tokens.

    CLIP has no mask token: a masked place holds the end-of-text id. Its text tower is causal: what stands behind a
    masked place, and what the picture shows, can come from K_I alone.
    """

    def __init__(self, *, width: int, knowledge_width: int, heads: int, vocabulary: int,
                 context: int, end_of_text: int, ratio: float, leave_unchanged: float):  # fmt: skip
        super().__init__()
        self.end_of_text, self.ratio, self.leave_unchanged = end_of_text, ratio, leave_unchanged
        self.context = context
        self.block = FusionBlock(width, knowledge_width, heads)
        self.decoder = nn.Linear(width, vocabulary)

    def cover(self, tokens: Tensor, mask: Tensor, lots: list[int]) -> tuple[Tensor, Tensor]:
        """The covered tokens [B, L] and which are masked [B, L]: words only (no start, no end), one at least."""
        # drawn for the whole context and then cut: what a text draws does not depend on the longest text beside it
        drawn = uniform(lots, 2, self.context, 2)[:, : tokens.shape[1]].to(tokens.device)  # [B, L, 2]
        score, kept = drawn[..., 0], drawn[..., 1] < self.leave_unchanged
        words = mask & (tokens != self.end_of_text)
        words[:, 0] = False
        score = score.masked_fill(~words, 2.0)
        masked = words & ((score < self.ratio) | (score == score.min(dim=1, keepdim=True).values))
        return tokens.masked_fill(masked & ~kept, self.end_of_text), masked

    def forward(self, H: Tensor, K_I: Tensor, tokens: Tensor, masked: Tensor) -> tuple[Tensor, int]:
        """H [B, L, E]: states of the covered tokens; block and head run at masked places only."""
        most = max(1, int(masked.sum(1).max()))
        places = masked.int().argsort(dim=1, descending=True, stable=True)[:, :most]  # [B, m]: masked ones first
        real = masked.gather(1, places)
        fused = self.block(take(H, places), K_I)[real]  # [masked tokens, E]
        logits = self.decoder(fused).float()  # [masked tokens, V]
        return F.cross_entropy(logits, tokens.gather(1, places)[real], reduction="sum"), len(logits)
