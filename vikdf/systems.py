"""The systems of table 1 by name. VIKDF and its controls differ by their entries in `finetune.systems`; an entry of `baselines`
names by its `kind` a file in vikdf/baselines/. Each file has the same functions, and so has this one:

    learner(entry, start, places, lora, seed)   what is to be tuned; `start` is where its weights begin, if anywhere
    answerer(entry, product, places)            what answers, and may be tuned further; `product` is what tuning made of it
    pretrainer(entry, places, seed)             a vikdf.model.lesson.Lesson, of kinds that learn from image-text pairs first

The first two give a vikdf.model.answering.Answering. A file says IMAGES = "retrieved" if it looks at pictures
while it answers; an entry says `grounded: true` if the system learns from the pictures of training dialogues.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

# keys of an entry that name backbones
BACKBONES = ("llm", "clip", "bert", "generator", "bart", "vit", "detector", "tokenizer")


@dataclass(frozen=True)
class Places:
    """Where a system finds what it does not carry itself; what its kind does not ask for is None."""

    backbones: Path
    pretrained: Path | None = None  # what it learned from image-text pairs
    shards: Path | None = None  # pictures with captions
    pictures: Path | None = None  # those of training dialogues
    answers: Path | None = None  # folder of an endpoint's answers, kept by content


def named(entry: dict):
    """The module with the system's functions: its kind's file, or this one."""
    if "kind" not in entry:
        return importlib.import_module("vikdf.systems")
    own = f"vikdf.baselines.{entry['kind']}"
    if importlib.util.find_spec(own) is None:
        raise ValueError(f"kind is {entry['kind']!r}: expected the name of a file in vikdf/baselines/")
    return importlib.import_module(own)


def modules(entry: dict) -> list[str]:
    """The modules below vikdf whose code decides what the system does, beside the stage's own."""
    return [named(entry).__name__.removeprefix("vikdf.")]


def grounded(entry: dict) -> bool:
    """Whether the system learns from the pictures of training dialogues; its entry says so."""
    return entry.get("grounded", False)


def images(entry: dict) -> str:
    """none | retrieved: what the system sees while it answers, for the column of RESPONSES."""
    return getattr(named(entry), "IMAGES", "none")


def frozen_inputs(entry: dict, places: Places) -> dict[str, Path]:
    """What the work of a system depends on beside its data: backbones that its entry names, and its own pretraining."""
    made = {key: places.backbones / entry[key] for key in BACKBONES if entry.get(key)}
    return made | ({"pretrained": places.pretrained} if places.pretrained else {})


def learner(entry: dict, start: Path, places: Places, lora: dict, seed: int):
    """VIKDF after pretraining: the layer into the LLM is tuned, and IQ-Former and LoRA as the entry says."""
    from vikdf.model.respond import Responder

    extra = {"lora_rank": lora["rank"], "lora_alpha": lora["alpha"]} if entry["lora"] else {}
    tuned = entry["iqformer"] == "tuned"
    return Responder.load(start, backbones=places.backbones, tune_iqformer=tuned, seed=seed, **extra)


def answerer(entry: dict, product: Path, places: Places):
    """A fine-tuned system, as it was saved."""
    from vikdf.model.respond import Responder

    return Responder.load(product, backbones=places.backbones)
