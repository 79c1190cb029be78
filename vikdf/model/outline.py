"""The model and the systems that a params file names, on the meta device: every parameter is there, and no memory is taken.

In: the params as plain dicts, the folder of the backbones. Out: the classes that train, over outlines of their frozen parts.
    model = Outlines(values, Path("data/backbones")).pretraining()
    parts(model)  # [("query tower of the IQ-Former", 85_056_000, True), ...]
"""

from pathlib import Path

import torch
from torch import nn

from vikdf.backbones import shapes
from vikdf.model.iqformer import IQFormer
from vikdf.model.respond import Responder
from vikdf.model.vikdf import KnowledgeSource, VIKDFForPretraining


class Outlines:
    """The model and the systems of a params file on the meta device."""

    def __init__(self, values: dict, backbones: Path):
        self.values, self.backbones, self.section = values, backbones, values["pretrain"]
        self.models = values["backbones"]["models"]

    def part(self, part: str, name: str = ""):
        name = name or self.section[part]
        return getattr(shapes, part)(name, self.models[name], self.backbones)

    def bert_size(self) -> int:
        name = self.section["bert"]
        return shapes.bert_size(name, self.models[name], self.backbones)

    def iqformer(self, clip) -> IQFormer:
        queries = self.section["model"]["queries"]
        return IQFormer(queries=queries, encoder_width=clip.width, **self.part("bert"))

    def pretraining(self) -> VIKDFForPretraining:
        settings = {key: value for key, value in self.section["model"].items() if key != "queries"}
        clip, llm = self.part("clip"), self.part("llm")
        with torch.device("meta"):
            return VIKDFForPretraining(clip, self.iqformer(clip), llm, **settings)

    def system(self, entry: dict) -> Responder:
        """A system of `finetune.systems`, or a tuned baseline that is the LLM alone, with LoRA: finetune's, or its own."""
        own = entry.get("lora", True)
        lora = own if isinstance(own, dict) else self.values["finetune"]["lora"] if own else {"rank": 0, "alpha": 0}
        llm, source = self.part("llm", entry.get("llm", "")), None
        with torch.device("meta"):
            if "pretrain" in entry:
                clip = self.part("clip")
                source = KnowledgeSource(clip, self.iqformer(clip), llm.width)
            tuned = entry.get("iqformer") == "tuned"
            return Responder(llm, source, tune_iqformer=tuned, lora_rank=lora["rank"], lora_alpha=lora["alpha"])


def size(*modules: nn.Module) -> int:
    return sum(value.numel() for module in modules if module is not None for value in module.parameters())


def trained(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters() if value.requires_grad)


def saved(model: nn.Module) -> int:
    """Numbers in the model's product: all but the frozen CLIP and LLM; LoRA's matrices are inside the LLM."""
    return sum(
        value.numel()
        for name, value in model.named_parameters()
        if not name.startswith(model.FROZEN) or ".lora_" in name
    )


def parts(model: VIKDFForPretraining) -> list[tuple[str, int, bool]]:
    """(part, parameters, needed after pretraining) of all that pretraining trains."""
    iqformer = model.source.iqformer
    cross = size(*[layer.cross for layer in iqformer.layers])
    queries = iqformer.queries.numel()
    return [
        ("query tower of the IQ-Former", size(iqformer) - cross - queries, True),
        ("its cross-attention", cross, True),
        ("queries", queries, True),
        ("into the LLM", size(model.source.into_llm), True),
        ("TIM: projections, temperature", size(model.tim), False),
        ("TAMIM: fusion block", size(model.tamim.block), False),
        ("TAMIM: image decoder", size(model.tamim.decoder), False),
        ("IAMTM: fusion block", size(model.iamtm.block), False),
        ("IAMTM: text decoder", size(model.iamtm.decoder), False),
        ("IAKR: back from the LLM", size(model.iakr), False),
    ]
