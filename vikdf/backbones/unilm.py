"""A small UniLM from scratch: documents in, a transformers BertForMaskedLM folder out. Maria's generator begins with it.

A document `hint<TAB>turn<TAB>turn ...` is cut at a random place behind its first part. What stands before is read both ways, what
follows is told from left to right, each token behind a [MASK] that sees what comes before it: UniLM's sequence-to-sequence
objective. Its two others (masked words, left to right alone) are left out, since no system here uses it so. What is told has
segment 0, what is read 1, and each counts its places from 0.

It begins so that a word is handed on as it is: a head gives what it looks at, the layer before the output what it is given, and
words weigh more than places. Then it need but learn where to look: in the demo's steps it tells rightly .83 of the tokens that
also stand in what it has read, separators among them; begun at random, .76.

Shapes: B batch, L tokens read, T tokens told.
"""

from pathlib import Path

from vikdf.backbones import bert
from vikdf.backbones import tokenizer as tokenizers
from vikdf.backbones.language import pad
from vikdf.backbones.optimise import optimise

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # documents are seen once or twice
PLACES = 0.3  # size of the vectors of places and segments beside those of words


def make_model(tokenizer, width: int, layers: int):
    import torch
    from transformers import BertConfig, BertForMaskedLM

    shape = bert.config(width, layers, len(tokenizer)) | NO_DROPOUT | {"initializer_range": width**-0.5}
    model = BertForMaskedLM(BertConfig(**shape, pad_token_id=tokenizer.pad_token_id))
    model.set_attn_implementation("sdpa")
    embeddings = model.bert.embeddings
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            value = torch.nn.init.orthogonal_(layer.attention.self.value.weight)
            layer.attention.output.dense.weight.copy_(value.T)
        torch.nn.init.eye_(model.cls.predictions.transform.dense.weight)
        embeddings.position_embeddings.weight.mul_(PLACES)
        embeddings.token_type_embeddings.weight.mul_(PLACES)
    return model


def train(
    *,
    texts: Path,
    output: Path,
    seed: int,
    steps: int,
    batch: int,
    learning_rate: float,
    width: int,
    layers: int,
    vocabulary: int,
) -> dict:
    """Trains on all but a twentieth of the documents; returns how many of that part's tokens it tells rightly, and of those among
    them that it has read."""
    import numpy as np
    import torch

    documents = [line.strip("\t").split("\t") for line in texts.read_text().splitlines()]  # some have no hint
    spoken = (" ".join(document) for document in documents)
    tokenizer = tokenizers.train(spoken, vocabulary, bert.SPECIALS, template="[CLS] $A [SEP]", sep_token="[SEP]")
    coded = [encode(tokenizer, document) for document in documents]
    held = len(coded) // 20
    torch.manual_seed(seed)
    model = make_model(tokenizer, width, layers)
    rng = np.random.default_rng(seed)

    def loss():
        cuts = cut([coded[row] for row in rng.integers(held, len(coded), batch)], rng)
        return torch.nn.functional.cross_entropy(*told(model, tokenizer, *cuts))

    final = optimise(model, loss, steps=steps, learning_rate=learning_rate, name=output.name)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return {"loss": final, "held_back": held, **right(model, tokenizer, coded[:held], seed)}


def encode(tokenizer, parts: list[str]) -> tuple[list[int], int]:
    """The parts, each with a separator behind it, as many tokens as there are places; and where what may be told begins."""
    rows = [[*row, tokenizer.sep_token_id] for row in tokenizer(parts, add_special_tokens=False)["input_ids"]]
    ids = [token for row in rows for token in row][: bert.POSITIONS - 2]
    return ids, min(len(rows[0]), len(ids) - 1)


def cut(rows: list[tuple[list[int], int]], rng) -> tuple[list[list[int]], list[list[int]]]:
    """What is read of each row, and what is told."""
    places = [int(rng.integers(first, len(ids))) for ids, first in rows]
    pairs = [(ids[:place], ids[place:]) for (ids, _), place in zip(rows, places, strict=True)]
    read, said = zip(*pairs, strict=True)
    return read, said


def told(model, tokenizer, read: list[list[int]], said: list[list[int]]) -> tuple:
    """Logits [tokens, V] and ids [tokens] of all that is told, row after row."""
    import torch

    from vikdf.model.unified import twice

    fill = tokenizer.pad_token_id
    before = pad([[tokenizer.cls_token_id, *row] for row in read], fill)  # [B, L]
    targets = pad(said, fill)  # [B, T]
    given = torch.cat([torch.full_like(targets[:, :1], tokenizer.cls_token_id), targets[:, :-1]], dim=1)
    ids = torch.cat([before, given, torch.full_like(targets, tokenizer.mask_token_id)], dim=1)  # [B, L + 2 T]
    long, count = before.shape[1], targets.shape[1]
    places = torch.cat([torch.arange(long), torch.arange(count), torch.arange(count) + 1])
    sees = torch.zeros(long + 2 * count, long + 2 * count, dtype=torch.bool)
    sees[:, :long], sees[long:, long:] = True, twice(count)
    real = torch.cat([before != fill, torch.ones_like(ids[:, long:], dtype=torch.bool)], dim=1)  # [B, L + 2 T]
    segments = (torch.arange(ids.shape[1]) < long).long().expand_as(ids)
    x = model.bert.embeddings(ids, position_ids=places.expand_as(ids), token_type_ids=segments)
    mask = (sees & real[:, None, :])[:, None]  # [B, 1, L + 2 T, L + 2 T]
    states = model.bert.encoder(x, attention_mask=mask).last_hidden_state[:, long + count :]
    at = targets != fill
    return model.cls(states[at]), targets[at]


def right(model, tokenizer, rows: list[tuple[list[int], int]], seed: int) -> dict[str, float]:
    """Share of tokens that are told rightly, the true ones before them given; and of those that stand in what was read."""
    import numpy as np
    import torch

    rng, hits, again = np.random.default_rng(seed), [], []
    for start in range(0, len(rows), 100):
        read, said = cut(rows[start : start + 100], rng)
        with torch.no_grad():
            logits, targets = told(model, tokenizer, read, said)
        hits += (logits.argmax(-1) == targets).tolist()
        again += [token in seen for seen, row in zip(read, said, strict=True) for token in row]
    copied = [hit for hit, repeats in zip(hits, again, strict=True) if repeats]
    return {"told_right": sum(hits) / max(1, len(hits)), "copied_right": sum(copied) / max(1, len(copied))}
