"""The Implicit Query Transformer (section 3.1.2, Figure 2): encoder states H in, n knowledge vectors K out.

Learned queries pass through the query side of a BERT: self-attention among the queries in every layer, cross-attention
to H in every second, and the feed-forward net. Text and image share all weights: H_T gives K_T, H_I gives K_I.
There is no dropout: the paper names none, and the same batch then always gives the same K. States of a half-precision
encoder are read in the precision of these weights.

    iqformer = IQFormer.load("data/backbones/bert", queries=32, encoder_width=768)
    K = iqformer(H, mask)

Shapes: B batch, L encoder positions, E encoder width, n queries, D IQ-Former width, h heads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from vikdf.model import pretrained

EVERY = 2  # cross-attention in layers 0, 2, 4 ...: as in BLIP-2's Q-Former, which the paper extends

# our name in a layer -> BERT's
PARTS = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention.norm": "attention.output.LayerNorm",
    "feed.up": "intermediate.dense",
    "feed.down": "output.dense",
    "feed.norm": "output.LayerNorm",
}


class Attention(nn.Module):
    """norm(x + attention(x -> source)), as in BERT; the source may have a width of its own."""

    def __init__(self, width: int, heads: int, source_width: int, eps: float = 1e-12):
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads is {heads}: expected a number that divides the width, {width}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, h, L, D/h]

    def read(self, query: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        source = source.to(self.key.weight.dtype)
        keys, values = self.split(self.key(source)), self.split(self.value(source))  # [B, h, L, D/h]
        seen = None if mask is None else mask[:, None, None].bool()  # [B, 1, 1, L]
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=seen)  # [B, h, n, D/h]

    def forward(self, x: Tensor, sources: list[tuple[Tensor, Tensor | None]]) -> Tensor:
        """`x` has as many rows as all sources together; each is read by its own rows, so none is padded for another."""
        queries = self.split(self.query(x)).split([source.shape[0] for source, _ in sources])
        read = torch.cat([self.read(q, *source) for q, source in zip(queries, sources, strict=True)])
        return self.norm(x + self.output(read.transpose(1, 2).flatten(2)))  # [B, n, D]


class FeedForward(nn.Module):
    """norm(x + down(act(up(x)))); `act` by its name in transformers."""

    def __init__(self, width: int, inner: int, eps: float = 1e-12, act: str = "gelu"):
        super().__init__()
        if act not in ACT2FN:
            raise ValueError(f"act is {act!r}: expected an activation of transformers, as 'gelu'")
        self.act = ACT2FN[act]
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.down(self.act(self.up(x))))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, encoder_width: int | None, eps: float, act: str):
        super().__init__()
        self.attention = Attention(width, heads, width, eps)
        self.cross = Attention(width, heads, encoder_width, eps) if encoder_width else None
        self.feed = FeedForward(width, inner, eps, act)

    def forward(self, x: Tensor, sources: list[tuple[Tensor, Tensor | None]]) -> Tensor:
        x = self.attention(x, [(x, None)])
        if self.cross is not None:
            x = self.cross(x, sources)
        return self.feed(x)


class IQFormer(nn.Module):
    def __init__(
        self,
        *,
        queries: int,
        encoder_width: int,
        width: int,
        layers: int,
        heads: int,
        inner: int,
        eps: float = 1e-12,
        act: str = "gelu",
        spread: float = 0.02,
    ):
        super().__init__()
        self.shape = {"queries": queries, "encoder_width": encoder_width, "width": width, "layers": layers}
        self.shape |= {"heads": heads, "inner": inner, "eps": eps, "act": act, "spread": spread}
        self.width, self.taken, self.initialised = width, [], []
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.norm = nn.LayerNorm(width, eps=eps)
        crossing = [encoder_width if i % EVERY == 0 else None for i in range(layers)]
        self.layers = nn.ModuleList(Layer(width, heads, inner, cross, eps, act) for cross in crossing)
        self.reset(spread)

    def reset(self, spread: float) -> None:
        """BERT's own initialisation, where no weights are taken over."""
        nn.init.normal_(self.queries, std=spread)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=spread)
                nn.init.zeros_(module.bias)

    def forward(self, H: Tensor, mask: Tensor | None = None) -> Tensor:
        """H [B, L, E], mask [B, L] (true = real) -> K [B, n, D]."""
        return self.together([(H, mask)])[0]

    def together(self, sources: list[tuple[Tensor, Tensor | None]]) -> list[Tensor]:
        """The same for several sources (text, image) in one batch of queries: K [B, n, D] for each."""
        rows = [H.shape[0] for H, _ in sources]
        x = self.norm(self.queries).expand(sum(rows), -1, -1)  # [all B, n, D]
        for layer in self.layers:
            x = layer(x, sources)
        return list(x.split(rows))

    @classmethod
    def load(cls, folder, *, queries: int, encoder_width: int) -> "IQFormer":
        """Takes over what fits from a BERT folder (BERT, MiniLM, RoBERTa); cross-attention and queries are new.

        Sizes, activation and epsilon are those of its config.json.
        """
        from transformers import AutoModel

        bert, lost = pretrained.weights(AutoModel, folder, torch.float32)
        config = bert.config
        weights = {name: value for name, value in bert.state_dict().items() if name not in lost}
        if cls.source("layers.0.feed.up.weight") not in weights:
            raise ValueError(
                f"the model in {folder} ({config.model_type}) does not name its weights as BERT does: none of its layers can "
                "be taken over; choose a BERT, MiniLM or RoBERTa"
            )
        made = cls(
            queries=queries,
            encoder_width=encoder_width,
            width=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            inner=config.intermediate_size,
            eps=config.layer_norm_eps,
            act=config.hidden_act,
            spread=config.initializer_range,
        )
        made.take(weights)
        return made

    def take(self, weights: dict[str, Tensor]) -> None:
        """Copies BERT's weights where a counterpart of the same shape exists, and keeps both lists."""
        ours = self.state_dict()
        self.taken = [name for name in ours if self.source(name) in weights]
        self.taken = [name for name in self.taken if weights[self.source(name)].shape == ours[name].shape]
        self.initialised = [name for name in ours if name not in self.taken]
        self.load_state_dict({name: weights[self.source(name)] for name in self.taken}, strict=False)

    def origin(self) -> str:
        """Both lists, for people: which weights were taken over from BERT and which are new, equal layers in one word."""
        lines = []
        for title, names in (("taken over from BERT", self.taken), ("initialised", self.initialised)):
            layers: dict[str, list[str]] = {}
            for name in names:
                number, part = name.split(".", 2)[1:] if name.startswith("layers.") else ("", name)
                layers.setdefault(part, []).append(number)
            told = [f"{part} of layers {' '.join(those)}" if those[0] else part for part, those in layers.items()]
            lines.append(f"IQ-Former: {len(names)} tensors {title}: {', '.join(told) or 'none'}")
        return "\n".join(lines)

    @staticmethod
    def source(name: str) -> str | None:
        """BERT's name of one of our weights; None where BERT has none."""
        head, _, kind = name.rpartition(".")
        if head == "norm":
            return f"embeddings.LayerNorm.{kind}"
        if not head.startswith("layers."):
            return None
        _, number, part = head.split(".", 2)
        return f"encoder.layer.{number}.{PARTS[part]}.{kind}" if part in PARTS else None


class FusionBlock(nn.Module):
    """The transformer block of 3.2.2 and 3.2.3, multi-head attention and a feed-forward net: encoder states read K.

    Each state attends to K only, so that what it lacks can come from K alone; and so only the states that are scored
    need be computed.
    """

    def __init__(self, width: int, knowledge_width: int, heads: int):
        super().__init__()
        self.attention = Attention(width, heads, knowledge_width)
        self.feed = FeedForward(width, 4 * width)

    def forward(self, H: Tensor, K: Tensor) -> Tensor:
        H = H.to(self.attention.query.weight.dtype)
        return self.feed(self.attention(H, [(K, None)]))  # [B, L, E]
