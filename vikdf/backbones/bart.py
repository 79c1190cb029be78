"""A small BART from scratch: documents in, a transformers BartForConditionalGeneration folder with its tokenizer out.

A document is a line `hint<TAB>turn<TAB>turn ...` as those of vikdf.backbones.language; the hint is left out. The model
reads a dialogue whose spans of words are each one `<mask>`, and tells it whole. Turns end with `</s>`, also inside.
"""

from pathlib import Path

from vikdf.backbones import tokenizer as tokenizers
from vikdf.backbones.language import pad
from vikdf.backbones.optimise import optimise

SPECIALS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "eos_token": "</s>",
}
POSITIONS = 256  # of the longest text
SHARE, SPAN = 0.3, 3.0  # BART's own: of the tokens so many are hidden, in spans of Poisson's length


def config(width: int, layers: int, vocabulary: int) -> dict:
    """The keys of BartConfig that decide its shape and its start; `layers` in the encoder, as many in the decoder."""
    sides = {"layers": layers, "attention_heads": width // 32, "ffn_dim": 4 * width}
    shape = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in sides.items()}
    start = {"init_std": 0.07}  # as the small language model: with BART's 0.02 it learns to copy later
    return {"d_model": width, "vocab_size": vocabulary, "max_position_embeddings": POSITIONS} | shape | start


def make_model(tokenizer, width: int, layers: int):
    from transformers import BartConfig, BartForConditionalGeneration

    ids = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    ids |= dict.fromkeys(["eos_token_id", "decoder_start_token_id", "forced_eos_token_id"], tokenizer.eos_token_id)
    return BartForConditionalGeneration(BartConfig(**config(width, layers, len(tokenizer)), **ids))


def encode(tokenizer, document: str) -> list[int]:
    """<s> turn </s> turn ... </s>"""
    turns = tokenizer(document.split("\t")[1:], add_special_tokens=False, return_token_type_ids=False)["input_ids"]
    return [tokenizer.bos_token_id, *(i for turn in turns for i in [*turn, tokenizer.eos_token_id])]


def infill(ids: list[int], rng, mask: int) -> tuple[list[int], list[bool]]:
    """The row with spans replaced by one `mask` each (an empty span puts one in between), and which tokens were hidden."""
    hidden, opened = [False] * len(ids), set()
    left = round(SHARE * (len(ids) - 2))  # start and end are always shown
    while left > 0:
        length = min(int(rng.poisson(SPAN)), left)
        start = int(rng.integers(1, len(ids) - length))
        hidden[start : start + length] = [True] * length
        opened.add(start)
        left -= max(length, 1)
    shown = []
    for place, token in enumerate(ids):
        if place in opened or (hidden[place] and not hidden[place - 1]):
            shown += [mask] if not shown or shown[-1] != mask else []
        shown += [] if hidden[place] else [token]
    return shown, hidden


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
    """Trains by text infilling; returns how many hidden tokens of held-back documents it tells rightly."""
    import numpy as np
    import torch

    documents = texts.read_text().splitlines()
    spoken = (document.split("\t", 1)[1].replace("\t", " ") for document in documents)
    tokenizer = tokenizers.train(spoken, vocabulary, SPECIALS, template="<s> $A </s>", model_max_length=POSITIONS)
    coded = [encode(tokenizer, document)[:POSITIONS] for document in documents]
    held = len(coded) // 20
    torch.manual_seed(seed)
    model = make_model(tokenizer, width, layers)
    rng = np.random.default_rng(seed)

    def loss():
        rows = [coded[row] for row in rng.integers(held, len(coded), batch)]
        said, labels, _ = batched(model, tokenizer, rows, rng)
        at = labels != tokenizer.pad_token_id
        return torch.nn.functional.cross_entropy(said[at], labels[at])

    final = optimise(model, loss, steps=steps, learning_rate=learning_rate, name=output.name)
    model.generation_config.do_sample = False
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return {"loss": final, "held_back": held, **filled(model, tokenizer, coded[:held], seed)}


def batched(model, tokenizer, rows: list[list[int]], rng) -> tuple:
    """Logits [B, L, V], the whole rows [B, L], and where a token was hidden [B, L]; the decoder starts with `</s>`, as BART's."""
    shown, hidden = zip(*(infill(row, rng, tokenizer.mask_token_id) for row in rows), strict=True)
    given = pad(shown, tokenizer.pad_token_id)  # [B, E]
    labels = pad(rows, tokenizer.pad_token_id)  # [B, L]
    before = labels.roll(1, dims=1)
    before[:, 0] = tokenizer.eos_token_id
    mask = (given != tokenizer.pad_token_id).long()
    return model(given, attention_mask=mask, decoder_input_ids=before).logits, labels, pad(hidden, False)


def filled(model, tokenizer, rows: list[list[int]], seed: int) -> dict[str, float]:
    """Share of hidden tokens told rightly, the true ones before them given."""
    import numpy as np
    import torch

    rng, right, count = np.random.default_rng(seed), 0, 0
    for start in range(0, len(rows), 100):
        with torch.no_grad():
            said, labels, hidden = batched(model, tokenizer, rows[start : start + 100], rng)
        right += int((said.argmax(-1) == labels)[hidden].sum())
        count += int(hidden.sum())
    return {"fill_accuracy": right / max(count, 1), "filled": count}
