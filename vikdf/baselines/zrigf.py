"""ZRIGF (Zhang et al. 2023): pictures that match the dialogue are looked up, and the answer is told from both.

First it learns from image-text pairs which picture belongs to which text (vikdf.baselines.parts.pairing). Then it is tuned
on text-only dialogues: the context finds its nearest pictures; their tokens, weighed by how well each matches, make one
picture; text and picture read each other; and a BART decoder whose layers have a second cross-attention and gates tells
the answer (vikdf.baselines.parts.transfer). All but the look-up is tuned. What goes down:
    L = smoothed cross-entropy of the answer + weight * L_preserve
    L_preserve  binary cross-entropy of s * cos(text, picture), over all texts and all found pictures of the batch: it keeps
                a text near to its own pictures

Mended or chosen, where the released code is in doubt: contexts alone look pictures up, in training and in use (there the
true answer was part of the query, at test too); the labels of L_preserve stand in the order of its logits, and a
picture that another row found as well is its own there too; a picture stands once in the index; padding is not read; matching
reads whole pictures, rebuilding covered ones; the matrix that joins text and picture begins as `join_start` says:
`random` as in the original, or `bart`: it hands on what BART's own layer would; the text pooler begins with what differs
between texts. Look-ups keep the weights of pretraining.

In: folders of BART and of a ViT, the folder of its own pretraining, shards. Out: answers and how likely a given one is.
Shapes: B batch, L text tokens, T answer tokens, P image patches + 1, D width, k pictures a dialogue, V vocabulary.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vikdf.baselines.parts import product
from vikdf.baselines.parts.index import Index
from vikdf.baselines.parts.matching import CrossBlock, Matcher, Retriever, read, tell_apart
from vikdf.baselines.parts.pairing import Pairing
from vikdf.baselines.parts.sights import Eye, Sights
from vikdf.baselines.parts.told import row_sizes
from vikdf.baselines.parts.transfer import Transfer, additive, causal
from vikdf.model import checkpoint, pretrained
from vikdf.model.answering import Answering, turns_of
from vikdf.model.search import search
from vikdf.model.words import Words

IMAGES = "retrieved"
PAIRING = ("longest", "mask_pixels", "mask_image", "mask_shown", "index")  # of an entry: of the first stage
TUNING = ("smoothing", "join_start")  # and of the second
ASIDE = ("retriever.",)  # not tuned: it lies in BART's folder and in that of pretraining


class ZRIGF(Answering):
    images = IMAGES

    def __init__(
        self,
        bart: nn.Module,
        matcher: Matcher,
        retriever: Retriever,
        sights: Sights,
        words: Words,
        *,
        heads: int,
        dropout: float,
        weight: float,
        smoothing: float,
        join_start: str,
    ):
        super().__init__()
        self.settings = {"heads": heads, "dropout": dropout, "weight": weight}
        self.settings |= {"smoothing": smoothing, "join_start": join_start}
        self.bart, self.matcher, self.retriever, self.sights, self.words = bart, matcher, retriever, sights, words
        self.weight, self.smoothing, self.folders = weight, smoothing, {}
        self.text_block = CrossBlock(bart.config.d_model, heads, dropout)
        self.transfer = nn.ModuleList(Transfer(bart.config, join_start) for _ in bart.model.decoder.layers)
        self.first, self.room = bart.config.decoder_start_token_id, bart.config.max_position_embeddings - 2

    def prompts(self, contexts: list[list[str]]) -> list[list[int]]:
        return self.words.join(turns_of(contexts), self.room)

    def said(self, responses: list[str]) -> list[list[int]]:
        """Ids of each response with its end; of one beyond the decoder's positions the start."""
        return [[*row[: self.room - 1], self.words.end] for row in self.words.encode(responses)]

    def see(self, contexts: list[list[str]]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B, k, P, D] and unit vectors [B, k, D] of the pictures found, and their places in the index [B, k]."""
        places = self.retriever(contexts)
        once, where = places.unique(return_inverse=True)  # a picture that several rows found is encoded once
        pixels = self.sights.eye.normal(self.sights(once.tolist()).to(places.device))
        tokens, vectors = self.matcher.image(pixels)
        return tokens[where], vectors[where], places

    def read(self, contexts: list[list[str]]) -> tuple[dict[str, Tensor], Tensor]:
        """What the decoder gets to know of each dialogue, and L_preserve, summed."""
        text, mask = read(self.bart.model.encoder, self.words, self.prompts(contexts))  # [B, L, D]
        tokens, vectors, places = self.see(contexts)
        own, scale = self.matcher.text(text), self.matcher.log_scale.exp()  # [B, D]
        weights = (scale * torch.einsum("bd,bkd->bk", own, vectors)).softmax(dim=-1)  # [B, k]
        picture = torch.einsum("bk,bkpd->bpd", weights.to(tokens.dtype), tokens)  # [B, P, D]
        memory = {"text": self.text_block(text, picture), "mask": mask}
        memory["vision"] = self.matcher.block(picture, text, mask)
        return memory, preserve(scale, own, vectors, places)

    def decode(self, ids: Tensor, text: Tensor, mask: Tensor, vision: Tensor) -> Tensor:
        """ids [B, T] from the decoder's first token on -> states [B, T, D]."""
        decoder = self.bart.model.decoder
        x = decoder.layernorm_embedding(decoder.embed_tokens(ids) + decoder.embed_positions(ids))
        x = F.dropout(x, p=decoder.dropout, training=self.training)
        before, reading = causal(ids.shape[1], x), additive(mask[:, None, None].bool(), x.dtype)
        for new, layer in zip(self.transfer, decoder.layers, strict=True):
            x = new(layer, x, before, text, reading, vision)
        return x

    def head(self, states: Tensor) -> Tensor:
        return (self.bart.lm_head(states) + self.bart.final_logits_bias).float()  # [..., V]

    def logits(self, memory: dict[str, Tensor], responses: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Of all tokens of all responses [tokens, V], the tokens themselves, and how many each response has [B]."""
        rows, device = self.said(responses), memory["mask"].device
        targets, real = self.words.pad(rows, device)  # [B, T]
        given, _ = self.words.pad([[self.first, self.words.start, *row[:-1]] for row in rows], device)  # [B, T + 1]
        states = self.decode(given, **memory)[:, 1:]  # the first token tells the start, as BART learned it
        return self.head(states[real.bool()]), targets[real.bool()], real.sum(1)

    def nll(self, contexts: list[list[str]], responses: list[str]) -> tuple[Tensor, Tensor]:
        once = [*dict.fromkeys(map(tuple, contexts))]  # the choices of a cloze share their context
        where = [once.index(tuple(turns)) for turns in contexts]
        memory = {name: value[where] for name, value in self.read([[*turns] for turns in once])[0].items()}
        logits, targets, counts = self.logits(memory, responses)
        each = F.cross_entropy(logits, targets, reduction="none")
        owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        return each.new_zeros(len(counts)).index_add(0, owner, each), counts

    def counts(self, batch: dict) -> dict[str, int]:
        rows = len(batch["contexts"])
        return {"nll": sum(map(len, self.said(batch["responses"]))), "preserve": rows * rows * self.retriever.top}

    def shares(self, batch: dict, whole: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        memory, kept = self.read(batch["contexts"])
        logits, targets, _ = self.logits(memory, batch["responses"])
        smoothed = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=self.smoothing)
        with torch.no_grad():
            plain = F.cross_entropy(logits, targets, reduction="sum")
        shares = {"nll": plain / whole["nll"], "preserve": kept / whole["preserve"]}
        return smoothed / whole["nll"] + self.weight * shares["preserve"], shares

    def lengths(self, contexts: list[list[str]]) -> list[int]:
        return [len(row) for row in self.prompts(contexts)]

    def sizes(self, contexts: list[list[str]], responses: list[str]) -> list[int]:
        return row_sizes(self.words, self.lengths, contexts, responses)

    def step(self, prefix: Tensor, **memory: Tensor) -> Tensor:
        return self.head(self.decode(F.pad(prefix, (1, 0), value=self.first), **memory)[:, -1])  # [R, V]

    @torch.no_grad()
    def answers(self, contexts: list[list[str]], *, max_new_tokens: int, **decoding: int) -> list[str]:
        memory, _ = self.read(contexts)
        ends = {"start": self.words.start, "end": self.words.end, "max_new_tokens": min(max_new_tokens, self.room)}
        return self.words.decode(search(self.step, memory, len(contexts), **ends, **decoding))

    def save(self, folder, *, trained: dict[str, int] | None = None, run: dict | None = None) -> None:
        trained = checkpoint.trainable(self) if trained is None else trained
        told = {"settings": self.settings, "tokenizer": self.words.tokenizer, "trained": trained, "run": run}
        product.write(folder, "zrigf", product.own(self, ASIDE), frozen=self.folders, **told)


def preserve(scale: Tensor, texts: Tensor, vectors: Tensor, places: Tensor) -> Tensor:
    """Summed over all pairs of a text [B, D] and a found picture [B, k, D] of the batch: is it among the text's own?"""
    with torch.autocast(texts.device.type, enabled=False):
        logits = scale * texts @ vectors.flatten(0, 1).T  # [B, B k]
        own = (places[:, :, None] == places.flatten()).any(dim=1)  # [B, B k]: in the order of the logits
        return F.binary_cross_entropy_with_logits(logits, own.to(logits.dtype), reduction="sum")


def _new(entry: dict, places, seed: int) -> tuple[nn.Module, Matcher, Words]:
    """BART, and a matcher around the ViT whose new parts are untrained."""
    from transformers import BartForConditionalGeneration, ViTModel

    bart = pretrained.load(BartForConditionalGeneration, places.backbones / entry["bart"], torch.float32)
    vit = pretrained.load(ViTModel, places.backbones / entry["vit"], torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        matcher = Matcher(vit, width=bart.config.d_model, heads=entry["heads"], dropout=entry["dropout"])
    return bart, matcher, Words.load(places.backbones / entry["bart"])


def pretrainer(entry: dict, places, seed: int) -> Pairing:
    bart, matcher, words = _new(entry, places, seed)
    eye, settings = Eye.load(places.backbones / entry["vit"]), {name: entry[name] for name in PAIRING}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        tell_apart(matcher.pooler, bart.model.encoder, words)
        return Pairing(bart.model.encoder, matcher, words, eye, weight=entry["weights"]["rebuild"], **settings)


def learner(entry: dict, start: Path, places, lora: dict, seed: int) -> ZRIGF:
    from vikdf.samples import Shards

    bart, matcher, words = _new(entry, places, seed)
    weights = checkpoint.read_weights(places.pretrained, "matcher.")
    weights.pop("vit.embeddings.mask_token", None)  # nothing is covered any more
    product.load(matcher, weights, (), places.pretrained)
    index = Index.load(places.pretrained)
    retriever = Retriever(
        bart.model.encoder, matcher.pooler, index, words, longest=entry["longest"], top=entry["images"]
    )
    sights = Sights(Shards(places.shards), index.names, Eye.load(places.backbones / entry["vit"]))
    settings = {name: entry[name] for name in ("heads", "dropout", *TUNING)} | {"weight": entry["weights"]["preserve"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 2)
        made = ZRIGF(bart, matcher, retriever, sights, words, **settings)
    made.folders = {"bart": places.backbones / entry["bart"], "pretrained": places.pretrained}
    return made


def answerer(entry: dict, folder: Path, places) -> ZRIGF:
    made = learner(entry, folder, places, {}, 1)
    _, tensors = product.read(folder, "zrigf", made.folders)
    product.load(made, tensors, ASIDE, folder)
    return made
