"""The Implicit Query Transformer (section 3.1.2, Figure 2): encoder states H in, n knowledge vectors K out.

Learned queries pass through the query side of a BERT: self-attention among the queries in every layer, cross-attention
to H in every second, and the feed-forward net. Text and image share all weights: H_T gives K_T, H_I gives K_I.
There is no dropout: the paper names none, and the same batch then always gives the same K.

    iqformer = IQFormer.load("data/backbones/bert", queries=32, encoder_width=768)
    K = iqformer(H, mask)

Shapes: B batch, L encoder positions, E encoder width, n queries, D IQ-Former width, h heads.
"""

import logging

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, h, L, D/h]

    def read(self, query: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        keys, values = self.split(self.key(source)), self.split(self.value(source))  # [B, h, L, D/h]
        seen = None if mask is None else mask[:, None, None].bool()  # [B, 1, 1, L]
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=seen)  # [B, h, n, D/h]

    def forward(self, x: Tensor, sources: list[tuple[Tensor, Tensor | None]]) -> Tensor:
        """`x` has as many rows as all sources together; each is read by its own rows, so none is padded for another."""
        queries = self.split(self.query(x)).split([source.shape[0] for source, _ in sources])
        read = torch.cat([self.read(q, *source) for q, source in zip(queries, sources, strict=True)])
        return self.norm(x + self.output(read.transpose(1, 2).flatten(2)))  # [B, n, D]


class FeedForward(nn.Module):
    """norm(x + down(gelu(up(x))))."""

    def __init__(self, width: int, inner: int, eps: float = 1e-12):
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.down(F.gelu(self.up(x))))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, encoder_width: int | None, eps: float):
        super().__init__()
        self.attention = Attention(width, heads, width, eps)
        self.cross = Attention(width, heads, encoder_width, eps) if encoder_width else None
        self.feed = FeedForward(width, inner, eps)

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
        spread: float = 0.02,
    ):
        super().__init__()
        self.shape = {"queries": queries, "encoder_width": encoder_width, "width": width, "layers": layers}
        self.shape |= {"heads": heads, "inner": inner, "eps": eps, "spread": spread}
        self.width, self.taken, self.initialised = width, [], []
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.norm = nn.LayerNorm(width, eps=eps)
        crossing = [encoder_width if i % EVERY == 0 else None for i in range(layers)]
        self.layers = nn.ModuleList(Layer(width, heads, inner, cross, eps) for cross in crossing)
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
        """Takes over what fits from a BERT folder (BERT, MiniLM, RoBERTa); cross-attention and queries are new."""
        from transformers import AutoModel
        from transformers.utils import logging as bars

        bars.disable_progress_bar()
        bert = AutoModel.from_pretrained(folder, dtype=torch.float32)
        config = bert.config
        if config.hidden_act != "gelu":
            raise ValueError(f"the BERT in {folder} uses the activation {config.hidden_act!r}, expected 'gelu'")
        made = cls(
            queries=queries,
            encoder_width=encoder_width,
            width=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            inner=config.intermediate_size,
            eps=config.layer_norm_eps,
            spread=config.initializer_range,
        )
        made.take(bert.state_dict())
        return made

    def take(self, weights: dict[str, Tensor]) -> None:
        """Copies BERT's weights where a counterpart of the same shape exists, and keeps both lists."""
        ours = self.state_dict()
        self.taken = [name for name in ours if self.source(name) in weights]
        self.taken = [name for name in self.taken if weights[self.source(name)].shape == ours[name].shape]
        self.initialised = [name for name in ours if name not in self.taken]
        self.load_state_dict({name: weights[self.source(name)] for name in self.taken}, strict=False)
        logging.info("IQ-Former: taken over from BERT: %s", ", ".join(self.taken))
        logging.info("IQ-Former: initialised: %s", ", ".join(self.initialised))

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
        return self.feed(self.attention(H, [(K, None)]))  # [B, L, E]
