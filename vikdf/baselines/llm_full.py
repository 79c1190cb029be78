"""The text-only language model tuned with as many parameters as VIKDF: is it knowledge, or only more weights to tune?

In: an entry {kind: llm_full, llm: a language model's name, lora: {rank, alpha} or null}. Out: `learner` gives the language
model with LoRA of that rank, or with all its own weights to be tuned where `lora` is null; `answerer` the tuned one.

LoRA where a rank reaches VIKDF's number: rank 64 on every linear layer of a 7B Llama trains 160 M (VIKDF: 159 M). A LoRA's
rank ends at the smallest side of the matrices; where that does not reach the number, as in the demo, whose whole language
model has fewer weights than VIKDF tunes, all of it is tuned: the most that this language model has. tests/test_llm_rows.py
counts both. Shapes as in vikdf.model.respond.
"""

from pathlib import Path

from torch import nn

from vikdf.baselines.parts import product as products
from vikdf.model.backbone import LLM
from vikdf.model.respond import Responder

KIND = "llm_full"


class Full(Responder):
    """Every weight of the language model is tuned, in float32."""

    def __init__(self, llm: LLM):
        super().__init__(llm)
        llm.model.float().requires_grad_(True)

    def frozen(self) -> list[nn.Module]:
        return []

    def save(self, folder, *, trained: dict | None = None, run: dict | None = None) -> None:
        kept = {"frozen": {"llm": self.llm.folder}, "tokenizer": self.llm.tokenizer, "trained": trained, "run": run}
        products.write(folder, KIND, products.own(self), settings={}, **kept)


def learner(entry: dict, start: None, places, lora: dict, seed: int) -> Responder:
    llm = LLM.load(places.backbones / entry["llm"])
    if entry["lora"] is None:
        return Full(llm)
    return Responder(llm, lora_rank=entry["lora"]["rank"], lora_alpha=entry["lora"]["alpha"], seed=seed)


def answerer(entry: dict, product: Path, places) -> Responder:
    if entry["lora"] is not None:
        return Responder.load(product, backbones=places.backbones)
    folder = places.backbones / entry["llm"]
    _, tensors = products.read(product, KIND, {"llm": folder})
    made = Full(LLM.load(folder))
    products.load(made, tensors, (), product)
    return made
