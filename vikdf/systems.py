"""The systems of table 1 by name. VIKDF and its controls differ by their entries in `finetune.systems`; a system with a
file of its own in vikdf/baselines/ is made by that file. Either has the same two functions:

    learner(entry, start, backbones, lora, seed)   what is to be tuned; `start` is where its weights begin, if anywhere
    answerer(entry, product, backbones)            what answers; `product` is what tuning made of it, if it was tuned

Both give a vikdf.model.respond.Responder (or what has its methods: nll, score, cloze, generate, save).
"""

import importlib
import importlib.util
from pathlib import Path


def named(system: str):
    """The module with the system's two functions: its own file, or this one."""
    own = f"vikdf.baselines.{system}"
    return importlib.import_module(own if importlib.util.find_spec(own) else "vikdf.systems")


def modules(system: str) -> list[str]:
    """The modules below vikdf whose code decides what the system does, beside the stage's own."""
    return [named(system).__name__.removeprefix("vikdf.")]


def again(folder: Path, backbones: Path):
    """A fine-tuned system, as it was saved."""
    from vikdf.model.respond import Responder

    return Responder.load(folder, backbones=backbones)


def learner(entry: dict, start: Path, backbones: Path, lora: dict, seed: int):
    """VIKDF after pretraining: the layer into the LLM is tuned, and IQ-Former and LoRA as the entry says."""
    from vikdf.model.respond import Responder

    extra = {"lora_rank": lora["rank"], "lora_alpha": lora["alpha"]} if entry["lora"] else {}
    return Responder.load(start, backbones=backbones, tune_iqformer=entry["iqformer"] == "tuned", seed=seed, **extra)


def answerer(entry: dict, product: Path, backbones: Path):
    return again(product, backbones)
