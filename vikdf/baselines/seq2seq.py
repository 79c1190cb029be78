"""Seq2Seq: an LSTM reads the dialogue, another one with attention answers it; both begin untrained.

In: the folder of a tokenizer, and numbers; dialogues to tune on. Out: answers, and how likely a given answer is.
The paper gives a name and 24 M parameters, no more. Chosen here: as many LSTM layers on either side; the encoder reads both
ways; the decoder begins with the encoder's last states, and what its lowest layer finds by attention goes into the layers
above it and into the head (vikdf.baselines.parts.recurrent); the embedding is the head too. The tokens are those of the LLM,
so that perplexities a token can be compared. The turns stand with a separator between them. Of a context of more than
`context_tokens` what was said last is read. Decoded by the same beam search as all systems.
Shapes: B batch, L tokens read, T tokens said, W width, V vocabulary.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vikdf.baselines.parts import product
from vikdf.baselines.parts.recurrent import Decoder, Encoder
from vikdf.baselines.parts.told import row_sizes, spoken, told
from vikdf.model import checkpoint
from vikdf.model.answering import Answering, turns_of
from vikdf.model.search import search
from vikdf.model.words import Words

NUMBERS = ("width", "layers", "dropout", "context_tokens")  # of an entry: the model's own


class Seq2Seq(Answering):
    def __init__(self, words: Words, *, width: int, layers: int, dropout: float, context_tokens: int):
        super().__init__()
        self.words, self.context_tokens = words, context_tokens
        self.settings = {"width": width, "layers": layers, "dropout": dropout, "context_tokens": context_tokens}
        self.table = nn.Embedding(words.size, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)  # as a head: logits of about one
        self.bias = nn.Parameter(torch.zeros(words.size))
        self.encoder = Encoder(width, width, layers=layers, dropout=dropout)
        self.decoder = Decoder(width, width, layers=layers, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def embed(self, ids: Tensor) -> Tensor:
        """[B, L] -> [B, L, W]; the head's small weights are brought to the size that a layer expects."""
        return self.dropout(self.table(ids) * self.table.embedding_dim**0.5)

    def head(self, features: Tensor) -> Tensor:
        return F.linear(features, self.table.weight, self.bias)  # [..., W] -> [..., V]

    def read(self, contexts: list[list[str]]) -> dict[str, Tensor]:
        """What the decoder gets to know of each dialogue."""
        ids, mask = self.words.pad(self.prompts(contexts), self.bias.device)  # [B, L]
        states, hidden, cell = self.encoder(self.embed(ids), mask)
        return {"states": states, "mask": mask, "hidden": hidden, "cell": cell}

    def prompts(self, contexts: list[list[str]]) -> list[list[int]]:
        joined = self.words.join(turns_of(contexts), self.context_tokens)
        return [[self.words.start, *row, self.words.end] for row in joined]  # never empty

    def nll(self, contexts: list[list[str]], responses: list[str]) -> tuple[Tensor, Tensor]:
        return self.tell(self.read(contexts), responses)

    def tell(self, memory: dict[str, Tensor], responses: list[str]) -> tuple[Tensor, Tensor]:
        """-log P and token count [B] of each response, given what was read."""
        rows = spoken(self.words, responses)
        targets, mask = self.words.pad(rows, self.bias.device)  # [B, T]
        given, _ = self.words.pad([[self.words.start, *row[:-1]] for row in rows], self.bias.device)
        return told(self.decoder(self.embed(given), **memory), self.head, targets, mask)

    def counts(self, batch: dict) -> dict[str, int]:
        return {"nll": sum(map(len, spoken(self.words, batch["responses"])))}

    def lengths(self, contexts: list[list[str]]) -> list[int]:
        return [len(row) for row in self.prompts(contexts)]

    def sizes(self, contexts: list[list[str]], responses: list[str]) -> list[int]:
        return row_sizes(self.words, self.lengths, contexts, responses)

    def step(self, prefix: Tensor, **memory: Tensor) -> Tensor:
        return self.head(self.decoder(self.embed(prefix), **memory)[:, -1])  # [R, V]

    def answers(self, contexts: list[list[str]], **decoding: int) -> list[str]:
        ends = {"start": self.words.start, "end": self.words.end}
        return self.words.decode(search(self.step, self.read(contexts), len(contexts), **ends, **decoding))

    def save(self, folder, *, trained: dict[str, int] | None = None, run: dict | None = None) -> None:
        told_of = {"trained": checkpoint.trainable(self) if trained is None else trained, "run": run}
        told_of |= {"settings": self.settings, "frozen": {}, "tokenizer": self.words.tokenizer}
        product.write(folder, "seq2seq", product.own(self), **told_of)


def learner(entry: dict, start: None, places, lora: dict, seed: int) -> Seq2Seq:
    words = Words.load(places.backbones / entry["tokenizer"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Seq2Seq(words, **{name: entry[name] for name in NUMBERS})


def answerer(entry: dict, tuned: Path, places) -> Seq2Seq:
    """From its folder alone: it has no frozen part."""
    settings, tensors = product.read(tuned, "seq2seq", {})
    with product.outlined(tuned, settings, tensors):
        made = Seq2Seq(Words.load(tuned), **checkpoint.arguments(Seq2Seq, settings, "settings"))
    product.load(made, tensors, (), tuned, assign=True)
    return made
