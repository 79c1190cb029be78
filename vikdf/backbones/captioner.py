"""A small captioner from scratch: pictures and captions in, a transformers image-to-text folder of BLIP's kind out.

The folder holds model, WordPiece tokenizer and image processor: AutoModelForImageTextToText and AutoProcessor load it
like any captioner of the hub. vikdf.caption samples from it.
"""

import re
from collections import Counter
from pathlib import Path

from vikdf import files, schemas
from vikdf.backbones.optimise import optimise
from vikdf.decode import each_opened

LONGEST = 16  # tokens of a caption that is taught: a longer one is chat around a picture, and costs twice the time
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_processor(captions: list[str], vocabulary: int, pixels: int):
    """BLIP's processor: a lower-case WordPiece tokenizer for the captions, and the picture's size and scale.

    The vocabulary holds every character and then the commonest words: the trainer of `tokenizers` breaks ties by
    chance, and the same captions have to give the same bytes.
    """
    from transformers import BertTokenizer, BlipImageProcessor, BlipProcessor

    split = BertTokenizer().backend_tokenizer
    normal = (split.normalizer.normalize_str(text) for text in captions)
    words = Counter(word for text in normal for word, _ in split.pre_tokenizer.pre_tokenize_str(text))
    letters = sorted(set("".join(words)))
    common = sorted((word for word in words if len(word) > 1), key=lambda word: (-words[word], word))
    known = [*SPECIALS, *letters, *(f"##{letter}" for letter in letters), *common][:vocabulary]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(known)}, model_max_length=LONGEST)
    half = [0.5, 0.5, 0.5]
    size = {"height": pixels, "width": pixels}
    return BlipProcessor(BlipImageProcessor(size=size, image_mean=half, image_std=half), tokenizer)


def make_model(tokenizer, pixels: int, patch: int, width: int, layers: int, text_layers: int):
    """BLIP for captions: a ViT, and a text decoder that looks at its patches in each layer."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    both = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width, "initializer_range": 0.02}
    both["num_attention_heads"] = width // 32
    vision = both | {"num_hidden_layers": layers, "image_size": pixels, "patch_size": patch}
    text = both | {"num_hidden_layers": text_layers, "encoder_hidden_size": width, "vocab_size": len(tokenizer)}
    text |= {"max_position_embeddings": LONGEST + 16, "pad_token_id": tokenizer.pad_token_id}
    text |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    text |= {"sep_token_id": tokenizer.sep_token_id}  # BLIP ends a caption at this one
    return BlipForConditionalGeneration(BlipConfig(vision_config=vision, text_config=text, projection_dim=width))


def train(
    *,
    pairs: Path,
    lexicon: Path,
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
) -> dict:
    """Trains on all but a tenth of the pictures; returns how often captions of that tenth say what is true."""
    import numpy as np
    import torch

    table = schemas.read(pairs, schemas.PAIRS, ["image", "captions"])
    captions = table["captions"].to_pylist()
    torch.manual_seed(seed)
    processor = make_processor([text for row in captions for text in row], vocabulary, pixels)
    model = make_model(processor.tokenizer, pixels, patch, width, layers, text_layers)
    opened = [*each_opened(table["image"].to_pylist(), pairs)]
    images = processor(images=opened, return_tensors="pt")["pixel_values"]  # [N, 3, S, S]
    held = len(images) // 10
    tokens = [processor.tokenizer(row)["input_ids"] for row in captions]
    taught = [(row, ids) for row in range(held, len(images)) for ids in tokens[row] if len(ids) <= LONGEST]
    rng = np.random.default_rng(seed)

    def loss() -> torch.Tensor:
        rows, said = zip(*(taught[i] for i in rng.integers(0, len(taught), batch)), strict=True)
        said = [torch.tensor(ids) for ids in said]
        ids = torch.nn.utils.rnn.pad_sequence(said, batch_first=True, padding_value=-100)  # [B, L]
        # the decoder is causal and padding stands on the right: no mask is needed
        return model(pixel_values=images[list(rows)], input_ids=ids.clamp(min=0), labels=ids).loss

    final = optimise(model, loss, steps=steps, learning_rate=learning_rate, name=output.name)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    return {"loss": final, "held_back": held, **checked(model, processor, images[:held], captions[:held], lexicon)}


def checked(model, processor, images, captions: list[list[str]], lexicon: Path) -> dict:
    """Of the captions sampled for held-back pictures: by kind of word, the share that agrees with the published ones.

    A caption is judged on a kind (noun, color, place ...) where it and the published ones each say one word of it.
    """
    import torch

    torch.manual_seed(0)
    words = files.read_json(lexicon)
    kinds = {"noun": words["nouns"], **words["attributes"]}
    right, judged = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
    for start in range(0, len(images), 100):
        sampling = {"do_sample": True, "top_p": 0.9, "top_k": 0, "num_return_sequences": 4, "max_new_tokens": LONGEST}
        ids = model.generate(images[start : start + 100], **sampling)
        for i, text in enumerate(processor.batch_decode(ids, skip_special_tokens=True)):
            said, told = spoken([text]), spoken(captions[start + i // 4])
            for kind, values in kinds.items():
                if len(true := told & set(values)) == 1 and len(claimed := said & set(values)) == 1:
                    right[kind] += claimed == true
                    judged[kind] += 1
    scores = {f"{kind}_right": right[kind] / judged[kind] for kind in kinds if judged[kind]}
    return scores | {f"{kind}_judged": judged[kind] for kind in kinds}


def spoken(texts: list[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
