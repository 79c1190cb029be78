"""What a run takes of each GPU's memory and of a disk, in bytes, for vikdf.plan.

In: the params, the model or a system on the meta device, what its backward pass keeps (vikdf.model.cost), and the products of
all trainings {name: (how many, numbers in each)}. Out: bytes by name, and rows of what lies on the disk.
    room.memory(model, training, kept)["frozen weights"]
    room.storage(values, outlines, model, products, room.pictures(values, 0), room.PICTURE_BYTES)
    room.entry(values, model, lengths)  # what the cached features of a picture and its captions take, by part
"""

from dataclasses import dataclass

from torch import nn

from vikdf import space
from vikdf.model.cost import Lengths
from vikdf.model.outline import Outlines, size, trained
from vikdf.model.vikdf import VIKDFForPretraining

KEPT = "kept for backward:"
PICTURES = {"coco": 118_287, "cc3m": 3_318_333, "cc12m": 12_423_374, "sbu": 1_000_000}  # rows: data/README.md
PICTURE_BYTES = 150_000  # COCO's train2017: 18 GB, 118 K images (cocodataset.org); others keep theirs as they came
PLACES = ["fetched, in state", "sources", "filter", "shards"]  # each holds the pictures' bytes
FETCHED = ("hub", "open_clip")  # forms that leave a copy in the hub's cache, beside state/ and data/backbones/


@dataclass(frozen=True)
class Room:
    """What a stage takes of each GPU."""

    system: str
    training: dict
    taken: dict[str, float]

    @property
    def whole(self) -> float:
        return sum(self.taken.values())


def memory(model: nn.Module, training: dict, kept: dict[str, float]) -> dict[str, float]:
    """Bytes on each GPU. In bfloat16 the frozen LLM and CLIP are held so; what is trained keeps its 32 bits beside a copy."""
    half, source, tuned = training["precision"] == "bfloat16", model.source, trained(model)
    halved = sum(not value.requires_grad and value.numel() for value in model.llm.parameters())
    halved += size(source.clip) if source is not None else 0
    whole = size(model) - tuned - halved  # an IQ-Former that is not tuned
    if training["shard_llm"]:  # its layers are spread, and the one that runs is gathered
        spread, layers = model.llm.stack.matrices, model.llm.stack.layers
        halved -= int(spread * (1 - 1 / training["processes"] - 1 / layers))
    made = {
        "frozen weights": halved * (2 if half else 4) + whole * 4,
        "trained weights, 32 bits": tuned * 4,
        "their copies in bfloat16": tuned * 2 * half,
        "gradients": tuned * 4,
        "AdamW's two moments": tuned * 8,
        "gradients between processes": tuned * 4 * (training["processes"] > 1),
    }
    made |= {f"{KEPT} {name}": count * training["micro_batch"] for name, count in kept.items()}
    return {name: count for name, count in made.items() if count}


def number_size(training: dict) -> int:
    return 2 if training["precision"] == "bfloat16" else 4


@dataclass(frozen=True)
class Row:
    what: str
    times: int
    each_is: str
    each: float  # bytes


def pictures(values: dict, rows: int) -> int:
    """Pictures before the web's losses and the filter: an upper bound. `rows`: their number, where it is known."""
    world, found = values["sources"]["world"], rows
    for name in [] if rows else values["sources"]["corpora"]:
        expected = world.get(f"{name}_images") if world else PICTURES.get(name)
        if expected is None:
            raise ValueError(
                f"sources.corpora.{name}: no count of its pictures is known; give the number of all with --rows"
            )
        found += expected
    return found


def storage(
    values: dict, outlines: Outlines, model: VIKDFForPretraining, products: dict, count: int, picture_bytes: int,
    lengths: Lengths,
) -> list[Row]:  # fmt: skip
    each = file_bytes(values, picture_bytes)
    made = [Row(f"pictures: {place}", count, "a picture", each) for place in PLACES]
    if values["pretrain"]["cache_features"]:
        whole = sum(entry(values, model, lengths).values())
        made.append(Row("cached CLIP features, in state", count * len(clips(values)), "a picture", whole))
    made += backbones(values, outlines, model)
    made.append(Row("checkpoints of a pretraining", 2, "weights, two moments", space.CHECKPOINT * trained(model)))
    return made + [
        Row(f"product: {name}", 2 * times, "weights in 32 bits", space.WEIGHT * n)
        for name, (times, n) in products.items()
    ]


def file_bytes(values: dict, picture_bytes: int) -> int:
    """Bytes of a picture's file; a drawn one has no more bytes than pixels."""
    world = values["sources"]["world"]
    return world["pixels"] ** 2 * 3 if world and picture_bytes == PICTURE_BYTES else picture_bytes


def entry(values: dict, model: VIKDFForPretraining, lengths: Lengths) -> dict[str, float]:
    """Bytes that vikdf.features keeps of a picture: its states, its pixels, its captions' states and tokens."""
    made = space.features(model.source.clip, number_size(values["pretrain"]["training"]))
    tokens = values["caption"]["keep"] * (lengths.caption_mean + 2)
    return {"states": made["states"], "pixels": made["pixels"], "captions": tokens * made["token"]}


def clips(values: dict) -> dict[str, int]:
    """The CLIPs that table 1's pretrainings read -> the steps of those, all seeds together, that share its features."""
    made: dict[str, int] = {}
    for name in sorted({system["pretrain"] for system in values["finetune"]["systems"].values()}):
        changed = values["ablations"].get(name, {})
        steps = changed.get("training", {}).get("steps", values["pretrain"]["training"]["steps"])
        clip = changed.get("clip", values["pretrain"]["clip"])
        if steps:
            made[clip] = made.get(clip, 0) + steps * len(values["seeds"])
    return made


def backbones(values: dict, outlines: Outlines, model: VIKDFForPretraining) -> list[Row]:
    """Those that pretraining reads. Trainers here write 32 bits; elsewhere large language models are published in 16."""
    found = {"clip": size(model.source.clip), "bert": outlines.bert_size(), "llm": size(model.llm)}
    made = []
    for part, count in found.items():
        form = outlines.models[values["pretrain"][part]]["form"]
        bits = 16 if part == "llm" and form != "language" else 32
        made.append(Row(f"backbone: {part}", 3 if form in FETCHED else 2, f"weights in {bits} bits", count * bits // 8))
    return made
