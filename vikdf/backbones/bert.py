"""A small BERT from scratch: documents in, a transformers BertModel folder out. The IQ-Former takes its layers over."""

from pathlib import Path

from vikdf.backbones import tokenizer as tokenizers
from vikdf.backbones.language import pad
from vikdf.backbones.optimise import optimise

SPECIALS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "eos_token": "[SEP]",
}
POSITIONS = 128  # of the longest text


def config(width: int, layers: int, vocabulary: int) -> dict:
    """The keys of BertConfig that decide its shape."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "intermediate_size": 4 * width,
        "max_position_embeddings": POSITIONS,
    }


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
    """Masked language modelling as BERT's: 15 % of the tokens, of these 80 % masked, 10 % random, 10 % kept."""
    import numpy as np
    import torch
    from transformers import BertConfig, BertForMaskedLM

    documents = [line.replace("\t", " ") for line in texts.read_text().splitlines()]
    tokenizer = tokenizers.train(documents, vocabulary, SPECIALS, template="[CLS] $A [SEP]", sep_token="[SEP]")
    coded = tokenizer(documents, return_attention_mask=False, return_token_type_ids=False)["input_ids"]
    torch.manual_seed(seed)
    shape = BertConfig(**config(width, layers, len(tokenizer)), pad_token_id=tokenizer.pad_token_id)
    model = BertForMaskedLM(shape)
    rng = np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)

    def loss():
        ids = pad([coded[row] for row in rng.integers(0, len(coded), batch)], tokenizer.pad_token_id)  # [B, L]
        chance = torch.rand(ids.shape, generator=noise)
        chance[:, 0] = 1
        chosen = (chance < 0.15) & (ids != tokenizer.pad_token_id)
        given = torch.where(chosen & (chance < 0.12), tokenizer.mask_token_id, ids)
        random_ids = torch.randint(len(tokenizer), ids.shape, generator=noise)
        given = torch.where(chosen & (chance >= 0.12) & (chance < 0.135), random_ids, given)
        hidden = model.bert(given, attention_mask=(ids != tokenizer.pad_token_id).long()).last_hidden_state
        return torch.nn.functional.cross_entropy(model.cls(hidden[chosen]), ids[chosen])

    final = optimise(model, loss, steps=steps, learning_rate=learning_rate, name=output.name)
    model.bert.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return {"loss": final}
