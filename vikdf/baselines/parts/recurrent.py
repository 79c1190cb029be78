"""The LSTM parts of Seq2Seq and ImgVAE: an encoder that reads both ways, and a decoder that attends to what was read.

In: embedded tokens, padded on the right. Out: states. A row's result depends on no other row and on no padding.
    states, hidden, cell = Encoder(64, 64, layers=2, dropout=0.2)(x, mask)
    features = Decoder(64, 64, layers=2, dropout=0.2)(y, states, mask, hidden, cell)

The decoder's lowest layer asks the attention, and what was found goes into every layer above it (as in Wu et al. 2016). So
a whole response is read in one pass a layer; with what was found fed back as the next input (Luong et al. 2015) each token
would wait for the one before. Anything else to be known (a picture's vector) is one more state, or stands beside the input.
The LSTMs run in float32 in any precision: what is rounded would be carried on from token to token.
Shapes: B batch, L tokens read, T tokens said, E input width, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Encoder(nn.Module):
    """Half of the width reads from the left, half from the right."""

    def __init__(self, inputs: int, width: int, *, layers: int, dropout: float):
        super().__init__()
        if width % 2:
            raise ValueError(f"an LSTM that reads both ways is {width} wide: expected an even number")
        self.layers, self.width = layers, width
        between = dropout if layers > 1 else 0.0  # after the last layer there is none
        self.lstm = nn.LSTM(inputs, width // 2, layers, batch_first=True, bidirectional=True, dropout=between)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, L, E] and mask [B, L] give the states [B, L, W] and the last hidden and cell of each layer [B, layers, W]."""
        with torch.autocast(x.device.type, enabled=False):
            packed = pack_padded_sequence(x.float(), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
            states, (hidden, cell) = self.lstm(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
        return states, self._join(hidden), self._join(cell)

    def _join(self, ends: Tensor) -> Tensor:
        """[2 layers, B, W / 2] -> [B, layers, W]: both ways beside each other."""
        ends = ends.view(self.layers, 2, -1, self.width // 2)
        return ends.permute(2, 0, 1, 3).reshape(-1, self.layers, self.width)


class Decoder(nn.Module):
    def __init__(self, inputs: int, width: int, *, layers: int, dropout: float):
        super().__init__()
        widths = [inputs, *[2 * width] * (layers - 1)]
        self.lstms = nn.ModuleList(nn.LSTM(size, width, batch_first=True) for size in widths)
        self.query = nn.Linear(width, width, bias=False)
        self.out, self.dropout = nn.Linear(2 * width, width), nn.Dropout(dropout)

    def forward(self, x: Tensor, states: Tensor, mask: Tensor, hidden: Tensor, cell: Tensor) -> Tensor:
        """x [B, T, E] gives features [B, T, W], each of its token and those before; it begins with what the encoder ends in."""
        lowest, *above = self.lstms
        y = self._run(lowest, x, hidden, cell, 0)
        found = F.scaled_dot_product_attention(
            self.query(y), states, states, attn_mask=mask[:, None].bool()
        )  # [B, T, W]
        for layer, lstm in enumerate(above, 1):
            y = y + self._run(lstm, self.dropout(torch.cat([y, found], -1)), hidden, cell, layer)
        return torch.tanh(self.out(self.dropout(torch.cat([y, found], -1))))

    def _run(self, lstm: nn.LSTM, x: Tensor, hidden: Tensor, cell: Tensor, layer: int) -> Tensor:
        begun = [ends[:, layer][None].float().contiguous() for ends in (hidden, cell)]  # [1, B, W]
        with torch.autocast(x.device.type, enabled=False):
            return lstm(x.float(), tuple(begun))[0]  # [B, T, W]
