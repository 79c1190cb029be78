"""How many parameters the baselines have that are no VIKDF and no LLM alone: counted on the meta device, without memory.

In: the params as plain dicts, the folder of the backbones. Out: of each such baseline what its own pretraining trains, what its
tuning trains, and all that it stands on.
    counted(values, Path("data/backbones"))  # {"bart": Count(0, 406_291_456, 406_291_456), ...}

Counted from the classes that train, over backbones of the params' architectures. A tokenizer may find fewer entries than it is
allowed, and words that name concepts may be added: as long as no backbone is made, that is not known here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from vikdf.backbones import bart as bart_trainer
from vikdf.backbones import shapes
from vikdf.backbones import vit as vit_trainer


@dataclass(frozen=True)
class Count:
    """Parameters: trained by its own pretraining, by its tuning, and all of both."""

    before: int
    tuned: int
    whole: int


class Parts:
    """The backbones of an entry, on the meta device."""

    def __init__(self, values: dict, backbones: Path):
        self.models, self.backbones = values["backbones"]["models"], backbones

    def config(self, name: str):
        """As transformers understands it."""
        entry = self.models[name]
        if entry["form"] == "bart" and not (made := shapes._made(self.backbones / name, "bart")):
            numbers = {key: entry[key] for key in ("width", "layers", "vocabulary")}
            made = {"model_type": "bart", **bart_trainer.config(**numbers)}
        elif entry["form"] != "bart":
            part = entry["form"] if entry["form"] in ("bert", "unilm") else "llm"
            made = shapes.read(part, name, entry, self.backbones)
        return shapes._known(made, name)

    def bart(self, name: str) -> nn.Module:
        from transformers import BartForConditionalGeneration

        return BartForConditionalGeneration(self.config(name))

    def vit(self, name: str) -> nn.Module:
        from transformers import ViTModel

        entry = self.models[name]
        if entry["form"] == "vit":
            return vit_trainer.make_model(**{key: entry[key] for key in ("pixels", "patch", "width", "layers")})
        return ViTModel(self.config(name))

    def bert(self, name: str, **changed) -> nn.Module:
        from transformers import BertModel

        config = self.config(name)
        config.update(changed)
        return BertModel(config, add_pooling_layer=False)

    def llm(self, name: str) -> nn.Module:
        return shapes.llm(name, self.models[name], self.backbones).model

    def features(self, name: str) -> int:
        """Width of a detector's regions."""
        entry = self.models[name]
        config = None if entry["form"] == "detector" else self.config(name)
        return entry["width"] if config is None else getattr(config, "d_model", None) or config.hidden_size

    def words(self, name: str) -> SimpleNamespace:
        """What a system asks its tokenizer for while it is made."""
        return SimpleNamespace(size=self.config(name).vocab_size, start=0, end=0, tokenizer=None)

    def clip_width(self, name: str) -> int:
        return shapes.clip(name, self.models[name], self.backbones).width


def seq2seq(entry: dict, parts: Parts) -> Count:
    from vikdf.baselines.seq2seq import NUMBERS, Seq2Seq

    return _alike(Seq2Seq(parts.words(entry["tokenizer"]), **{key: entry[key] for key in NUMBERS}), False)


def bart(entry: dict, parts: Parts) -> Count:
    return _alike(parts.bart(entry["bart"]), False)


def imgvae(entry: dict, parts: Parts) -> Count:
    from vikdf.baselines import imgvae

    with torch.device("cpu"):
        width = parts.clip_width(entry["clip"])
    made = imgvae.ImgVAE(parts.words(entry["tokenizer"]), None, picture=width, **imgvae.numbers(entry))
    return _alike(made, "pretrain" in entry)


def maria(entry: dict, parts: Parts) -> Count:
    from vikdf.baselines.parts.retriever import LAYERS, head
    from vikdf.baselines.parts.visual_bert import Generator

    bert, vit = parts.config(entry["bert"]), parts.vit(entry["vit"])
    shape = {key: entry["retriever"][key] for key in ("hidden", "joint", "dropout")}
    read = min(LAYERS, bert.num_hidden_layers) * bert.hidden_size
    heads = size(head(read, **shape)) + size(head(vit.config.hidden_size, **shape))
    begun = parts.bert(entry["generator"], type_vocab_size=3)
    generator = size(Generator(begun, [0], parts.features(entry["detector"])))
    return Count(heads, generator, heads + generator)


def zrigf(entry: dict, parts: Parts) -> Count:
    from vikdf.baselines.parts.matching import Matcher
    from vikdf.baselines.parts.pairing import Pairing
    from vikdf.baselines.zrigf import PAIRING, ZRIGF

    def new() -> tuple[nn.Module, Matcher]:
        model = parts.bart(entry["bart"])
        shape = {"width": model.config.d_model, "heads": entry["heads"], "dropout": entry["dropout"]}
        return model, Matcher(parts.vit(entry["vit"]), **shape)

    model, matcher = new()
    settings = {key: entry[key] for key in PAIRING} | {"weight": entry["weights"]["rebuild"]}
    pairing = Pairing(model.model.encoder, matcher, None, None, **settings)
    numbers = {key: entry[key] for key in ("heads", "dropout", "smoothing", "join_start")}
    system = ZRIGF(*new(), None, None, None, weight=entry["weights"]["preserve"], **numbers)
    before, after = ({name: n for name, n in _trained(part)} for part in (pairing, system))
    return Count(sum(before.values()), sum(after.values()), sum((before | after).values()))


def llm_full(entry: dict, parts: Parts) -> Count | None:
    """With LoRA it is counted as a system of the LLM alone."""
    return None if entry["lora"] else _alike(parts.llm(entry["llm"]), False)


COUNTS: dict[str, Callable] = {"seq2seq": seq2seq, "bart": bart, "imgvae": imgvae, "maria": maria, "zrigf": zrigf}
COUNTS["llm_full"] = llm_full


def counted(values: dict, backbones: Path) -> dict[str, Count]:
    """Of every baseline of a kind that is counted here."""
    parts = Parts(values, backbones)
    with torch.device("meta"):
        found = {
            name: COUNTS[entry["kind"]](entry, parts)
            for name, entry in values["baselines"].items()
            if entry["kind"] in COUNTS
        }
    return {name: count for name, count in found.items() if count}


def _alike(model: nn.Module, before: bool) -> Count:
    """All of it is tuned, and in its own pretraining, if it has one, all of it too."""
    count = size(model)
    return Count(count if before else 0, count, count)


def _trained(model: nn.Module):
    return ((name, value.numel()) for name, value in model.named_parameters() if value.requires_grad)


def size(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())
