"""A small ViT from scratch: pictures and captions in, a transformers ViTModel folder out, pooler and image processor with it.

It learns to tell which content words stand in a picture's captions, so its pooled vector says what the picture shows. The
layer that tells the words is left out of the folder, as hubs' ViTModel folders leave out the one that told ImageNet's classes.
"""

import re
from collections import Counter
from pathlib import Path

from vikdf import schemas
from vikdf.backbones.optimise import optimise
from vikdf.decode import each_opened

HALF = [0.5, 0.5, 0.5]
RAREST, COMMONEST = (
    5,
    0.5,
)  # pictures that a word is told of: fewer teach nothing, and a word of half of all tells nothing
# English words of grammar; captions are of any corpus, so no list of a world's nouns is asked for.
GRAMMAR = set(
    "a about all am an and any are as at be because been before but by can could did do does for from had has have he her here "
    "him his how i if in into is it its just like me more much my no not of on one or our out over she so some than that the "
    "their them then there these they this those to too up us very was we were what when where which who why will with would "
    "you your".split()
)


def make_model(pixels: int, patch: int, width: int, layers: int):
    """ViT with its pooler, tanh of a layer on the first vector; weights are drawn by their width: a short training needs it."""
    from transformers import ViTConfig, ViTModel

    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 32}
    shape |= {"intermediate_size": 4 * width, "image_size": pixels, "patch_size": patch}
    return ViTModel(ViTConfig(**shape, initializer_range=width**-0.5))


def make_processor(pixels: int):
    from transformers import ViTImageProcessor

    return ViTImageProcessor(size={"height": pixels, "width": pixels}, image_mean=HALF, image_std=HALF)


def train(
    *,
    pairs: Path,
    output: Path,
    seed: int,
    steps: int,
    batch: int,
    learning_rate: float,
    pixels: int,
    patch: int,
    width: int,
    layers: int,
) -> dict:
    """Trains on all but a tenth of the pictures; returns how well that tenth's words are told."""
    import numpy as np
    import torch

    table = schemas.read(pairs, schemas.PAIRS, ["image", "captions"])
    words, told = content(table["captions"].to_pylist())
    if not words:
        raise ValueError(f"{pairs} has no word in the captions of {RAREST} pictures: give it more pictures")
    told = torch.from_numpy(told)  # [N, W]
    opened = [*each_opened(table["image"].to_pylist(), pairs)]
    images = make_processor(pixels)(images=opened, return_tensors="pt")["pixel_values"]  # [N, 3, S, S]
    torch.manual_seed(seed)
    model = make_model(pixels, patch, width, layers)
    both = torch.nn.ModuleDict({"vit": model, "words": torch.nn.Linear(width, len(words))})
    held = len(images) // 10
    rng = np.random.default_rng(seed)

    def loss() -> torch.Tensor:
        rows = rng.integers(held, len(images), batch)
        said = both["words"](model(pixel_values=images[rows]).pooler_output)  # [B, W]
        return torch.nn.functional.binary_cross_entropy_with_logits(said, told[rows], reduction="none").sum(1).mean()

    final = optimise(both, loss, steps=steps, learning_rate=learning_rate, name=output.name)
    with torch.no_grad():
        said = both["words"](model(pixel_values=images[:held]).pooler_output)
    model.save_pretrained(output)
    make_processor(pixels).save_pretrained(output)
    return {"loss": final, "held_back": held, "words": len(words), **precision(said.numpy(), told[:held].numpy())}


def content(captions: list[list[str]]) -> tuple:
    """The words that tell something, in the order of the alphabet; [N, W]: 1 where a picture's captions have the word."""
    import numpy as np

    said = [set(re.findall(r"[a-z]+", " ".join(row).lower())) - GRAMMAR for row in captions]
    pictures = Counter(word for row in said for word in row)
    words = sorted(word for word, count in pictures.items() if RAREST <= count <= COMMONEST * len(captions))
    place = {word: number for number, word in enumerate(words)}
    told = np.zeros((len(captions), len(words)), np.float32)
    for number, row in enumerate(said):
        told[number, sorted(place[word] for word in row if word in place)] = 1
    return words, told


def precision(said, told) -> dict:
    """Mean average precision of the words that the pictures have; and the same where pictures are ranked by nothing."""
    import numpy as np

    found = []
    for scores, true in zip(said.T, told.T, strict=True):
        if true.any():
            hits = true[np.argsort(-scores, kind="stable")]
            ranks = np.flatnonzero(hits) + 1
            found.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    by_chance = told.mean(0)[told.any(0)]
    return {"average_precision": float(np.mean(found)), "by_chance": float(np.mean(by_chance))} if found else {}
