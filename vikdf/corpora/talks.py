"""Reads dialogues in their published forms, row by row, and cleans their text by named steps.

In: a table of any kind that tables.py reads (.json a list, .jsonl, .csv, .tsv, each also .gz, or .parquet) and its entry of
params.yaml. Out: rows(path, entry) -> (number, Talk), or (number, Bad) with the reason why a row cannot be used:

    wrong_form missing_column              not what the form asks for; a column that the row has not
    dialogue_of_<n>_turns                  nothing is answered, so nothing can be learned from it
    empty_turn long_turn                   a turn without a word; one above `longest` characters
    context_of_<n>_turns                   the rule context_turns, if the entry has one
    not_utf8 not_json too_long ...         what tables.py found wrong with the line itself

A new form is one function here and its line in FORMS; a new step of cleaning one function and its line in STEPS.
"""

import inspect
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vikdf import files
from vikdf.corpora import tables

SPLITS = ("train", "valid", "test")
BESIDE = ("form", "context_turns", "clean", "pictures", *SPLITS)  # what an entry holds besides the options of its form
LONGEST = 10_000  # characters of a turn: Reddit's own limit for a comment
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all control characters but tab and line ends


@dataclass
class Talk:
    """A context, oldest turn first, and what was answered. Styles are counted and go no further."""

    context: list[str]
    response: str
    probe: str = ""  # JSON of what the world asks, or empty
    picture: str = ""  # the corpus' own name for the picture that the dialogue is about, or empty
    styles: list[str] = field(default_factory=list)


class Bad(Exception):
    """Why a row cannot be used: a name to count it under, and what was found."""

    def __init__(self, reason: str, value=None):
        super().__init__(reason)
        self.value = value


def read_reddit(row: dict) -> Talk:
    """{context: [turn, ...], response}"""
    return Talk(_listed(_of(row, "context")), _of(row, "response"))


def read_image_chat(row: dict, *, turns: str = "all") -> Talk:
    """{image_hash, dialog: [[style, text], ...]}; `all`: the last turn answers those before it; `first`: the second the first."""
    said = _listed(_of(row, "dialog"))
    if not all(isinstance(turn, list) and len(turn) == 2 and isinstance(turn[0], str) for turn in said):
        raise Bad("wrong_form", said)
    styles, texts = [turn[0] for turn in said], [turn[1] for turn in said]
    talk = _talk(texts[:2] if turns == "first" else texts, styles[:2] if turns == "first" else styles)
    talk.picture = name if isinstance(name := row.get(PICTURE), str) else ""
    return talk


def read_probe(row: dict) -> Talk:
    """{context, response, probe: {noun, held_out, attribute, value, choices, answers}}, as the world asks."""
    if not isinstance(facts := _of(row, "probe"), dict):
        raise Bad("wrong_form", facts)
    talk = read_reddit(row)
    talk.probe = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return talk


def read_turns(row: dict, *, columns: str | int | list, separator: str = "") -> Talk:
    """The last turn answers those before it. One column: a list of turns; several: a turn each, the response the last.

    A text column may hold several turns with a separator between them; without one, a list is written as JSON in it.
    Columns without text before the first turn are no turns, so that a table can hold contexts of several lengths.
    """
    if not isinstance(columns, list):
        value = _of(row, str(columns))
        return _talk(value.split(separator) if separator and isinstance(value, str) else _listed(value))
    turns = []
    for value in (_of(row, str(name)) for name in columns):
        parted = value.split(separator) if separator and isinstance(value, str) else value
        turns += parted if isinstance(parted, list) else [parted]
    return _talk([*itertools.dropwhile(lambda turn: turn is None or isinstance(turn, str) and not turn.strip(), turns)])


FORMS = {"reddit": read_reddit, "image_chat": read_image_chat, "probe": read_probe, "turns": read_turns}
PICTURE = "image_hash"  # Image-Chat's column, which is asked for where an entry names `pictures`
COLUMNS = {"reddit": ["context", "response"], "image_chat": ["dialog"], "probe": ["context", "response", "probe"]}


def _of(row: dict, name: str):
    if name not in row:
        raise Bad("missing_column", row)
    return row[name]


def _listed(value) -> list:
    """A list; where a file can only hold text (.csv, .tsv), the list is written as JSON."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise Bad("wrong_form", value) from None
    if not isinstance(found, list):
        raise Bad("wrong_form", value)
    return found


def _talk(turns: list, styles: list[str] | None = None) -> Talk:
    if len(turns) < 2:
        raise Bad(f"dialogue_of_{len(turns)}_turns", turns)
    return Talk(turns[:-1], turns[-1], styles=styles or [])


STEPS: dict[str, Callable[[str], str]] = {
    "lower": str.lower,  # the original code: all of Image-Chat, nothing of Reddit
    "strip": str.strip,  # the original code: every turn of a context; its scorer strips the responses
    "printable": lambda text: (
        text if text.isprintable() else CONTROL.sub("", text)
    ),  # ours: takes out control characters
    "spaces": lambda text: " ".join(text.split()),  # ours: runs of white space become one space
}


def clean(talk: Talk, steps: list[str], longest: int, changed: Counter) -> None:
    """Cleans each turn by the steps, in their order; `changed` counts the turns that a step altered."""
    for turn in (*talk.context, talk.response):
        if not isinstance(turn, str):
            raise Bad("wrong_form", turn)
        if len(turn) > longest:
            raise Bad("long_turn", turn)
    turns, altered = [*talk.context, talk.response], Counter()
    for name in steps:
        before, turns = turns, [STEPS[name](turn) for turn in turns]
        altered[name] += sum(old != new for old, new in zip(before, turns, strict=True))
    if not talk.context or any(not turn or turn.isspace() for turn in turns):
        raise Bad("empty_turn", [*talk.context, talk.response])
    *talk.context, talk.response = turns
    changed.update(altered)


def check(task: str, entry: dict, steps: list[str]) -> None:
    """Raises a ValueError for a form or a step that is not there, or other keys than the form has."""
    files.check_name(task, "dialogues.corpora", taken=("pictures",))
    where = f"dialogues.corpora.{task}"
    if entry.get("form") not in FORMS:
        raise ValueError(f"unknown form {entry.get('form')!r} in {where}: expected one of {', '.join(FORMS)}")
    if lost := [name for name in steps if name not in STEPS]:
        raise ValueError(f"unknown step {lost[0]!r} of cleaning in {where}: expected some of {', '.join(STEPS)}")
    if entry["form"] == "turns" and "columns" not in entry:
        raise ValueError(f"{where} names no columns: expected the column of the turns, or a list, the response last")
    options = [*inspect.signature(FORMS[entry["form"]]).parameters][1:]  # the first is the row
    if wrong := sorted(entry.keys() - {*options, *BESIDE}):
        said = f"{where}: the form {entry['form']} takes {', '.join([*options, *BESIDE[1:]])}"
        raise ValueError(f"{said}; `{wrong[0]}` is unknown")
    if entry.get("pictures") and entry["form"] != "image_chat":
        raise ValueError(f"{where}: the form {entry['form']} names no pictures: take out `pictures`, or write null")
    columns = entry.get("columns")
    if isinstance(columns, list) and len({type(name) for name in columns}) > 1:
        said = f"{where}: columns is {columns}"
        raise ValueError(f"{said}, expected names, or numbers alone where the file has no header")
    if not entry.keys() & set(SPLITS):
        raise ValueError(f"{where} names no file: expected one for some of {', '.join(SPLITS)}")


def rows(
    path: Path, entry: dict, *, steps: list[str], longest: int = LONGEST, changed: Counter | None = None
) -> Iterator[tuple[int, Talk | Bad]]:
    """The dialogues of a file with their lines (.json and .parquet: rows); no more than one is in memory."""
    form, changed = FORMS[entry["form"]], Counter() if changed is None else changed
    options = {name: value for name, value in entry.items() if name not in BESIDE}
    columns = options.get("columns", COLUMNS.get(entry["form"]))
    columns = columns if isinstance(columns, list) else [columns]
    columns = [*columns, PICTURE] if entry.get("pictures") else columns
    header = [] if any(isinstance(name, int) for name in columns) else None  # numbers: the file has no header
    for number, row in tables.rows(path, header, wanted=[str(name) for name in columns]):
        try:
            if isinstance(row, str):
                raise Bad(row)
            talk = form(row, **options)
            clean(talk, steps, longest, changed)
            _keep(talk, entry.get("context_turns", "any"))
        except Bad as bad:
            yield number, bad
        except RecursionError:
            yield number, Bad("too_deep")
        else:
            yield number, talk


def _keep(talk: Talk, context_turns: list[int] | str) -> None:
    turns = len(talk.context)
    if context_turns != "any" and turns not in context_turns:
        raise Bad(f"context_of_{turns}_turns" if turns < 10 else "context_of_10_turns_or_more", talk.context)
