"""ZRIGF's two encoders and how they find pictures: BART's encoder for texts, a ViT for pictures, in one space.

    matcher = Matcher(vit, width=1024, heads=4, dropout=0.1)
    states, mask = read(encoder, words, rows)                     # of texts, [B, L, D] and [B, L]
    cosines = matcher.text(states) @ matcher.image(pixels)[1].T   # [texts, pictures]
    places = Retriever(encoder, matcher.pooler, index, words, longest=128, top=3)(contexts)  # [B, 3]

Shapes: B batch, L text tokens, P image patches + 1, D width of the text states.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COLDEST = 2.6592  # log of the scale of cosines, some 14.3: where CLIP's and ZRIGF's begin


def read(encoder: nn.Module, words, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """States [B, L, D] and mask [B, L] of texts, each between the start and the end token."""
    device = next(encoder.parameters()).device
    ids, mask = words.pad([[words.start, *row, words.end] for row in rows], device)
    return encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask


@torch.no_grad()
def tell_apart(pooler: nn.Linear, encoder: nn.Module, words, texts: int = 512, tokens: int = 8) -> None:
    """Lets the pooler begin with what differs between texts: first states of all texts are nearly alike, and a layer that
    begins anywhere would first have to learn to look past that. Texts of random tokens say what they have in common."""
    ids = torch.tensor([i for i in range(words.size) if i not in words.control])
    rows = ids[torch.randint(len(ids), (texts, tokens))].tolist()
    first = torch.cat([read(encoder, words, rows[i : i + 64])[0][:, 0] for i in range(0, texts, 64)])  # [texts, D]
    nn.init.normal_(pooler.weight, std=pooler.in_features**-0.5)
    pooler.weight /= first.std(0).clamp(min=1e-3)
    pooler.bias.copy_(-pooler.weight @ first.mean(0))


class CrossBlock(nn.Module):
    """Cross-attention and a feed-forward part of four times the width, each with its norm after it."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        self.seen, self.fed, self.dropout = nn.LayerNorm(width), nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, queries: Tensor, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """queries [B, Q, D] read states [B, K, D]; mask [B, K] is 0 where nothing stands."""
        hidden = None if mask is None else mask == 0
        found, _ = self.attention(queries, states, states, key_padding_mask=hidden, need_weights=False)
        x = self.seen(queries + self.dropout(found))
        return self.fed(x + self.dropout(self.feed(x)))  # [B, Q, D]


class Matcher(nn.Module):
    """A text's and a picture's unit vector, the picture's tokens in the text's width, and the block that reads the text."""

    def __init__(self, vit: nn.Module, *, width: int, heads: int, dropout: float):
        super().__init__()
        if vit.pooler is None:
            raise ValueError("the ViT has no pooler, whose vector is matched with texts: choose a folder that has one")
        self.vit = vit
        self.pooler = nn.Linear(width, width)
        self.v2t = nn.Linear(vit.config.hidden_size, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(COLDEST))
        self.block = CrossBlock(width, heads, dropout)

    def text(self, states: Tensor) -> Tensor:
        return F.normalize(torch.tanh(self.pooler(states[:, 0])).float(), dim=-1)  # [B, D]

    def image(self, pixels: Tensor, masked: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens [B, P, D] and unit vector [B, D]; masked [B, P - 1]: patches that the mask token stands for."""
        seen = self.vit(pixels, bool_masked_pos=masked)
        return self.v2t(seen.last_hidden_state), F.normalize(self.v2t(seen.pooler_output).float(), dim=-1)


class Retriever(nn.Module):
    """The places in the index of the pictures nearest to a context; as pretraining left it, whatever is tuned later.

    Nothing is remembered: in another batch a vector differs in its last bits, so that a run which goes on would ask
    otherwise than the one that was stopped. A look-up costs a tenth of the training step that it serves.
    """

    def __init__(self, encoder: nn.Module, pooler: nn.Linear, index, words, *, longest: int, top: int):
        super().__init__()
        if top > len(index):
            raise ValueError(f"{top} pictures a dialogue are asked for, the index holds {len(index)}: lower `images`")
        self.encoder, self.pooler = copy.deepcopy(encoder), copy.deepcopy(pooler)
        self.index, self.words, self.longest, self.top = index, words, longest, top
        self.requires_grad_(False).train(False)

    def train(self, mode: bool = True) -> "Retriever":
        return super().train(False)

    @torch.no_grad()
    def forward(self, contexts: list[list[str]]) -> Tensor:
        device = self.pooler.weight.device
        with torch.autocast(device.type, enabled=False):  # near pictures differ by less than half precision tells
            states, _ = read(self.encoder, self.words, self.words.join(contexts, self.longest - 2))
            queries = F.normalize(torch.tanh(self.pooler(states[:, 0])), dim=-1)  # [B, D]
        return torch.from_numpy(self.index.search(queries.cpu().numpy(), self.top)[0]).to(device)  # [B, top]
