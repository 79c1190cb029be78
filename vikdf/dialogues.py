"""Reads text-only dialogues and puts them in one form.

In: json files per split: Reddit Conversation, Image-Chat as ParlAI publishes it, the world's probe.
Out: <output>/<task>.parquet (DIALOGUES, all splits) an entry, manifest.json last (rows read, kept, dropped by reason).
Run: python -m vikdf.dialogues --seed 1 --output data/dialogues \
         --corpora '{"reddit": {"form": "reddit", "context_turns": [2, 3], "train": "train.json"}}'

`position` is a row's place in a seeded order of its split, so that an eighth of the data lies inside the quarter.
A new form is one function here and its line in FORMS.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vikdf import files, flags, schemas

FRACTIONS = {"full": 1, "quarter": 1 / 4, "eighth": 1 / 8, "zero": 0}
SPLITS = ("train", "valid", "test")


class Dropped(Exception):
    """A row that cannot be used; its text is the reason under which it is counted."""


def fraction(table: pa.Table, name: str) -> pa.Table:
    """The named fraction of one split's rows: those that come first in its seeded order."""
    if name not in FRACTIONS:
        raise ValueError(f"unknown fraction {name!r}: expected one of {', '.join(FRACTIONS)}")
    return table.filter(pc.less(table["position"], pa.scalar(FRACTIONS[name] * table.num_rows)))


def read_reddit(row, *, context_turns: list[int]) -> tuple[list[str], str, str]:
    """{context: [turn, ...], response}; contexts of another number of turns are dropped."""
    context, response = _field(row, "context", list), _field(row, "response", str)
    if len(context) not in context_turns:
        raise Dropped(f"context_of_{len(context)}_turns" if len(context) < 10 else "context_of_10_turns_or_more")
    return context, response, ""


def read_image_chat(row, *, turns: str) -> tuple[list[str], str, str]:
    """{dialog: [[style, text], ...]}; `all`: the third turn answers the first two; `first`: the second the first."""
    texts = [turn[1] if isinstance(turn, list) and len(turn) == 2 else None for turn in _field(row, "dialog", list)]
    wanted = {"all": 3, "first": 2}[turns]
    if len(texts) < wanted:
        raise Dropped(f"dialogue_of_{len(texts)}_turns")
    return texts[: wanted - 1], texts[wanted - 1], ""


def read_probe(row) -> tuple[list[str], str, str]:
    """{context, response, probe: {noun, held_out, attribute, value, choices, answers}}, as the world asks."""
    facts = json.dumps(_field(row, "probe", dict), sort_keys=True, ensure_ascii=False)
    return _field(row, "context", list), _field(row, "response", str), facts


FORMS = {"reddit": read_reddit, "image_chat": read_image_chat, "probe": read_probe}


def _field(row, name: str, kind: type):
    if not isinstance(row, dict) or not isinstance(row.get(name), kind):
        raise Dropped("wrong_form")
    return row[name]


def _clean(texts: list) -> list[str]:
    """Runs of white space become one space; nothing else is touched (control tokens are the chat template's matter)."""
    if not all(isinstance(text, str) for text in texts):
        raise Dropped("wrong_form")
    cleaned = [" ".join(text.split()) for text in texts]
    if not all(cleaned):
        raise Dropped("empty_turn")
    return cleaned


def _rows(path: Path, entry: dict) -> list:
    if not path.exists():
        raise ValueError(f"{path} is missing: put it there (data/README.md) or change its entry in dialogues.corpora")
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): expected a list of dialogues; fetch the file again"
        ) from None
    if not isinstance(rows, list):
        raise ValueError(
            f"{path} holds a {type(rows).__name__}, expected a list of dialogues in the form `{entry['form']}`"
        )
    return rows


def read_split(task: str, split: str, entry: dict, seed: int) -> tuple[list[dict], Counter]:
    """A split's rows in the file's order, with their seeded positions, and the counts of what was dropped."""
    form = FORMS[entry["form"]]
    options = {name: value for name, value in entry.items() if name not in ("form", *SPLITS)}
    kept, dropped = [], Counter()
    for number, row in enumerate(_rows(Path(entry[split]), entry)):
        try:
            context, response, probe = form(row, **options)
            *context, response = _clean([*context, response])
        except Dropped as reason:
            dropped[str(reason)] += 1
            continue
        names = {"id": f"{task}-{split}-{number:07d}", "task": task, "split": split}
        kept.append(names | {"context": context, "response": response, "probe": probe})
    if not kept:
        raise ValueError(f"{entry[split]} has no usable row for the form `{entry['form']}`: {_said(dropped)}")
    for position, row in enumerate(sorted(kept, key=lambda row: _draw(seed, row["id"]))):
        row["position"] = position
    return kept, dropped


def _draw(seed: int, identity: str) -> bytes:
    """A row's lot: it depends on nothing but the seed and the row, not on a library's generator."""
    return hashlib.sha256(f"{seed} {identity}".encode()).digest()


def _said(dropped: Counter) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items())) or "nothing dropped"


def dialogues(*, seed: int, corpora: dict, output: Path) -> None:
    """Reads the dialogue corpora and writes one table for each.

    seed: of the order that the fractions are cut from
    corpora: {task: {form: reddit | image_chat | probe, train: file, valid: file, test: file, ...}}
    output: folder of the tables
    """
    if unknown := {entry["form"] for entry in corpora.values()} - FORMS.keys():
        raise ValueError(
            f"unknown form {sorted(unknown)[0]!r} in dialogues.corpora: expected one of {', '.join(FORMS)}"
        )
    (output / "manifest.json").unlink(missing_ok=True)  # its existence means complete
    counts = {}
    for task, entry in corpora.items():
        table, counts[task] = [], {"splits": {}}
        for split in (split for split in SPLITS if split in entry):
            kept, dropped = read_split(task, split, entry, seed)
            table += kept
            read = len(kept) + dropped.total()
            counts[task]["splits"][split] = {"read": read, "kept": len(kept), "dropped": dict(dropped)}
            print(f"{task} {split}: {read} read, {len(kept)} kept; {_said(dropped)}")
        schemas.write(table, output / f"{task}.parquet", schemas.DIALOGUES)
        counts[task]["sha256"] = files.sha256(output / f"{task}.parquet")
    files.write_json(output / "manifest.json", {"tasks": counts, "seed": seed})


if __name__ == "__main__":
    flags.main(dialogues)
