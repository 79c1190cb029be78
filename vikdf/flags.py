"""A stage's command line, made from its function: the keyword-only signature is the flags and the params section.

    if __name__ == "__main__":
        flags.main(filter_pairs)

`name: type` becomes `--name VALUE` (underscores as dashes); Path, str, int, float and bool are read as such,
`list[Path]` takes several values, any other type (dict, list, X | None) is read as JSON. Lines `name: meaning` of the
docstring become the help. A ValueError or an OSError is the user's: one sentence, the command to repeat, exit status 1.
What the flags name is compared with its seals first; what the function made at flags that begin with `output` is sealed.
SIGTERM and Ctrl-C are one sentence too, with exit status 143 and 130; what can be kept in the middle has vikdf.signals.
"""

import argparse
import inspect
import json
import os
import re
import shlex
import signal
import sys
import typing
from collections.abc import Callable
from pathlib import Path

from vikdf import seals, space


def _argument(annotation) -> dict:
    if annotation is bool:
        return {"type": lambda text: {"true": True, "false": False}[text.lower()], "metavar": "true|false"}
    if annotation in (int, float, str, Path):
        return {"type": annotation, "metavar": annotation.__name__.upper()}
    if typing.get_args(annotation) == (Path,) and typing.get_origin(annotation) is list:
        return {"type": Path, "nargs": "*", "metavar": "PATH"}
    return {"type": json.loads, "metavar": "JSON"}


def parser(function: Callable) -> argparse.ArgumentParser:
    module = function.__module__ if function.__module__ != "__main__" else inspect.getmodule(function).__spec__.name
    text = inspect.cleandoc(function.__doc__ or "")
    meanings = dict(re.findall(r"^ *(\w+): (.+)$", text, flags=re.MULTILINE))
    about = re.sub(r"^ *\w+: .+\n?", "", text, flags=re.MULTILINE).strip()
    made = argparse.ArgumentParser(
        prog=f"python -m {module.removesuffix('.__main__')}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        extra = {"required": True} if required else {"default": parameter.default}
        meaning = meanings.get(name, "") + ("" if required else f" (default: {parameter.default})")
        made.add_argument(
            f"--{name.replace('_', '-')}", help=meaning.replace("%", "%%"), **extra, **_argument(parameter.annotation)
        )
    return made


def printable(text: object, keep: str = "\n\t") -> str:
    """A text that may have a stranger's words in it, for a terminal: what does not show, such as the control characters
    that clear a screen or hide a line, becomes its code."""
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape").decode() for sign in str(text)
    )


def main(function: Callable) -> None:
    made = parser(function)
    values = vars(made.parse_args())
    before = signal.signal(signal.SIGTERM, _interrupts(os.getpid()))
    try:
        with seals.guarded(values):
            function(**values)
    except KeyboardInterrupt as stop:
        name = str(stop) or "SIGINT"
        said = f"stopped by {name}; nothing that was finished is lost: the same command goes on"
        print(f"\n{made.prog}: {said}", file=sys.stderr)
        sys.exit(128 + signal.Signals[name])
    except (ValueError, OSError) as error:
        print(f"\n{made.prog}: {printable(space.told(error))}", file=sys.stderr)
        print(f"to repeat this step alone: {made.prog} {shlex.join(sys.argv[1:])}", file=sys.stderr)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupts(own: int) -> Callable:
    """SIGTERM ends this process as Ctrl-C does; a child that it made ends without a word."""

    def interrupt(number: int, frame) -> None:
        if os.getpid() != own:
            os._exit(128 + number)
        raise KeyboardInterrupt(signal.Signals(number).name)

    return interrupt
