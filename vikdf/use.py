"""What a person does with a trained model: `vikdf reply`, `vikdf textualize`, `vikdf draw`.

In: a folder that pretrain or finetune wrote (`reply` takes one of a baseline too), and the turns of a dialogue.
Out: a line of text, a small chat, or a PNG.
Used by vikdf.cli, which reads the words; torch is imported once a model is asked for, so that --help answers at once.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from vikdf import files
from vikdf.flags import printable

REPLY = """
Every TEXT is one turn; the last one is answered. Without TEXT it is a small chat: each line you type is your turn, an empty
line begins a new dialogue, Ctrl-D ends.

examples
  vikdf reply results/finetune/vikdf-zero-s1 "what colour is the kettle?"
  vikdf reply results/finetune/vikdf-zero-s1 "i bought a kettle ." "how nice !" "guess its colour"
  vikdf reply results/finetune/vikdf-zero-s1                          a chat
  vikdf reply results/finetune/vikdf-zero-s1 < turns.txt              the same from a file
  vikdf reply /models/vikdf --backbones /models "hello"               CLIP and the LLM lie in /models
"""
TEXTUALIZE = """
The language model is shown the knowledge vectors K of the dialogue and an instruction, and no word of the dialogue itself:
what it says, it has read in K.

examples
  vikdf textualize results/finetune/vikdf-zero-s1 "what colour is the kettle?"
  vikdf textualize results/finetune/vikdf-zero-s1 "hello" "i bought a kettle"
"""
DRAW = """
TAMIM's decoder draws the picture that it sees in the knowledge vectors K of the dialogue, from a picture that is masked
everywhere. The PNG is as large as the pictures that CLIP reads.

examples
  vikdf draw results/pretrain/vikdf-s1 "the kettle on the beach" --output kettle.png
  vikdf draw results/finetune/vikdf-zero-s1 "hello" "i bought a kettle" --output kettle.png
"""


def reply(path: Path, turns: list[str], backbones: Path | None) -> None:
    model = _model(path, backbones)
    if turns:
        print(model.reply(turns))
        return
    with contextlib.suppress(KeyboardInterrupt):
        chat(model, "> " if sys.stdin.isatty() else "")


def chat(model, prompt: str) -> None:
    said = []
    for line in _lines(prompt):
        turns = [*said, line] if line else []
        while len(turns) > 2 and not model.fits(turns, model.decoding["max_new_tokens"]):
            turns = turns[2:]  # the oldest exchange makes room
        try:
            said = [*turns, model.reply(turns)] if turns else []
        except ValueError as error:  # a line that is too long: the dialogue goes on without it
            print(f"vikdf: {printable(error)}", file=sys.stderr, flush=True)
            continue
        if said:
            print(said[-1], flush=True)


def _lines(prompt: str) -> Iterator[str]:
    """The lines of the standard input as they come; iterating over it would wait for a block of them."""
    while print(prompt, end="", flush=True) or (line := sys.stdin.readline()):
        yield line.strip()


def textualize(path: Path, turns: list[str], backbones: Path | None) -> None:
    print(_model(path, backbones).textualize(turns))


def draw(path: Path, turns: list[str], backbones: Path | None, output: Path) -> None:
    if output.suffix.lower() != ".png":
        raise ValueError(f"--output is {output}: expected a name that ends in .png")
    picture = _model(path, backbones).draw(turns)
    with files.whole(output) as aside:
        picture.save(aside, "PNG")
    print(f"{output}: {picture.width} x {picture.height} pixels")


def _model(path: Path, backbones: Path | None):
    import vikdf
    from vikdf import baseline, place

    config = baseline.found(path)
    made = (
        baseline.Baseline(path, config, backbones) if config else vikdf.VIKDF.from_pretrained(path, backbones=backbones)
    )
    return made.to(place.process().device)


def _dialogue_flags(one: argparse.ArgumentParser, least: str = "+") -> None:
    one.add_argument("path", type=Path, metavar="PATH", help="a folder that pretrain or finetune wrote")
    one.add_argument("turns", nargs=least, metavar="TEXT", help="a turn of the dialogue")
    one.add_argument("--backbones", type=Path, metavar="FOLDER", help="where CLIP and the LLM lie (else looked for)")


def _reply_flags(one: argparse.ArgumentParser) -> None:
    _dialogue_flags(one, least="*")


def _draw_flags(one: argparse.ArgumentParser) -> None:
    _dialogue_flags(one)
    one.add_argument("--output", type=Path, required=True, metavar="FILE.png", help="the picture to write")


COMMANDS = {  # name -> what it does in a line, more help, its flags, and what it does with them
    "reply": (
        "answer a dialogue, or chat",
        REPLY,
        _reply_flags,
        lambda given: reply(given.path, given.turns, given.backbones),
    ),
    "textualize": (
        "put the knowledge of a dialogue into words",
        TEXTUALIZE,
        _dialogue_flags,
        lambda given: textualize(given.path, given.turns, given.backbones),
    ),
    "draw": (
        "draw the knowledge of a dialogue as a PNG",
        DRAW,
        _draw_flags,
        lambda given: draw(given.path, given.turns, given.backbones, given.output),
    ),
}
