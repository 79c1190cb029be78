"""The matrix of exact resume: stages x loader workers x processes x kill points, each to the bits of an undisturbed run.

In the short form one piece of work meets all kill points of its stage, one after the other, without loader workers in one
process and with two in two; in the long form in the other two ways, and each kill point alone in all four.
"""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_caption import LEXICON, SIZES, rows
from test_finetune import LORA, STEPS, dialogues, pretrained  # noqa: F401 - two are fixtures
from test_finetune import TRAINING as TUNING
from test_generate import DECODING, KNOWING, tuned  # noqa: F401 - one is a fixture
from test_pretrain import SETTINGS, TRAINING, shards  # noqa: F401 - one is a fixture

from vikdf import files, flops, schemas, tracking
from vikdf.backbones import captioner

SCRIPT = Path(__file__).with_name("kill_points.py")
NUMBERS = {"checkpoint_every": 2, "micro_batch": 2}  # of six steps
SEQ2SEQ = {"kind": "seq2seq", "tokenizer": "llm", "tuned": True, "fractions": ["zero"], "width": 16, "layers": 2}
SEQ2SEQ |= {"dropout": 0.3, "context_tokens": 32}  # the baseline with dropout
LOOPS, PIECES = ("pretrain", "finetune", "seq2seq"), ("caption", "generate")
IN_TURN = {  # [signal, in which call of what; "" is the stage's inner step], each counted from where the one before went on
    "before the first checkpoint": ["SIGKILL", 2, ""],
    "a signal before the first checkpoint": ["SIGTERM", 1, ""],
    "in a checkpoint": ["SIGKILL", 2, "vikdf.files:save_tensors"],
    "after a checkpoint": ["SIGKILL", 3, ""],
    "a signal after a checkpoint": ["SIGTERM", 2, ""],
    "when the product lies there": ["SIGKILL", 1, "vikdf.state:Work.export"],
}
ALONE = IN_TURN | {"after a checkpoint": ["SIGKILL", 4, ""], "a signal after a checkpoint": ["SIGTERM", 4, ""]}
OF_PIECES = [
    ["SIGKILL", 2, ""],
    ["SIGTERM", 1, ""],
    ["SIGKILL", 4, ""],
    ["SIGTERM", 1, ""],
]  # before and after the first


def as_flags(values: dict) -> list[str]:
    """As the rules write them."""
    given = []
    for name, value in values.items():
        text = [str(path) for path in value] if isinstance(value, list) else value
        text = text if isinstance(value, list | str) else str(value) if isinstance(value, Path) else json.dumps(value)
        given += [f"--{name.replace('_', '-')}", *(text if isinstance(text, list) else [text])]
    return given


@pytest.fixture(scope="module")
def asked(shards, dialogues, pretrained, tuned, backbones, tmp_path_factory):  # noqa: F811
    """(stage, folder, workers, processes) -> the stage's module and its flags."""
    root = tmp_path_factory.mktemp("asked")
    pairs = root / "pairs.parquet"
    schemas.write(rows(40), pairs, schemas.PAIRS)
    files.write_json(root / "lexicon.json", LEXICON)
    captioner.train(pairs=pairs, lexicon=root / "lexicon.json", output=root / "captioner", **SIZES | {"steps": 3})
    places = {"backbones": backbones["llm"].parent}
    tables = {"pretrained": [], "shards": []} | places
    row = {"fraction": "zero", "seed": 1}
    tuning = tables | row | {"dialogues": dialogues, "lora": LORA, "steps": STEPS | {"reddit": 6}}
    vikdf, told = (
        {"system": "vikdf", "entry": KNOWING},
        [dialogues / f"{name}.parquet" for name in ("reddit", "image_chat", "probe")],
    )
    choice = {"keep": 2, "min_score": None, "synthetic": 1.0, "forbid_joint": {"lexicon": None}}
    sampled = {"candidates": 3, "top_p": 0.9, "max_new_tokens": 8, "batch": 12, "seed": 1}
    given = {
        "pretrain": SETTINGS | {"shards": shards} | places,
        "finetune": tuning | vikdf | {"start": [pretrained]},
        "seq2seq": tuning | {"system": "seq2seq", "entry": SEQ2SEQ, "start": []},
        "caption": sampled | choice | {"pairs": pairs, "captioner": root / "captioner", "clip": backbones["clip"]},
        "generate": tables | row | vikdf | {"tuned": [tuned], "dialogues": told, "decoding": DECODING}
        | {"batch": 3, "precision": "float32"},
    }  # fmt: skip

    def made(stage: str, folder: Path, workers: int, processes: int) -> tuple[str, list[str]]:
        values = given[stage] | {"output": folder / "out", "state_root": folder / "state"}
        if stage in LOOPS:
            numbers = TUNING | {"validate_every": 3} if stage != "pretrain" else TRAINING | {"steps": 6}
            values |= {"training": numbers | NUMBERS | {"workers": workers, "processes": processes}}
        return "finetune" if stage == "seq2seq" else stage, as_flags(values)

    return made


def ran(asked, folder: Path, matrix: dict[str, tuple]) -> dict[str, list[list[int]]]:
    """How the processes of each try of each case ended; matrix: name -> (stage, workers, processes, kills)."""
    cases = []
    for name, (stage, workers, processes, kills) in matrix.items():
        module, given = asked(stage, folder / name, workers, processes)
        cases.append({"name": name, "stage": module, "flags": given, "processes": processes, "kills": kills})
    (folder / "cases").write_text(json.dumps(cases))
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, folder / "cases"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: files.read_json(folder / f"{name}.json") for name in matrix}


def said(folder: Path, name: str) -> str:
    return "\n".join(f"{path.name}\n{path.read_text()[-1500:]}" for path in sorted(folder.glob(f"{name}-*.log")))


def ended_as_asked(folder: Path, name: str, kills: list, processes: int, codes: list[list[int]]) -> None:
    """Killed, or stopped with a word, in every try but the last."""
    for number, ((kind, *_), ended) in enumerate(zip(kills, codes[:-1], strict=True)):
        text = (folder / f"{name}-{number}.log").read_text()
        stopped = ended == [1] * processes and f"stopped by {kind} after" in text and "the same command goes on" in text
        assert stopped if kind == "SIGTERM" else -9 in ended, f"{name}, try {number}: {ended}\n{said(folder, name)}"
    assert codes[-1] == [0] * processes, said(folder, name)


def product(folder: Path) -> dict[str, str]:
    """Digests of what was made, but for what tells the numbers of workers; and the journal's points, each step once."""
    out = folder / "out"
    made = files.contents(out) if out.is_dir() else {"table": files.sha256(out)}
    found = {name: digest for name, digest in made.items() if name not in ("README.md", "config.json")}
    for path in (folder / "state").rglob(tracking.JOURNAL):
        points = [
            line for line in tracking.read(path.parent) if line.get("values", {}).keys() - {flops.STEP, flops.ROW}
        ]
        found["journal"] = json.dumps([[point["step"], point["values"]] for point in points])
    return found


def compare(folder: Path, matrix: dict[str, tuple], codes: dict[str, list[list[int]]]) -> None:
    for name, (stage, _, processes, kills) in matrix.items():
        ended_as_asked(folder, name, kills, processes, codes[name])
        undisturbed = product(folder / f"{stage} {processes}")
        assert len(undisturbed) > (stage in LOOPS) * 4, f"{stage} left {sorted(undisturbed)}"
        assert product(folder / name) == undisturbed, f"{name} is not as undisturbed\n{said(folder, name)}"


def undisturbed(stage: str) -> dict[str, tuple]:
    """One for each number of processes: sums of floats over two are not those of one. Workers change nothing."""
    return {f"{stage} {count}": (stage, 0, count, []) for count in ((1, 2) if stage in LOOPS else (1,))}


def in_turn(stage: str, spread: list[tuple[int, int]]) -> dict[str, tuple]:
    if stage in PIECES:
        return undisturbed(stage) | {f"{stage} struck": (stage, 0, 1, OF_PIECES)}
    kills = list(IN_TURN.values())
    return undisturbed(stage) | {f"{stage} {w}w {p}p": (stage, w, p, kills) for w, p in spread}


@pytest.mark.parametrize("stage", [*LOOPS, *PIECES])
def test_struck_at_every_point_in_turn_it_ends_as_undisturbed(asked, tmp_path, stage):
    matrix = in_turn(stage, [(0, 1), (2, 2)])
    compare(tmp_path, matrix, ran(asked, tmp_path, matrix))


@pytest.mark.long
@pytest.mark.parametrize("stage", LOOPS)
def test_struck_at_each_point_alone_and_in_turn_it_ends_as_undisturbed(asked, tmp_path, stage):
    matrix, spread = in_turn(stage, [(2, 1), (0, 2)]), itertools.product((0, 2), (1, 2))
    for (number, kill), (w, p) in itertools.product(enumerate(ALONE.values()), spread):
        matrix |= {f"{stage} {w}w {p}p {number}": (stage, w, p, [kill])}
    compare(tmp_path, matrix, ran(asked, tmp_path, matrix))
