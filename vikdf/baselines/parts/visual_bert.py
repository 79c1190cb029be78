"""Maria's generator: one BERT that reads a context, a picture's tags and regions, and tells a response behind [MASK]s.

    memory = generator.remember(context, tags, features)         # read once: nothing in it ever sees the response
    states = generator.tell(ids, places, sees, memory)           # [B, T, W]; what a token of the response sees of the others
    logits = generator.logits(states) + generator.knowledge(memory)[:, None]

Context, tags and regions see each other wholly, the response sees them and, as `sees` says, itself. Since none of them sees the
response, their keys and values are computed first and kept: the same numbers as in one pass over all, and answering pays for
them once. Each part has its own segment and counts its places from 0, so that no reference is too long for its slot; the last
place stands for all beyond BERT's table. Regions have neither place nor segment.

Shapes: B batch, L context tokens, R regions, M = L + 2 R, T response tokens, W width, V vocabulary, D detector's width.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertModel, DynamicCache
from transformers.models.bert.modeling_bert import BertPredictionHeadTransform

from vikdf.baselines.parts import berts
from vikdf.model.words import Words

RESPONSE, CONTEXT, TAGS = 0, 1, 2  # segments


@dataclass(frozen=True)
class Memory:
    """What the response sees of the dialogue: keys and values of each layer, which of them are real, and the last states."""

    layers: list[tuple[Tensor, Tensor]]  # of each layer [B, heads, M, W / heads], twice
    real: Tensor  # [B, M], bool
    states: Tensor  # [B, M, W]

    def pick(self, rows: list[int]) -> "Memory":
        at = torch.tensor(rows, device=self.real.device)
        return Memory([(keys[at], values[at]) for keys, values in self.layers], self.real[at], self.states[at])


def with_tags(folder: Path, names: list[str]) -> tuple[Words, list[int]]:
    """BERT's tokenizer, in which each tag is one token, and the ids of the tags; those that it cuts become whole ones."""
    from transformers import AddedToken

    words = Words.load(folder)
    cut = [name for name, row in zip(names, words.encode(names), strict=True) if len(row) != 1]
    added = [AddedToken(name, single_word=True, normalized=True) for name in dict.fromkeys(cut)]
    words.tokenizer.add_tokens(added)
    known = words.tokenizer.convert_tokens_to_ids
    whole = {name: known(name) for name in cut}
    ids = [whole[name] if name in whole else row[0] for name, row in zip(names, words.encode(names), strict=True)]
    return Words(words.tokenizer, folder), ids


class Generator(nn.Module):
    def __init__(self, bert: BertModel, tags: list[int], features: int):
        """tags: ids of the tag words, a class each; features: width of a region's."""
        super().__init__()
        width, size = bert.config.hidden_size, bert.config.vocab_size
        self.bert, self.tags = bert, sorted({*tags})
        self.region = nn.Linear(features, width)
        self.transform = BertPredictionHeadTransform(bert.config)
        self.decoder = nn.Linear(width, size)  # untied, as Maria's

    @classmethod
    def begin(cls, folder: Path, words: Words, tags: list[int], features: int) -> "Generator":
        """From a BERT: a new token is the mean of its pieces, a segment that BERT lacks its last one; what tells words begins as
        BERT's own head where the folder has it, its output layer as the input embeddings (Maria's from random numbers)."""
        bert, head = berts.load(folder, torch.float32)
        bert.set_attn_implementation("sdpa")  # which takes a mask of True and False for any precision
        plain = Words.load(folder)
        news = words.tokenizer.convert_ids_to_tokens(range(plain.size, words.size))
        bert.resize_token_embeddings(words.size, mean_resizing=False)
        table, kinds = bert.embeddings.word_embeddings.weight.data, bert.embeddings.token_type_embeddings.weight.data
        for place, pieces in enumerate(plain.encode(news), start=plain.size):
            table[place] = table[pieces].mean(0)
        segments = nn.Embedding(3, table.shape[1])
        segments.weight.data = kinds[[min(kind, len(kinds) - 1) for kind in (RESPONSE, CONTEXT, TAGS)]].clone()
        bert.embeddings.token_type_embeddings = segments
        made = cls(bert, tags, features)
        made.decoder.weight.data = table.clone()
        nn.init.zeros_(made.decoder.bias)
        if head is not None:
            made.transform = head.transform
            told = head.bias.data[: plain.size]  # fewer, where the folder's tokenizer has words that BERT lacks
            made.decoder.bias.data[: len(told)] = told
        return made

    def embed(self, ids: Tensor, places: Tensor, segment: int) -> Tensor:
        """ids [B, T] at places [T] of their part -> [B, T, W]."""
        places = places.clamp(max=self.bert.config.max_position_embeddings - 1).expand_as(ids)
        return self.bert.embeddings(ids, position_ids=places, token_type_ids=torch.full_like(ids, segment))

    def remember(self, context: Tensor, real: Tensor, tags: Tensor, features: Tensor) -> Memory:
        """context [B, L] with real [B, L] (1 = no padding), tags [B, R], features [B, R, D]."""
        parts = [(context, CONTEXT), (tags, TAGS)]
        read = [self.embed(ids, torch.arange(ids.shape[1], device=ids.device), kind) for ids, kind in parts]
        x = torch.cat([*read, self.bert.embeddings.dropout(self.region(features))], dim=1)  # [B, M, W]
        real = torch.cat([real.bool(), real.new_ones(len(x), x.shape[1] - real.shape[1]).bool()], dim=1)  # [B, M]
        cache = DynamicCache()
        states = self.bert.encoder(x, attention_mask=real[:, None, None], past_key_values=cache).last_hidden_state
        return Memory([(layer.keys, layer.values) for layer in cache.layers], real, states)

    def tell(self, ids: Tensor, places: Tensor, sees: Tensor, memory: Memory) -> Tensor:
        """States [B, T, W] of response tokens [B, T]; places [T]; sees [T, T]: whether a token (row) sees another (column)."""
        cache = DynamicCache()
        for number, (keys, values) in enumerate(memory.layers):
            cache.update(keys, values, number)
        x = self.embed(ids, places, RESPONSE)
        seen = [memory.real[:, None, None].expand(-1, 1, len(sees), -1), sees.expand(len(ids), 1, -1, -1)]
        return self.bert.encoder(x, attention_mask=torch.cat(seen, dim=-1), past_key_values=cache).last_hidden_state

    def logits(self, states: Tensor) -> Tensor:
        """[..., W] -> [..., V]."""
        return self.decoder(self.transform(states))

    def tag_states(self, memory: Memory, regions: int) -> Tensor:
        """[B, R, W]; regions stand last, tags before them."""
        return memory.states[:, -2 * regions : -regions]

    def knowledge(self, memory: Memory, regions: int) -> Tensor:
        """The visual knowledge bias [B, V]: the mean logits of a dialogue's own tags, 0 for all that is no tag word."""
        mean = self.transform(self.tag_states(memory, regions)).mean(
            1
        )  # logits are linear in it: the mean may come first
        told = F.linear(mean, self.decoder.weight[self.tags], self.decoder.bias[self.tags])  # [B, tag words]
        bias = told.new_zeros(len(told), self.decoder.out_features)
        return bias.index_copy(1, torch.tensor(self.tags, device=bias.device), told)
