"""A small CLIP from scratch, with open_clip's own parts: pictures and captions in, an open_clip `local-dir:` folder out.

`shuffled: true` breaks every pair (the captions go to other pictures): the control that asks whether vision matters.
"""

import json
from pathlib import Path

from vikdf import files, order, schemas
from vikdf.backbones import tokenizer as tokenizers
from vikdf.backbones.optimise import optimise
from vikdf.decode import each_opened

CONTEXT = 30  # tokens of a text: the longest dialogue context of the world fits
SPECIALS = {"pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>"}


def config(pixels: int, patch: int, width: int, layers: int, text_layers: int, vocabulary: int) -> dict:
    heads = width // 32
    vision = {"image_size": pixels, "patch_size": patch, "width": width, "layers": layers, "head_width": 32}
    text = {"context_length": CONTEXT, "vocab_size": vocabulary, "width": width, "heads": heads, "layers": text_layers}
    text |= {"hf_tokenizer_name": "."}  # the tokenizer lies in the same folder
    return {"embed_dim": width, "vision_cfg": vision, "text_cfg": text}


PREPROCESS = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


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
    text_layers: int,
    vocabulary: int,
    shuffled: bool,
) -> dict:
    """Trains on (picture, caption) pairs with open_clip's contrastive loss; returns its scores on held-back pairs."""
    import numpy as np
    import open_clip
    import torch

    images, tokens = prepare(pairs, output, seed, pixels, patch, width, layers, text_layers, vocabulary, shuffled)
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{output}", load_weights=False)
    held = len(images) // 10
    rng = np.random.default_rng(seed)
    loss_of = open_clip.ClipLoss()

    def loss() -> torch.Tensor:
        rows = rng.integers(held, len(images), batch)
        texts = torch.stack([tokens[row][rng.integers(len(tokens[row]))] for row in rows])
        return loss_of(*model(images[rows], texts))

    final = optimise(model, loss, steps=steps, learning_rate=learning_rate, name=output.name)
    with torch.no_grad():
        image = model.encode_image(images[:held], normalize=True)
        text = model.encode_text(torch.stack([row[0] for row in tokens[:held]]), normalize=True)
        hits = ((image @ text.T).argsort(dim=1, descending=True)[:, :10] == torch.arange(held)[:, None]).any(1)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    files.save_tensors(weights, output / "open_clip_model.safetensors")
    return {"loss": final, "image_to_text_recall_at_10": hits.float().mean().item(), "held_back": held}


def prepare(pairs: Path, output: Path, seed: int, pixels: int, patch: int, width: int, layers: int, text_layers: int,
            vocabulary: int, shuffled: bool) -> tuple:  # fmt: skip
    """Writes tokenizer and configuration to the folder; pictures [N, 3, S, S] and the token ids of their captions, N x [c, L]."""
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    table = schemas.read(pairs, schemas.PAIRS, ["image", "captions"])
    captions = table["captions"].to_pylist()
    if shuffled:
        captions = [captions[place] for place in order.derangement(len(captions), seed)]
    tokenizer = tokenizers.train(
        (caption for row in captions for caption in row),
        vocabulary,
        SPECIALS,
        template="<start> $A <end>",
        truncation_side="left",  # of a long dialogue the end counts
        model_max_length=CONTEXT,
    )
    tokenizer.save_pretrained(output)
    shape = config(pixels, patch, width, layers, text_layers, len(tokenizer))
    about = {"model_cfg": shape, "preprocess_cfg": PREPROCESS}
    (output / "open_clip_config.json").write_text(json.dumps(about, indent=1) + "\n")
    encode = open_clip.get_tokenizer(f"local-dir:{output}")
    see = image_transform_v2(PreprocessCfg(size=pixels, **PREPROCESS), is_train=False)
    images = torch.stack([see(picture) for picture in each_opened(table["image"].to_pylist(), pairs)])
    return images, [encode(row) for row in captions]
