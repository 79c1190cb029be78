"""What the tests of every system ask of its training, through fine-tuning's own objective, validation and the one loop.

In: `make`, a function that gives the same untrained system (vikdf.model.answering.Answering) at each call, and a folder.
Out: the trained system, once what the function's name says has been asserted.

    learns.lowers_loss(make, tmp_path)                                          # the NLL of the ten dialogues falls
    learns.scores_alike_in_any_company(make)                                    # each dialogue as it is alone
    system = learns.overfits_ten_dialogues(make, tmp_path, steps=150, learning_rate=0.01)  # and all ten answers are said
    learns.resumes(make, tmp_path)                                              # killed, then the same bits
    learns.comes_back(system, load, tmp_path)                                   # saved and loaded: the same, and trained alike
    learns.is_refused_where_harmed(make, load, tmp_path, [({"width": 50}, "does not fit")])  # and of presets/, too:
    learns.stands_in_every_preset("bart")
    entry, architecture = learns.of_the_paper("bart", "bart")                   # its entry, and the backbone so called in it

Kinds that learn from pictures give `pictures`, a name or "" for each of TEN's dialogues.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from vikdf import files, finetune, loop, order, params

PRESETS = Path(__file__).resolve().parent.parent / "presets"

NOUNS = ["kettle", "vase", "tree", "beach", "image"]
COLOURS, PLACES = ["red", "blue", "green", "red", "blue"], ["tree", "beach", "image", "table", "garden"]
TEN = {
    "contexts": [
        [f"hello , there is a {noun}", question]
        for question in ("what colour is it ?", "where is it ?")
        for noun in NOUNS
    ],
    "responses": [f"the {noun} is {colour}" for noun, colour in zip(NOUNS, COLOURS, strict=True)]
    + [f"yes , on the {place}" for place in PLACES],
}
NUMBERS = {
    "seed": 1,
    "steps": 20,
    "processes": 1,
    "micro_batch": 10,
    "accumulate": 1,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "schedule": "constant_after_warmup",
    "warmup": 0.1,
    "clip_norm": 1.0,
    "precision": "float32",
    "workers": 0,
    "checkpoint_every": 1000,
}


class Killed(Exception):
    """Stands for kill -9: nothing is written any more."""


def batch(rows: list[tuple[int, int]], pictures: list[str]) -> dict:
    """What fine-tuning gives to an objective, of (epoch, row)."""
    made = {name: [column[row] for _, row in rows] for name, column in TEN.items()}
    made |= {"keys": [f"dialogue {row}" for _, row in rows], "pictures": [pictures[row] for _, row in rows]}
    return made | {"lots": [order.lot(1, epoch, row) for epoch, row in rows]}


def train(system, folder: Path, *, pictures: list[str] | None = None, dies_at: int = 0, **changed):
    """Tunes the system on TEN, in place; `dies_at`: the step in which it is killed."""
    aim, asked = finetune.objective(system), []

    def fetch(rows: list[tuple[int, int]]) -> dict:
        asked.append(rows)
        if len(asked) == dies_at:
            raise Killed
        return batch(rows, pictures or [""] * 10)

    numbers = loop.Numbers(**(NUMBERS | changed))
    validate = finetune.validation(system, TEN, 10) if numbers.validate_every else None
    return loop.train(aim, fetch, 10, numbers, folder=folder, journal=None, validate=validate)


def nll(system) -> float:
    """Of a response token of TEN."""
    with torch.no_grad():
        return system.eval().loss(**TEN).item()


def weights(system) -> dict[str, bytes]:
    named = system.named_parameters()
    return {name: value.detach().numpy().tobytes() for name, value in named if value.requires_grad}


def lowers_loss(make: Callable, folder: Path, *, to: float = 0.8, **changed):
    """After some steps the NLL in use is at most that share of what it was."""
    system = make()
    before = nll(system)
    train(system, folder / "lowers", **changed)
    assert nll(system) < to * before
    return system


def scores_alike_in_any_company(make: Callable) -> None:
    """A dialogue's NLL and tokens are its own, whatever shorter and longer ones are scored with it."""
    system = make().eval()
    contexts = [["hello"], *TEN["contexts"], ["what is it ? " * 9]]
    responses = ["yes", *TEN["responses"], "it is red and blue and green"]
    together, counts = system.score(contexts, responses, batch=12)
    alone = [system.score([turns], [said]) for turns, said in zip(contexts, responses, strict=True)]
    assert together == pytest.approx([nll[0] for nll, _ in alone], abs=1e-4)
    assert counts == [tokens[0] for _, tokens in alone]


def overfits_ten_dialogues(make: Callable, folder: Path, **changed):
    """Ten contexts are all answered, word for word, as they were taught: each needs its own context to be read."""
    system = make()
    train(system, folder / "overfits", **changed)
    system.eval()
    assert system.generate(TEN["contexts"], beams=3, no_repeat_ngram=3, max_new_tokens=16) == TEN["responses"]
    assert nll(system) < 0.1
    return system


def resumes(make: Callable, folder: Path, *, steps: int = 6, dies_at: int = 4, **changed) -> None:
    """Killed in a step after a checkpoint, and begun again as a new process would: equal bits, equal curves."""
    changed |= {"steps": steps, "checkpoint_every": 2, "validate_every": 2}
    whole, again = make(), make()
    at = train(whole, folder / "whole", **changed)
    with pytest.raises(Killed):
        train(make(), folder / "parts", dies_at=dies_at, **changed)
    assert [path.name for path in (folder / "parts").iterdir()] == ["00000002"]
    assert train(again, folder / "parts", **changed).curves == at.curves
    assert weights(again) == weights(whole)


def comes_back(system, load: Callable[[Path], object], folder: Path):
    """What `load` makes of the saved folder scores and answers as before, and the same of it would be tuned further."""
    system.eval().save(folder / "saved", trained={}, run=None)
    again = load(folder / "saved").eval()
    assert weights(again) == weights(system)
    assert again.score(**TEN) == system.score(**TEN)
    assert again.generate(TEN["contexts"]) == system.generate(TEN["contexts"])
    return again


def is_refused_where_harmed(make: Callable, load: Callable[[Path], object], folder: Path, cases: list) -> None:
    """A config.json with other settings, or without its frozen parts, is one sentence; cases: (settings, what it says)."""
    make().save(folder / "harmed")
    path = folder / "harmed/config.json"
    config = files.read_json(path)
    harms = [({"settings": config["settings"] | changed}, match) for changed, match in cases]
    for harm, match in [*harms, ({"frozen": None}, "has frozen 'None': expected a value of type dict")]:
        files.write_json(path, config | harm)
        with pytest.raises(ValueError, match=match):
            load(folder / "harmed")


def stands_in_every_preset(kind: str) -> None:
    """Under its own name, as the schema knows it."""
    for preset in PRESETS.glob("*.yaml"):
        assert params.load(preset)["baselines"][kind]["kind"] == kind


def of_the_paper(kind: str, part: str) -> tuple[dict, dict]:
    """The system's entry in presets/paper.yaml, and the architecture of its backbone `part`."""
    told = yaml.safe_load((PRESETS / "paper.yaml").read_text())
    entry = told["baselines"][kind]
    return entry, told["backbones"]["models"][entry[part]]["architecture"]
