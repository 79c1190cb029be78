"""What a baseline learns from image-text pairs before it meets a dialogue, on the same pairs as VIKDF and by the same loop.

In: data/shards; the backbones that the baseline's entry names. Out: <output>/ with what the system saves (weights, an image
index if it retrieves), tuned.json (what was trained, by name), curves.jsonl, metrics.json (scores on pairs held back).
The state with the lowest validation value on held-back pairs is kept.
Run: python -m vikdf.pretrain_baseline --system maria --shards data/shards ... (see --help; the rule names all flags)
"""

import json
from pathlib import Path

from vikdf import files, flags, order, state, systems

TOGETHER = 64  # held-back pairs judged at once
READ_BY_LOOP = ("fractions", "pretrain", "training", "steps")  # of the entry: numbers of trainings, which come as flags


class Pairs:
    """Some pictures of the shards with their captions, as batches for a Lesson."""

    def __init__(self, lesson, shards, rows: list[int], seed: int):
        self.lesson, self.shards, self.rows, self.seed = lesson, shards, rows, seed

    def batch(self, picked: list[tuple[int, int]]) -> dict:
        """(epoch, row), ... -> a batch: each picture with the one of its captions that this epoch draws."""
        import torch

        samples = [self.shards[self.rows[row]] for _, row in picked]
        pictures = [self.lesson.prepare(sample["image"]) for sample in samples]
        return {
            "pictures": torch.stack(pictures),  # [B, 3, S, S]
            "captions": [self._caption(sample, *where) for sample, where in zip(samples, picked, strict=True)],
            "lots": [order.lot(self.seed, *where) for where in picked],
            "keys": [sample["key"] for sample in samples],
        }

    def _caption(self, sample: dict, epoch: int, row: int) -> str:
        return sample["captions"][order.draw(len(sample["captions"]), self.seed, epoch, row)]

    def batches(self):
        """All rows once, in order, as the first epoch would draw them."""
        for start in range(0, len(self.rows), TOGETHER):
            yield self.batch([(0, row) for row in range(start, min(start + TOGETHER, len(self.rows)))])


def train(work, lesson, shards: Path, held_back: int, numbers, journal) -> None:
    """Trains, scores and writes the product."""
    from accelerate.utils import send_to_device

    from vikdf import loop, place
    from vikdf.samples import Shards

    data = Shards(shards)
    rows, held = order.split(len(data), held_back, numbers.seed)
    device = place.process().device
    place.put(lesson, numbers.precision)
    pairs, apart = (Pairs(lesson, data, some, numbers.seed) for some in (rows, held))

    def judge() -> dict[str, float]:
        return lesson.judge(send_to_device(batch, device) for batch in apart.batches())

    kept = {"folder": work.checkpoints, "journal": journal, "validate": lambda: judge()["validation"]}
    at = loop.train(lesson, pairs.batch, len(rows), numbers, **kept)
    found = scored(lesson, judge, numbers.precision) | {"held_back": len(held), "best_step": at.best["step"]}
    if state.main_process():
        tuned = {name: value.numel() for name, value in lesson.named_parameters() if value.requires_grad}
        with work.finish() as product:
            with place.autocast(numbers.precision):
                lesson.write(product, data)
            files.write_json(product / "tuned.json", tuned)
            lines = [json.dumps(point, sort_keys=True) + "\n" for point in at.curves]
            (product / "curves.jsonl").write_text("".join(lines))
            files.write_json(product / "metrics.json", found | {"steps": at.step, "tuned_params": sum(tuned.values())})
        journal.log(at.step, found)


def scored(lesson, judge, precision: str) -> dict[str, float]:
    """The lesson's scores as it was left, the best state."""
    import torch

    from vikdf import place

    lesson.eval()
    with torch.no_grad(), place.autocast(precision):
        return judge()


def pretrain_baseline(
    *,
    shards: Path,
    backbones: Path,
    output: Path,
    state_root: Path,
    system: str,
    seed: int,
    entry: dict,
    held_back: int,
    training: dict,
) -> None:
    """Lets a baseline learn from image-text pairs; goes on where it was stopped.

    shards: folder of the shards
    backbones: folder of the backbones
    output: folder of what was learned
    state_root: where checkpoints and finished work are kept
    system: the system's name
    seed: of new weights, data order, masks and noise
    entry: the system's entry in params.yaml
    held_back: pairs kept apart for the scores and the choice of the state, as `pretrain.held_back` in params.yaml
    training: numbers of the loop: `pretrain.training` with what the entry's own `pretrain` puts in place
    """
    entry = {name: value for name, value in entry.items() if name not in READ_BY_LOOP}
    params = {"system": system, "seed": seed, "entry": entry, "held_back": held_back, "training": training}
    places = systems.Places(backbones)
    inputs = {"shards": shards} | systems.frozen_inputs(entry, places)
    modules = ["pretrain_baseline", *systems.modules(entry)]
    with state.claim(state_root, "pretrain", modules, params, inputs) as work:
        if not work.finished:
            from vikdf import loop

            tags = {"system": system, "seed": seed}
            with work.tracked(f"pretrain-{system}-all-s{seed}", params, tags) as journal:
                lesson = systems.named(entry).pretrainer(entry, places, seed)
                train(work, lesson, shards, held_back, loop.Numbers(seed=seed, **training), journal)
        work.export(output)


if __name__ == "__main__":
    flags.main(pretrain_baseline)
