"""Models with random weights at named shapes, for benchmarks: in the folder forms of their ecosystems, read as any other.

    model = shapes.model(shapes.TINY, folder)

TINY is the small shape that the design's figures are told for: a small width, but CLIP's own text vocabulary of 49,408.
demo() is what presets/demo.yaml asks for. A vocabulary may be wider than its tokenizer: the head costs the same.
"""

import json
import random
from pathlib import Path

import torch
import yaml

from vikdf.backbones import clip, language
from vikdf.backbones import tokenizer as tokenizers
from vikdf.backbones.family import FAMILIES
from vikdf.world import texts
from vikdf.world.nouns import make_nouns, scene

ROOT = Path(__file__).parents[1]
PAIRS = {"pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>"}
TINY = {
    "clip": {"pixels": 64, "patch": 8, "width": 128, "layers": 4, "text_layers": 4, "vocabulary": 49408},
    "bert": {"width": 128, "layers": 4},
    "llm": {"width": 256, "layers": 4, "vocabulary": 4096},
    "model": {"queries": 8, "mask_pixels": 16},
    "batch": 16,
}


def preset(name: str = "demo") -> dict:
    return yaml.safe_load((ROOT / f"presets/{name}.yaml").read_text())


def demo() -> dict:
    """The same keys for the demo."""
    settings = preset()
    pretrain, models = settings["pretrain"], settings["backbones"]["models"]
    parts = {part: models[pretrain[part]] for part in ("clip", "bert", "llm")}
    return parts | {"model": pretrain["model"], "batch": pretrain["training"]["micro_batch"]}


def documents(count: int = 2000) -> list[str]:
    """Text of the embedded world, one document a line."""
    return [line.replace("\t", " ") for line in texts.language(make_nouns(1, 90, 30), count, 1)]


def captions(count: int, seed: int = 0, shortest: int = 10, longest: int = 18) -> list[str]:
    """Texts of so many words of the world: 12 to 20 tokens with the two at their ends."""
    rng = random.Random(seed)
    words = sorted({word for line in documents(200) for word in line.split() if word.isalpha()})
    return [" ".join(rng.choices(words, k=rng.randint(shortest, longest))) for _ in range(count)]


def world_captions(count: int) -> list[str]:
    """As the demo's corpora have them."""
    nouns = make_nouns(1, 90, 30)
    return [texts.captions(scene(nouns, 1, "step", i, 0.1), 1, "step", i, 1)[0] for i in range(count)]


def write_clip(folder: Path, shape: dict) -> None:
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    made = tokenizers.train(documents(), 1000, PAIRS, "<start> $A <end>", model_max_length=clip.CONTEXT)
    made.save_pretrained(folder)
    towers = {name: shape[name] for name in ("pixels", "patch", "width", "layers", "text_layers", "vocabulary")}
    about = {"model_cfg": clip.config(**towers), "preprocess_cfg": clip.PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    weights = open_clip.create_model(f"local-dir:{folder}", load_weights=False).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "open_clip_model.safetensors")


def write_bert(folder: Path, shape: dict) -> None:
    from transformers import BertConfig, BertModel

    width = shape["width"]
    config = {"hidden_size": width, "num_hidden_layers": shape["layers"], "num_attention_heads": width // 32}
    BertModel(BertConfig(vocab_size=100, intermediate_size=4 * width, **config)).save_pretrained(folder)


def llm_tokenizer():
    """As the demo's: made from the world's text."""
    kind = FAMILIES["llama"]
    specials = kind.specials | {"extra_special_tokens": kind.extra}
    made = tokenizers.train(documents(), 1000, specials)
    made.chat_template = kind.template
    return made


def write_llm(folder: Path, shape: dict) -> None:
    tokenizer = llm_tokenizer()
    model = language.make_model(tokenizer, shape["width"], shape["layers"], "llama")
    model.resize_token_embeddings(max(shape["vocabulary"], len(tokenizer)), mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write(shape: dict, root: Path) -> dict[str, Path]:
    """The folders of CLIP, BERT and LLM, by name."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # one each, for files that take no time
    for part, writer in {"clip": write_clip, "bert": write_bert, "llm": write_llm}.items():
        torch.manual_seed(1)
        writer(root / part, shape[part])
    return {part: root / part for part in ("clip", "bert", "llm")}


def model(shape: dict, root: Path):
    """The training model with the five losses."""
    from vikdf.model.vikdf import VIKDFForPretraining

    return VIKDFForPretraining.build(**write(shape, root), **shape["model"])
