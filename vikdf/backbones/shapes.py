"""Backbones without their weights, on the meta device: every width and every layer is there, and no memory is taken.

In: an entry of `backbones.models`. Its architecture stands in the trainer's own numbers (forms clip, bert, unilm and language; in
the folder made of them, if it is there), in config.json of the folder that `path` names, in the key `architecture` (config.json's
own keys), or in the folder that the stage `backbones` made of an entry of this form. Out: outlines to build the model from.
    llm = shapes.llm("llm", {"form": "hub", "architecture": {"model_type": "llama", "hidden_size": 4096}}, Path("data/backbones"))
"""

import difflib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from vikdf import files
from vikdf.backbones import bert as bert_trainer
from vikdf.backbones import clip as clip_trainer
from vikdf.backbones import family as families
from vikdf.backbones import language

TRAINED = {"clip": "clip", "bert": "bert", "unilm": "unilm", "llm": "language"}  # part -> the form that trains it here
SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
CLIP = ("text_config", "vision_config", "projection_dim")
OPEN_CLIP, TRANSFORMERS = "open_clip_config.json", "config.json"


@dataclass(frozen=True)
class Stack:
    """A transformer as its cost sees it: what a position is multiplied with, and what a backward pass must keep of it."""

    width: int
    layers: int
    attention: int  # layers x heads x width of a head
    matrices: int  # weights of all layers' matrices: two FLOPs each for every position
    kept: int  # numbers that a position's gradient needs, all layers together, without the norms' inputs
    keys: int  # numbers that a position leaves in the cache of keys and values
    inner: int  # width inside the feed-forward net
    entries: int = field(
        compare=False
    )  # matrices of a layer that read states of `width`; some models join q, k and v in one


class Outline(nn.Module):
    """A frozen backbone on the meta device, with the sizes that the model asks it for."""

    def __init__(self, model: nn.Module, **sizes):
        super().__init__()
        self.model, self.folder = model.eval().requires_grad_(False), None
        self.__dict__.update(sizes)


def read(part: str, name: str, entry: dict, backbones: Path) -> dict:
    """The architecture as its ecosystem writes it down."""
    made = _made(backbones / name, entry["form"])
    if entry["form"] == TRAINED[part]:
        numbers = trained(part, entry)
        fits = made and all(key.endswith("vocab_size") for key in _differences(numbers, made))
        return made if fits else numbers  # a tokenizer may find fewer entries than it is allowed
    if entry["form"] == "open_clip":
        return {"model_cfg": _named(entry["name"])}
    if "path" in entry and (found := _config(Path(entry["path"].removeprefix("local-dir:")))):
        return found
    if "architecture" in entry:
        return entry["architecture"]
    if made:
        return made
    raise ValueError(
        f"backbones.models.{name} does not tell its architecture: expected a folder with config.json at `path`, or the key "
        f"`architecture` with the model's config.json in it, as presets/paper.yaml has it; or make {backbones / name} first"
    )


def _named(name: str) -> dict:
    """open_clip ships the architectures of all its names."""
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), n=1, cutoff=0)
        raise ValueError(f"open_clip knows no model {name!r}; did you mean {close[0]}?")
    return config


def _made(folder: Path, form: str) -> dict | None:
    """The architecture in what the stage made of an entry of this form: another preset may have left something else there."""
    manifest = folder / "manifest.json"
    told = files.read_json(manifest) if manifest.exists() else {}
    return _config(folder) if isinstance(told, dict) and told.get("form") == form else None


def _config(folder: Path) -> dict | None:
    for name in (OPEN_CLIP, TRANSFORMERS):
        if (folder / name).exists():
            found = files.read_json(folder / name)
            if not isinstance(found, dict):
                raise ValueError(f"{folder / name} holds {str(found)[:40]!r}: expected an object; copy the folder anew")
            return found
    return None


def check(name: str, architecture: dict, folder: Path) -> None:
    """Stops where an entry's `architecture` is not what the folder's own config.json says."""
    for key, (said, found) in _differences(architecture, _config(folder) or {}).items():
        raise ValueError(
            f"backbones.models.{name}.architecture.{key} is {said}, but config.json of that model says {found}: correct it, "
            "or `vikdf plan` counts another model"
        )


def _differences(said: dict, found: dict, where: str = "") -> dict[str, tuple]:
    """Keys in both with other values; config.json may leave out what is its family's default."""
    apart = {}
    for key in said.keys() & found.keys():
        if isinstance(said[key], dict) and isinstance(found[key], dict):
            apart |= _differences(said[key], found[key], f"{where}{key}.")
        elif said[key] != found[key]:
            apart[f"{where}{key}"] = (said[key], found[key])
    return apart


def trained(part: str, entry: dict) -> dict:
    """What the trainers of vikdf.backbones make of an entry's numbers."""
    take = {key: entry[key] for key in ("width", "layers")}
    if part == "clip":
        take |= {key: entry[key] for key in ("pixels", "patch", "text_layers")}
        return {"model_cfg": clip_trainer.config(vocabulary=entry["vocabulary"] + len(clip_trainer.SPECIALS), **take)}
    if part in ("bert", "unilm"):
        return {"model_type": "bert", **bert_trainer.config(vocabulary=entry["vocabulary"], **take)}
    family = entry.get("family", "llama")
    kind = families.named(family)
    vocabulary = entry["vocabulary"] + len(kind.specials) + len(kind.extra)
    return {"model_type": family, **language.config(vocabulary=vocabulary, family=family, **take)}


def _known(config: dict, name: str, needs: tuple[str, ...] = ()):
    """The configuration as transformers understands it, with the keys that its part of the model needs."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig

    where = f"backbones.models.{name}"
    if "model_type" not in config:
        raise ValueError(f"the architecture of {where} has no `model_type`: expected config.json's own keys")
    family = config["model_type"]
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        close = difflib.get_close_matches(str(family), list(CONFIG_MAPPING), n=1)
        advice = f"did you mean {close[0]}?" if close else "expected one that transformers knows, such as llama"
        raise ValueError(f"the architecture of {where} has model_type {family!r}; {advice}")
    for part in [config, *[value for value in config.values() if isinstance(value, dict)]]:
        for key in SHAPE:
            if isinstance(part.get(key), int) and part[key] < 1:
                raise ValueError(f"the architecture of {where} has {key} {part[key]}: expected at least 1")
    try:
        made = AutoConfig.for_model(**config)
    except StrictDataclassError as error:
        raise ValueError(
            f"the architecture of {where} is not one of {family}: {' '.join(str(error).split())}"
        ) from None
    if lost := [key for key in needs if not hasattr(made, key)]:
        raise ValueError(
            f"{where} is a {family} without {lost[0]}: expected another kind of model in this place of `pretrain`"
        )
    return made


def stack(module: nn.Module, *, width: int, layers: int, heads: int, head: int, key_heads: int, inner: int) -> Stack:
    """Whatever the family: each matrix that is no embedding is one that every position passes, or an error."""
    if mixed := next((name for name, value in module.named_parameters() if ".experts" in name or value.ndim > 2), None):
        raise ValueError(
            f"{mixed} is not one matrix that every position passes: `vikdf plan` cannot count a mixture of experts or a "
            "convolution; choose a dense model"
        )
    embedded = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    weights = {
        name: value for name, value in module.named_parameters() if value.ndim == 2 and id(value) not in embedded
    }
    matrices = sum(value.numel() for name, value in weights.items() if ".lora_" not in name)
    attention, keys = heads * head, 2 * key_heads * head
    three = round((matrices / layers - width * (2 * attention + keys)) / (width * inner)) == 3  # gate, up and down
    wide = 3 if three else 4  # gate, its activation and up; or what GELU keeps where it is written out with tanh
    kept = layers * (2 * attention + keys + wide * inner)  # q, k, v and what was read
    entries = round(sum(".lora_" not in name for name in weights) / layers) - 1
    return Stack(width, layers, layers * attention, matrices, kept, layers * keys, inner, entries)


def clip(name: str, entry: dict, backbones: Path) -> Outline:
    """Both towers: .vision and .text, as stacks."""
    config = read("clip", name, entry, backbones)
    return _open_clip(config["model_cfg"]) if "model_cfg" in config else _transformers_clip(_known(config, name, CLIP))


def _open_clip(config: dict) -> Outline:
    import open_clip

    if config.get("custom_text") or "timm_model_name" in config["vision_cfg"] or "hf_model_name" in config["text_cfg"]:
        raise ValueError("this open_clip model has towers of another kind: choose a ViT with CLIP's own text tower")
    with torch.device("meta"):
        model = open_clip.model.CLIP(**config)
    vision = model.visual
    sizes = {"width": vision.output_dim, "pixels": vision.image_size[0], "patch": vision.patch_size[0]}
    sizes |= {"vocabulary": model.vocab_size, "context": model.context_length}
    return _two_towers(model, sizes, vision, _blocks(vision.transformer), _blocks(model.transformer))


def _blocks(transformer) -> Stack:
    """open_clip's transformer."""
    first, width = transformer.resblocks[0], transformer.width
    heads, inner = first.attn.num_heads, first.mlp[0].out_features
    shape = {"layers": len(transformer.resblocks), "heads": heads, "head": width // heads, "key_heads": heads}
    return stack(transformer, width=width, inner=inner, **shape)


def _transformers_clip(config) -> Outline:
    from transformers import CLIPModel

    with torch.device("meta"):
        model = CLIPModel(config)
    text, vision = config.text_config, config.vision_config
    sizes = {"width": config.projection_dim, "pixels": vision.image_size, "patch": vision.patch_size}
    sizes |= {"vocabulary": text.vocab_size, "context": text.max_position_embeddings}
    seeing = nn.ModuleList([model.vision_model, model.visual_projection])
    return _two_towers(model, sizes, seeing, _encoder(model.vision_model, vision), _encoder(model.text_model, text))


def _encoder(tower, config) -> Stack:
    """transformers' encoder."""
    heads, width = config.num_attention_heads, config.hidden_size
    shape = {"layers": config.num_hidden_layers, "heads": heads, "head": width // heads, "key_heads": heads}
    return stack(tower.encoder, width=width, inner=config.intermediate_size, **shape)


def _two_towers(model, sizes: dict, seeing: nn.Module, vision: Stack, text: Stack) -> Outline:
    seen = sum(value.numel() for value in seeing.parameters())
    counted = {"vision": seen, "text": sum(value.numel() for value in model.parameters()) - seen}
    return Outline(model, **sizes, end_of_text=0, vision=vision, text=text, counted=counted)


def bert(name: str, entry: dict, backbones: Path) -> dict[str, int]:
    """What the IQ-Former takes over from a BERT."""
    config = _known(read("bert", name, entry, backbones), name, SHAPE)
    shape = {"width": config.hidden_size, "layers": config.num_hidden_layers}
    return shape | {"heads": config.num_attention_heads, "inner": config.intermediate_size}


def bert_size(name: str, entry: dict, backbones: Path) -> int:
    """Parameters of the whole BERT, of which the IQ-Former takes over a part."""
    from transformers import AutoModel

    with torch.device("meta"):
        model = AutoModel.from_config(_known(read("bert", name, entry, backbones), name, SHAPE))
    return sum(value.numel() for value in model.parameters())


def llm(name: str, entry: dict, backbones: Path) -> Outline:
    """Any causal LM that AutoModelForCausalLM knows."""
    from transformers import AutoModelForCausalLM

    config = _known(read("llm", name, entry, backbones), name, SHAPE[:3])
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(f"backbones.models.{name} is a {config.model_type}: expected a causal LM, such as llama")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    heads, width = config.num_attention_heads, config.hidden_size
    shape = {"heads": heads, "head": getattr(config, "head_dim", None) or width // heads}
    shape["key_heads"] = getattr(config, "num_key_value_heads", None) or heads
    inner = (
        getattr(config, "intermediate_size", None) or getattr(config, "ffn_dim", None) or 4 * width
    )  # GPT-2 names none
    made = stack(model.base_model, width=width, layers=config.num_hidden_layers, inner=inner, **shape)
    head = model.get_output_embeddings().weight.numel()
    outer = model.get_input_embeddings().embedding_dim
    sizes = {
        "head": head,
        "vocabulary": config.vocab_size,
        "window": getattr(config.get_text_config(), "sliding_window", None),
    }
    return Outline(model, width=outer, family=config.model_type, stack=made, **sizes)
