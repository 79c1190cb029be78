"""Reads what raters sent back and checks every line of it; nothing is counted before all of it is right.

In: key.json of `vikdf human sheet` and the files that its pages gave, JSON or CSV, one a rater. Out: one Rating a rater,
dialogue, system and criterion. A rating that is missing, doubled, out of range, or not of this key's sheets is named with
its file, dialogue and answer, and so is a rater who sent nothing.
"""

import csv
import io
import json
from pathlib import Path
from typing import NamedTuple

from vikdf import files
from vikdf.human import CRITERIA, LETTERS, SCALE

COLUMNS = ["sheet", "rater", "dialogue", "answer", *CRITERIA]
NAMED = 20  # faults that an error names; the rest is counted
LARGEST = 20_000_000  # bytes; a sheet of 1,000 dialogues and ten systems gives a tenth of it
CURE = "copy key.json anew, or write it anew, in another folder, with `vikdf human sheet`, the same files and flags"


class Rating(NamedTuple):
    rater: str
    dialogue: str  # its id in the test set
    system: str
    criterion: str
    value: int


def read(key: Path, returned: list[Path], without: list[str]) -> tuple[dict, list[Rating]]:
    """The key and all ratings; a ValueError that lists what is wrong in any file."""
    told = read_key(key)
    if unknown := sorted(set(without) - set(told["raters"])):
        raise ValueError(f"--without names rater {unknown[0]}: {key} has the raters {', '.join(told['raters'])}")
    found, faults, source, unread = [], [], {}, 0
    for path in returned:
        try:
            rater, rows = _sheet(told, path)
        except ValueError as error:
            faults.append(str(error))
            unread += 1
            continue
        if rater in source:
            faults.append(f"{path} and {source[rater]} are both of rater {rater}: keep the one that counts")
        elif rater in without:
            faults.append(f"{path} is of rater {rater}, whom --without leaves out: leave out one of the two")
        else:
            ratings, wrong = _placed(told, rater, rows)
            found += ratings
            faults += [f"{path}: {each}" for each in wrong]
        source.setdefault(rater, path)
    if lost := sorted(set(told["raters"]) - set(source) - set(without), key=int):
        cure = f"name their files too, or say --without {' '.join(lost)}"
        cure = "mend first what cannot be read" if unread else cure  # a harmed file is not nothing
        faults.append(f"nothing came from rater {', '.join(lost)}: {cure}")
    if faults:
        more = [f"and {len(faults) - NAMED} more"] if len(faults) > NAMED else []
        raise ValueError("\n  ".join(["the ratings cannot be counted yet:", *faults[:NAMED], *more]))
    return told, found


def read_key(path: Path) -> dict:
    if not path.is_file():
        raise ValueError(f"{path} is missing: it lies where `vikdf human sheet` wrote the sheets; name it with --key")
    try:
        key = files.read_json(path)
    except ValueError:
        raise ValueError(f"{path} is damaged: {CURE}") from None
    rest = {name: value for name, value in key.items() if name != "digest"} if isinstance(key, dict) else {}
    if not rest or key.get("digest") != files.digest(rest):
        raise ValueError(f"{path} is not as `vikdf human sheet` wrote it: {CURE}")
    return key


def _sheet(key: dict, path: Path) -> tuple[str, list[dict]]:
    """Whose sheet a file is, and its rows {dialogue, answer, criterion: value}."""
    sheet, rows = _parsed(path)
    for rater, entry in key["raters"].items():
        if entry["sheet"] == sheet:
            return rater, rows
    raise ValueError(
        f"{path} is of another sheet ({str(sheet)[:12]}): the key has none such, name the key it belongs to"
    )


def _parsed(path: Path) -> tuple[str, list[dict]]:
    if not path.is_file():
        raise ValueError(f"{path} is missing: name the files that the raters sent back")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, a file of ratings has at most {LARGEST}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # a spreadsheet program may have put a mark first
        return _from_json(text, path) if text.lstrip().startswith(("{", "[")) else _from_csv(text, path)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, csv.Error) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): expected the file that the page saved; ask for it anew"
        ) from None


def _from_json(text: str, path: Path) -> tuple[str, list[dict]]:
    told = json.loads(text, parse_int=_integer)
    rows = told.get("ratings") if isinstance(told, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} holds no ratings: expected the file that the page saved; ask for it anew")
    return told.get("sheet"), rows


def _from_csv(text: str, path: Path) -> tuple[str, list[dict]]:
    head = text.split("\n", 1)[0]
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=";" if ";" in head else ","
    )  # ;: some spreadsheets
    if lost := [name for name in COLUMNS if name not in (reader.fieldnames or [])]:
        raise ValueError(
            f"{path} has no column {', '.join(lost)}: expected the file that the page saved; ask for it anew"
        )
    rows = [{name: _number(row[name]) for name in COLUMNS} for row in reader]
    rows = [row for row in rows if any(row.values())]  # some spreadsheets add lines of nothing but separators
    if not rows:
        raise ValueError(f"{path} holds no ratings: expected the file that the page saved; ask for it anew")
    if len(sheets := {row["sheet"] for row in rows}) != 1:
        raise ValueError(f"{path} holds rows of {len(sheets)} sheets: expected one file a rater, as the page saved it")
    return rows[0]["sheet"], rows


def _integer(digits: str) -> int | str:
    """A number as long as a page is none, and Python would refuse to read it."""
    return int(digits) if len(digits) < 10 else digits


def _number(text: str | None) -> int | str | None:
    """A cell as JSON would hold it."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text or None


def _placed(key: dict, rater: str, rows: list[dict]) -> tuple[list[Rating], list[str]]:
    """The ratings of one rater with the systems that the key tells, and what is wrong with them."""
    items = key["raters"][rater]["items"]
    expected = {
        (number, LETTERS[place]): (item["dialogue"], system)
        for number, item in enumerate(items, start=1)
        for place, system in enumerate(item["systems"])
    }
    found, faults, seen = [], [], set()
    for row in rows:
        spot = row.get("dialogue"), row.get("answer")
        if not _known(spot, expected):
            faults.append(f"dialogue {_short(spot[0])}, answer {_short(spot[1])} is not on the sheet of rater {rater}")
        elif spot in seen:
            faults.append(f"dialogue {spot[0]}, answer {spot[1]} comes twice")
        else:
            faults += [fault for name in CRITERIA if (fault := _fault(spot, name, row.get(name)))]
            found += [Rating(rater, *expected[spot], name, row.get(name)) for name in CRITERIA]
            seen.add(spot)
    faults += [
        f"dialogue {number}, answer {letter} is missing" for number, letter in expected if (number, letter) not in seen
    ]
    return found, faults


def _known(spot: tuple, expected: dict) -> bool:
    """Whether it is a dialogue and answer of the sheet; 1.0 and true are equal to 1, but no page writes them."""
    return type(spot[0]) is int and isinstance(spot[1], str) and spot in expected


def _fault(spot: tuple, criterion: str, value) -> str | None:
    where = f"dialogue {spot[0]}, answer {spot[1]}: {criterion}"
    if value is None:
        return f"{where} is missing"
    if type(value) is not int or value not in SCALE:
        return f"{where} is {_short(value)}: expected {SCALE[0]} to {SCALE[-1]}"
    return None


def _short(value) -> str:
    return json.dumps(value)[:40]
