"""ZRIGF's decoder layer: BART's own, with a second cross-attention that reads the picture and gates that weigh the two.

    layer = Transfer(config); x = layer(bart.model.decoder.layers[0], x, causal, text, reading, vision)

The self-attention's h is read on by text and picture side by side: h1 and h2, each with h added and a norm. Gates
g = sigmoid(W [h_i; h]) weigh them, and W [h; g1 h1; g2 h2] goes on into BART's feed-forward part.

Shapes: B batch, T answer tokens, L text tokens, P image patches + 1, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """True = may be read -> what attention adds to its scores."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)


def causal(length: int, like: Tensor) -> Tensor:
    allowed = torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
    return additive(allowed[None, None], like.dtype)  # [1, 1, T, T]


class Transfer(nn.Module):
    """What is new in a layer; `start` says how its last matrix begins (see vikdf.baselines.zrigf)."""

    def __init__(self, config, start: str):
        super().__init__()
        from transformers.models.bart.modeling_bart import BartAttention

        width = config.d_model
        self.attention = BartAttention(
            width, config.decoder_attention_heads, dropout=config.attention_dropout, config=config
        )
        self.norm = nn.LayerNorm(width)
        self.text_gate, self.vision_gate = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        self.join = nn.Linear(3 * width, width)
        if start == "bart":
            self._begin_as_bart(width)

    @torch.no_grad()
    def _begin_as_bart(self, width: int) -> None:
        """What goes on is h1 and nothing else, as in BART's own layer: the gates begin near a half."""
        self.join.weight.normal_(std=0.02)
        self.join.bias.zero_()
        self.join.weight[:, width : 2 * width] += 2 * torch.eye(width)

    def forward(self, layer: nn.Module, x: Tensor, before: Tensor, text: Tensor, reading: Tensor, vision: Tensor):
        """x [B, T, D]; before: additive mask of the self-attention; text [B, L, D] with its mask `reading`; vision [B, P, D]."""
        h = layer.self_attn_layer_norm(x + self._drop(layer, layer.self_attn(x, attention_mask=before)[0]))
        told, _ = layer.encoder_attn(h, key_value_states=text, attention_mask=reading)
        h1 = layer.encoder_attn_layer_norm(h + self._drop(layer, told))
        shown, _ = self.attention(h, key_value_states=vision)
        h2 = self.norm(h + self._drop(layer, shown))
        g1 = self.text_gate(torch.cat([h1, h], dim=-1)).sigmoid()
        g2 = self.vision_gate(torch.cat([h2, h], dim=-1)).sigmoid()
        x = self.join(torch.cat([h, g1 * h1, g2 * h2], dim=-1))  # [B, T, D]
        fed = F.dropout(layer.activation_fn(layer.fc1(x)), p=layer.activation_dropout, training=self.training)
        return layer.final_layer_norm(x + self._drop(layer, layer.fc2(fed)))

    def _drop(self, layer: nn.Module, x: Tensor) -> Tensor:
        return F.dropout(x, p=layer.dropout, training=self.training)
