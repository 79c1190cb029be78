"""A small Maria for the tests: random BERT, ViT and detector, shards of plain squares, and a retriever that is trained on them.

`folders(root)` writes the frozen parts and the BERT that the generator begins with, `pictured(root)` the shards,
`learned(root, ...)` trains the retriever, and `maria(...)` gives the system untuned. Colours tell the pictures apart, and each
colour's captions name it.
"""

import io
from pathlib import Path

import checkpoints
import numpy as np
import torch

from vikdf import schemas, systems
from vikdf.baselines import maria as kind

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
LABELS = ["kettle", "vase", "old tree"]  # the last one is no token of the tokenizer
RETRIEVER = {"hidden": 32, "joint": 16, "dropout": 0.0, "margin": 0.5, "tokens": 32, "pool": "mean", "wrong": "all"}
ENTRY = {
    "kind": "maria",
    "bert": "bert",
    "generator": "unilm",
    "vit": "vit",
    "detector": "detector",
    "retriever": RETRIEVER,
    "index": {"kind": "flat"},
}
ENTRY |= {
    "regions": 3,
    "context_tokens": 32,
    "response_tokens": 16,
    "mask_response": 0.7,
    "mask_context": 0.15,
    "mask_tags": 0.15,
}


def folders(root: Path, std: float = 0.1, dropout: float = 0.0) -> Path:
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertModel,
        ViTConfig,
        ViTImageProcessor,
        ViTModel,
        YolosConfig,
        YolosForObjectDetection,
        YolosImageProcessor,
    )

    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    specials = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "eos_token": "[SEP]",
    }
    words = checkpoints.tokenizer(specials, "[CLS] $A [SEP]", sep_token="[SEP]")
    torch.manual_seed(0)
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    shape = tower | {"vocab_size": len(words), "max_position_embeddings": 64} | drop
    wide(BertModel(BertConfig(**shape)), std).save_pretrained(root / "bert")
    wide(BertForMaskedLM(BertConfig(**shape)), std).save_pretrained(root / "unilm")
    for name in ("bert", "unilm"):
        words.save_pretrained(root / name)
    sides = {"image_size": 24, "patch_size": 8}
    wide(ViTModel(ViTConfig(**tower, **sides))).save_pretrained(root / "vit")
    ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(root / "vit")
    named = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    sides["image_size"] = [24, 24]
    config = YolosConfig(**tower, **sides, **named, num_detection_tokens=4, use_mid_position_embeddings=False)
    wide(YolosForObjectDetection(config)).save_pretrained(root / "detector")
    YolosImageProcessor(size={"height": 24, "width": 24}, do_pad=False).save_pretrained(root / "detector")
    return root


def wide(model, std: float = 0.2):
    """Random weights large enough that words and colours change what comes out."""
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=std)
    return model


def square(colour: tuple[int, int, int], seed: int) -> bytes:
    from PIL import Image

    noise = np.random.default_rng(seed).integers(-25, 25, (24, 24, 3))
    stream = io.BytesIO()
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def pictured(root: Path, count: int = 30) -> Path:
    """Shards of that many squares; the last two rows show the same picture."""
    from vikdf.shards import shards

    names = [list(COLOURS)[row % 3] for row in range(count)]
    images = [square(COLOURS[name], seed) for seed, name in enumerate(names)]
    images[-1], names[-1] = images[-2], names[-2]
    empty = {"source": "a", "url": "", "captions": [], "status": "ok", "width": 24, "height": 24}
    said = {"source": "a", "origin": "web", "score": 0.0, "rank": 0, "used": True, "dropped": ""}
    keys = [f"a-{row:09d}" for row in range(count)]
    schemas.write(
        [empty | {"key": key, "image": image} for key, image in zip(keys, images, strict=True)],
        root / "pairs",
        schemas.PAIRS,
    )
    captions = [said | {"key": key, "caption": f"the kettle is {name}"} for key, name in zip(keys, names, strict=True)]
    schemas.write(captions, root / "captions", schemas.CAPTIONS)
    tables = {"captions": root / "captions", "pairs": root / "pairs"}
    shards(rows_per_shard=100, max_shard_bytes=10**9, output=root / "shards", **tables)
    return root / "shards"


def learned(root: Path, places: systems.Places, steps: int = 60) -> Path:
    """What `pretrain` leaves of a retriever, by the one loop; gives its folder."""
    import learns

    from vikdf import loop
    from vikdf.pretrain_baseline import Pairs
    from vikdf.samples import Shards

    lesson, data = kind.pretrainer(ENTRY, places, 1), Shards(places.shards)
    pairs = Pairs(lesson, data, list(range(len(data))), 1)
    numbers = learns.NUMBERS | {"steps": steps, "micro_batch": 30, "learning_rate": 0.003}
    loop.train(lesson, pairs.batch, len(data), loop.Numbers(**numbers), folder=root / "state", journal=None)
    lesson.write(root / "retriever", data)
    return root / "retriever"


def maria(places: systems.Places, seed: int = 1):
    return kind.learner(ENTRY, None, places, {}, seed)
