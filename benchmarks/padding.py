"""Tokens that the LLM computes over tokens that are real, in fine-tuning and in answering: ours against random batches.

Dialogues of the embedded world at the demo's numbers, as the demo's LLM reads them: template, K, context, response.
Nothing is trained and no product is needed: what is counted are the places of the batches that fine-tuning
(vikdf.order), scoring and answering (vikdf.model.respond) make. The last line is the worst of the three works at
the demo's own batch.
Run: python -m benchmarks.padding
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from benchmarks import shapes
from vikdf import flags
from vikdf.model.answering import in_batches
from vikdf.model.backbone import LLM
from vikdf.model.respond import Responder
from vikdf.order import Batches, order
from vikdf.world import texts
from vikdf.world.nouns import make_nouns

BATCHES = (4, 16, 32, 48, 64)


def responder_of(shape: dict, folder: Path) -> Responder:
    """The demo's, untrained: what is counted depends on its tokenizers and its number of queries."""
    model = shapes.model(shape, folder)
    return Responder(model.llm, model.source)


def dialogues() -> dict[str, list[dict]]:
    """Train and test dialogues of the world, as many as the demo has."""
    world = shapes.preset()["sources"]["world"]
    nouns = make_nouns(world["seed"], world["nouns"], world["held_out"])
    made = {split: texts.reddit(nouns, world["reddit"][split], split, world["seed"]) for split in ("train", "test")}
    return made | {"test": made["test"] + texts.probe(nouns, **world["probe"], seed=world["seed"])}


def columns(rows: list[dict]) -> tuple[list[list[str]], list[str]]:
    return [row["context"] for row in rows], [row["response"] for row in rows]


def spent(llm: LLM, rows: list[list[int]], batches: Iterable[list[int]]) -> float:
    """Computed over real tokens of the padded batches."""
    masks = [llm.pad([rows[i] for i in batch])[1] for batch in batches]
    return sum(mask.numel() for mask in masks) / sum(mask.sum().item() for mask in masks)


def trained(rows: int, batch: int, sizes: list[int] | None) -> Iterator[list[int]]:
    """The batches of an epoch of fine-tuning."""
    for part in islice(Batches(rows, batch, seed=1, sizes=sizes), rows // batch):
        yield [row for _, row in part]


def at_random(rows: int, batch: int) -> list[list[int]]:
    """Batches that take no heed of length."""
    shuffled = order(rows, 1, 0).tolist()
    return [shuffled[start : start + batch] for start in range(0, rows, batch)]


def count(work: str, llm: LLM, rows: list[list[int]], batch: int) -> tuple[float, float]:
    """Tokens computed a real one, ours and plain."""
    sizes = [len(row) for row in rows]
    if work == "fine-tuning":
        made = (trained(len(sizes), batch, sizes), trained(len(sizes), batch, None))
    else:
        made = (in_batches(sizes, batch, work), at_random(len(sizes), batch))
    ours, plain = (spent(llm, rows, batches) for batches in made)
    print(f"{work}, batch {batch}: {plain / ours:.2f}x  ours {ours:.3f}  plain {plain:.3f} tokens computed a real one")
    return ours, plain


def main() -> None:
    """Counts padding in fine-tuning, scoring and answering."""
    logging.disable(logging.WARNING)  # open_clip's, that the weights are random
    settings, found = shapes.preset(), []
    with tempfile.TemporaryDirectory() as folder:
        responder = responder_of(shapes.demo(), Path(folder))
    train, test = (columns(rows) for rows in dialogues().values())
    rows = {"fine-tuning": responder.rows(*train)[0], "scoring": responder.rows(*test)[0]}
    rows["answering"] = responder.prompts(test[0])
    for work, coded in rows.items():
        own = (
            settings["finetune"]["training"]["micro_batch"] if work == "fine-tuning" else settings["generate"]["batch"]
        )
        figures = {batch: count(work, responder.llm, coded, batch) for batch in sorted({*BATCHES, own})}
        found.append(figures[own])
    ours, plain = max(found)
    print(f"padding {plain / ours:.2f}x  ours {ours:.3f}  plain {plain:.3f} tokens computed a real one")


if __name__ == "__main__":
    flags.main(main)
