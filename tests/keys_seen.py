"""Which samples of shards on disk the training loop sees, step by step, in each process: for tests of the data's order.

    python -m torch.distributed.run --standalone --nproc-per-node 2 tests/keys_seen.py SHARDS FOLDER '[{"name": ...}, ...]'
For each entry FOLDER/<name>-<rank>.json is written: a list of steps, each a list of "<key> <caption>". With `stop_at` the
run is stopped in that step by a signal to one process, and then goes on from its checkpoint.
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import torch

from vikdf import loop, order, place, state
from vikdf.samples import Shards

NUMBERS = {"seed": 3, "steps": 9, "learning_rate": 0.001, "weight_decay": 0.0, "schedule": "constant_after_warmup"}
NUMBERS |= {"warmup": 0.0, "clip_norm": 1e9, "precision": "float32", "checkpoint_every": 100}


class Seen(torch.nn.Module):
    """An objective that learns one number, and notes what it is given."""

    def __init__(self, stop_at: int):
        super().__init__()
        self.weight, self.rows, self.stop_at = torch.nn.Parameter(torch.zeros(1)), [], stop_at

    def counts(self, batch: dict) -> dict[str, int]:
        return {"loss": len(batch["keys"])}

    def forward(self, batch: dict, whole: dict[str, float]):
        self.rows.extend(batch["keys"])
        if len(self.rows) == self.stop_at and state.main_process():
            os.kill(os.getpid(), signal.SIGTERM)
        loss = ((batch["brightness"] - self.weight) ** 2).sum() / whole["loss"]
        return loss, {"loss": loss.detach()}


def see(shards: Path, folder: Path, name: str, *, stop_at: int = 0, sizes: bool = False, **numbers) -> None:
    """`stop_at` counts the rows of this process."""
    data, seen = Shards(shards), Seen(stop_at)

    def fetch(picked: list[tuple[int, int]]) -> dict:
        keys, brightness = [], []
        for epoch, row in picked:
            sample = data[row]
            drawn = order.draw(len(sample["captions"]), NUMBERS["seed"], epoch, row)
            keys.append(f"{sample['key']} {sample['captions'][drawn]}")
            brightness.append(float(sample["image"].getpixel((0, 0))[0]) / 255)
        return {"keys": keys, "brightness": torch.tensor(brightness)}

    like = {"sizes": [row % 5 for row in range(len(data))]} if sizes else {}
    asked = [fetch, len(data), loop.Numbers(**NUMBERS | numbers)]
    kept = {"folder": folder / name, "journal": None, **like}
    with contextlib.suppress(InterruptedError):
        loop.train(seen, *asked, **kept)
    if stop_at:
        assert 0 < len(seen.rows) < NUMBERS["steps"] * asked[2].batch / asked[2].processes, "it was not stopped"
        loop.train(seen, *asked, **kept)
    step = asked[2].batch // asked[2].processes
    steps = [seen.rows[start : start + step] for start in range(0, len(seen.rows), step)]
    (folder / f"{name}-{place.process().process_index}.json").write_text(json.dumps(steps))


if __name__ == "__main__":
    place.process()  # the process group is there before anything uses it
    for entry in json.loads(sys.argv[3]):
        see(Path(sys.argv[1]), Path(sys.argv[2]), **entry)
