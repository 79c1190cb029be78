"""Says what is wrong in files of pairs or dialogues, line by line, before anything is fetched or trained.

In: files or folders in any form that sources and dialogues read. Out: `file:line: reason: value` for the first bad rows,
then counts by reason with their meaning; a ValueError where more rows are bad than the tolerance allows.
Run: vikdf validate talks.jsonl ; nothing is fetched, and no more than one row is in memory.
"""

import argparse
import contextlib
import gzip
import inspect
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from vikdf.flags import printable

HELP = """
FILE may be a params file (.yaml) or data: pairs of pictures and captions, or dialogues. The form of data is guessed from its
name and its first rows, and the guess is said; --form settles it. Nothing is fetched; pictures in folders, zips and tars are read.

  pairs      coco  cc3m  cc12m  sbu  list (--url --caption)  folder (--captions --file --caption)  webdataset
  dialogues  reddit  image_chat (--turns)  turns (--columns, --separator)  probe

examples
  vikdf validate                                               params.yaml
  vikdf validate presets/paper.yaml                            another params file
  vikdf validate data/raw/reddit/train.json                    each bad row with its line, then the counts
  vikdf validate talks.csv --columns question,answer           a turn a column, the response last
  vikdf validate talks.jsonl --columns turns                   a list of turns a row, the response last
  vikdf validate talks.tsv --columns 0,1 --separator " EOS "   no header; several turns in a column
  vikdf validate list.parquet --url URL --caption TEXT         addresses are checked, not asked for
  vikdf validate data/sources/world/cc3m.tsv --port 8765       a list of the embedded world, whose web is on this machine
  vikdf validate album --captions album.csv --file file_name --caption text
  vikdf validate Train_GCC-training.tsv --tolerance 0.01       exit status 0 as long as no more than 1 % of the rows are bad
"""
PARAMS = (".yaml", ".yml")
SHOWN = 100  # characters of a value on a line
LONGEST_LINE = 1 << 20  # bytes
LARGEST, MOST_PIXELS = 20_000_000, 50_000_000  # bytes and pixels of a picture, as in the presets
MEANING = {  # what a reason means and what helps, in a few words; those not named here are in data/README.md
    "wrong_form": "not what the form asks for; is --form right?",
    "missing_column": "the row lacks a column that the form reads",
    "wrong_columns": "another number of columns than the first line",
    "open_quote": "a quotation mark that nobody closes",
    "empty_turn": "a turn without a word",
    "long_turn": "a turn longer than any comment",
    "dialogue_of_1_turns": "nothing is answered",
    "dialogue_of_0_turns": "no turn at all",
    "not_utf8": "bytes that are no text: `iconv -t UTF-8` may help",
    "nul_bytes": "zero bytes: no text, or a file that was cut by a crash",
    "not_json": "no JSON on this line",
    "not_an_object": "JSON, but no object with names",
    "bad_value": "a time or date that no calendar has",
    "too_deep": "nested deeper than data ever is",
    "too_long": "a line of more than 1 MB",
    "empty": "an empty line",
    "bad_row": "a caption or an address that is no text",
    "bad_url": "no address: no scheme, no host, or a control character in it",
    "refused_scheme": "neither http nor https",
    "refused_address": "a private, local or reserved address; those of the embedded world are good with --port",
    "refused_port": "a port of another service than the web",
    "no_caption": "a picture without a caption",
    "missing": "listed, but the picture is not there",
    "broken": "a picture that does not decode",
    "polyglot": "a picture that is an archive, a page or a program too",
    "wrong_type": "no picture",
}


def validate(paths: list[Path], given: dict, show: int = 20, tolerance: float = 0.0, port: int = 0) -> None:
    """Checks each file; the ValueError at the end names those with too many bad rows.

    given: an entry of params.yaml as far as it is known ({} = guess); what the form reads it from is added here
    show: bad rows shown of a file
    tolerance: share of rows that may be bad
    port: of the embedded world's web on this machine, whose addresses are then good; 0: none is
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"--tolerance is {tolerance}, expected a share from 0 to 1, such as 0.01")
    failed = []
    for path in paths:
        try:
            _params(path) if path.suffix in PARAMS else _data(path, given, show, tolerance, port)
        except ValueError as error:
            failed.append(str(error))
    if failed:
        raise ValueError("\n".join(failed))


def _params(path: Path) -> None:
    from vikdf import params

    params.load(path)
    print(f"{path}: every key is known and has a value of its type")


def _data(path: Path, given: dict, show: int, tolerance: float, port: int) -> None:
    from tqdm import tqdm

    from vikdf.corpora import guess

    entry, why = _entry(path, given)
    print(printable(f"{path}: {_read_as(path, entry, why)}", keep=""))
    bad, said, facts = Counter(), 0, Counter()
    found = _found(path, entry, facts, port)
    with contextlib.closing(_Lines(path)) as lines:
        for line, reason, value in tqdm(found, unit=" row", mininterval=1, file=sys.stderr, disable=None):
            said += 1
            if reason:
                bad[reason] += 1
                if bad.total() <= show:
                    shown = _short(value if value is not None else lines.at(line))
                    print(f"{path}:{line}: {reason}{f': {shown}' if shown else ''}")
    _summary(path, said, bad, facts, show)
    bare = entry["form"] == "folder" and not entry["captions"] and bad["no_caption"] and said == bad.total()
    if bare and (hint := guess.captions_of(path)):
        print(printable(hint, keep=""))
    if not said:
        raise ValueError(f"{path} holds no row")
    if bad.total() > tolerance * said:
        share = f"{bad.total()} of {said} rows are bad ({bad.total() / said:.2%})"
        raise ValueError(f"{path}: {share}, more than --tolerance {tolerance:g} allows")


def _read_as(path: Path, entry: dict, why: str) -> str:
    options = {name: value for name, value in entry.items() if name != "form" and value not in (None, str(path))}
    said = ", ".join(f"{name} {value!r}" for name, value in options.items())
    return f"read as `{entry['form']}`{f', {said}' if said else ''}{f' (guessed: {why}; or say --form)' if why else ''}"


def _entry(path: Path, given: dict) -> tuple[dict, str]:
    """The entry to read by, and what a guess rests on; empty where nothing was guessed."""
    from vikdf.corpora import guess, pairs, talks

    if not path.exists():
        raise ValueError(f"{path} is missing")
    given = {name: value for name, value in given.items() if value not in (None, "")}
    if "form" not in given and "columns" in given:
        given["form"] = "turns"
    if "form" not in given and given.keys() & {"captions", "file"}:
        given["form"] = "folder"
    if "form" not in given and "caption" in given:
        given["form"] = "list"
    if "form" not in given:
        entry, why = guess.entry_of(path)
        _check_flags(path, entry | given, {**talks.FORMS, **pairs.FORMS}[entry["form"]])
        return entry | given, why
    if given["form"] not in talks.FORMS | pairs.FORMS:
        raise ValueError(f"unknown form {given['form']!r}: expected one of {', '.join(talks.FORMS | pairs.FORMS)}")
    _check_flags(path, given, {**talks.FORMS, **pairs.FORMS}[given["form"]])
    named = {"coco": "captions", "folder": "images", "webdataset": "shards"}
    place = named.get(given["form"], "list") if given["form"] in pairs.FORMS else None
    beside = {"coco": {"images": None}, "folder": {"captions": None}}.get(given["form"], {})
    return beside | given | ({place: str(path)} if place else {}), ""


def _check_flags(path: Path, entry: dict, reader: Callable) -> None:
    """Raises a ValueError for a flag that the form does not know, and for one that it needs."""
    parameters = inspect.signature(reader).parameters
    known = {*parameters, "form", *(["context_turns"] if "row" in parameters else [])}
    if lost := [name for name in entry if name not in known]:
        raise ValueError(f"{path}: the form `{entry['form']}` does not know --{lost[0].replace('_', '-')}")
    for name in ("columns", "url", "caption"):
        if name in parameters and parameters[name].default is inspect.Parameter.empty and name not in entry:
            raise ValueError(f"{path}: the form `{entry['form']}` needs --{name}; see vikdf validate --help")


def _found(path: Path, entry: dict, facts: Counter, port: int) -> Iterator[tuple[int, str, object]]:
    """(line, what is wrong or nothing, the value to show) of each row; `facts` counts what the summary says."""
    from vikdf.corpora import talks

    if entry["form"] in talks.FORMS:
        yield from _talks(path, entry, facts)
    else:
        yield from _pairs(entry, facts, port)


def _talks(path: Path, entry: dict, facts: Counter) -> Iterator[tuple[int, str, object]]:
    from vikdf.corpora import talks

    for line, found in talks.rows(path, entry, steps=["printable", "strip"]):
        if isinstance(found, talks.Bad):
            yield line, str(found), found.value
            continue
        turns = len(found.context)
        facts[("turns of context", str(turns) if turns < 10 else "10 or more")] += 1
        facts["longest turn"] = max(facts["longest turn"], *map(len, [*found.context, found.response]))
        yield line, "", None


def _pairs(entry: dict, facts: Counter, port: int) -> Iterator[tuple[int, str, object]]:
    from vikdf.corpora import pairs
    from vikdf.corpora.addresses import Limits, address_status

    limits = Limits(timeout=0, deadline=0, max_bytes=LARGEST, max_pixels=MOST_PIXELS, loopback_port=port)
    options = {name: value for name, value in entry.items() if name != "form"}
    for row in pairs.FORMS[entry["form"]](**options, limits=limits):
        status, asked = row["status"], row["status"] == pairs.PENDING
        if asked:
            status = address_status(row["url"], limits)
            facts[("addresses", status or "may be asked for")] += 1
        elif status == "ok":
            facts[("pictures", "here")] += 1
        sound = status in ("", "ok")
        if sound and not any(caption.strip() for caption in row["captions"]):
            status, sound = "no_caption", False
        facts[("captions of a picture", str(len(row["captions"])))] += sound
        shown = row["url"] if asked else "; ".join(row["captions"]) or None
        yield row["line"], "" if sound else status, shown


class _Lines:
    """The lines of a text file, asked for in rising order, to show those of which a reader says only what is wrong."""

    def __init__(self, path: Path):
        name = path.name.lower()
        plain = path.is_file() and name.removesuffix(".gz").endswith((".tsv", ".csv", ".jsonl", ".txt"))
        opener = gzip.open if name.endswith(".gz") else open
        self.stream, self.number = opener(path, "rb") if plain else None, 0

    def close(self) -> None:
        if self.stream:
            self.stream.close()

    def at(self, number: int) -> str:
        line = b""
        while self.stream and self.number < number:
            line = self._next()
        return line.decode("utf-8", "backslashreplace").rstrip("\r\n")

    def _next(self) -> bytes:
        self.number += 1
        line = rest = self.stream.readline(LONGEST_LINE)
        while rest and not rest.endswith(b"\n"):
            rest = self.stream.readline(LONGEST_LINE)
        return line[: 4 * SHOWN]


def _short(value) -> str:
    """The beginning of a value on one line; what does not show, such as a terminal's control characters, as its code."""
    try:
        text = value[: 4 * SHOWN] if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return "a value in a value in a value ..."
    text = printable(text[: 4 * SHOWN], keep="")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _summary(path: Path, said: int, bad: Counter, facts: Counter, show: int) -> None:
    if bad.total() > show:
        print(f"{path}: {bad.total() - show} more bad rows are not shown (--show)")
    print(f"{path}: {said} rows, {said - bad.total()} good, {bad.total()} bad")
    for reason, count in bad.most_common():
        print(f"  {count:9} {reason}{f': {MEANING[reason]}' if reason in MEANING else ''}")
    named = sorted(key for key in facts if isinstance(key, tuple))
    for name, parts in itertools.groupby(named, key=lambda key: key[0]):
        if counts := [f"{part}: {facts[name, part]}" for _, part in parts if facts[name, part]]:
            print(f"  {name}  {', '.join(counts)}")
    if facts["longest turn"]:
        print(f"  longest turn  {facts['longest turn']} characters")


def add_flags(one: argparse.ArgumentParser) -> None:
    one.epilog, one.formatter_class = HELP, argparse.RawDescriptionHelpFormatter
    for name, meaning in (
        ("form", "what the data is, where the guess is wrong"),
        ("separator", "turns: what stands between the turns of one column"),
        ("url", "list: the column of addresses, a name or a number from 0"),
        ("caption", "list, and the table of a folder: the column of captions, likewise"),
        ("images", "coco: folder or zip of the pictures, which are then read too"),
        ("captions", "folder: a table of captions, in the columns file and caption or those of --file and --caption"),
        ("file", "folder: the column of the table that names the pictures"),
    ):
        one.add_argument(f"--{name}", default="", metavar=name.upper(), help=meaning)
    said = "image_chat: all (default), the last turn answers those before it; first, the second the first"
    one.add_argument("--turns", choices=["all", "first"], help=said)
    said = "turns: the column of a list, or a column a turn, the response last; numbers from 0: the file has no header"
    one.add_argument("--columns", type=_columns, metavar="NAME[,NAME...]", help=said)
    said = "dialogues: numbers of context turns that are good (default: any)"
    one.add_argument("--context-turns", type=_numbers, metavar="N[,N...]", help=said)
    one.add_argument("--show", type=_count, default=20, metavar="N", help="bad rows shown of a file (default: 20)")
    said = "share of a file's rows that may be bad before the exit status is 1 (default: 0)"
    one.add_argument("--tolerance", type=float, default=0.0, metavar="SHARE", help=said)
    said = "lists: addresses of this machine at this port are good, as those of the embedded world (sources.world.port)"
    one.add_argument("--port", type=int, default=0, metavar="N", help=said)


def run(words: argparse.Namespace) -> None:
    """What the command line says, as a call of `validate`."""
    names = ("form", "separator", "turns", "images", "captions", "file", "context_turns", "columns")
    given = {name: getattr(words, name) for name in names}
    given |= {"url": _column(words.url), "caption": _column(words.caption)}
    validate(words.paths, given, words.show, words.tolerance, words.port)


def _columns(text: str) -> str | int | list[str | int]:
    names = [_column(name) for name in text.split(",")]
    return names if len(names) > 1 else names[0]


def _numbers(text: str) -> list[int]:
    if not all(number.isdecimal() for number in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers: expected one such as 2 or 2,3")
    return [int(number) for number in text.split(",")]


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows: expected 0 or more")
    return int(text)


def _column(name: str) -> str | int:
    return int(name) if name.isdecimal() else name
