"""What a data file is, by its name and its first rows, for those who do not say it.

In: a file or folder of pairs or dialogues. Out: (its entry as params.yaml would have it, what the guess rests on).
A guess that would be a mere bet is a ValueError that names the flags which settle it. Used by `vikdf validate`.
"""

import itertools
import re
import shlex
from collections import Counter
from pathlib import Path

from vikdf import tars
from vikdf.corpora import tables

URLS = ("url", "image_url", "img_url", "image")  # what lists call their columns, upper or lower case
CAPTIONS = ("caption", "text", "captions", "title", "alt", "alt_text")
RESPONSES = ("response", "answer", "reply")
LOOKED_AT = 20  # rows
BEGINNING = 1 << 16  # bytes of a json that is one object
SETTLE = (
    "say it: --form and, for any table, --url and --caption (pairs) or --columns (dialogues); see vikdf validate --help"
)


def entry_of(path: Path) -> tuple[dict, str]:
    """The entry of params.yaml that fits, without the split or name under which a dialogue file would stand there."""
    name = path.name.lower()
    tars.check_there(path, folder=True)
    if path.is_dir() and not any(path.glob("*.tar")):
        return {"form": "folder", "images": str(path), "captions": None}, "it is a folder without tars"
    if path.is_dir() or name.endswith(".tar"):
        return {
            "form": "webdataset",
            "shards": str(path),
        }, "its name says so" if path.is_file() else "it is a folder of tars"
    if name.endswith(".zip"):
        return {"form": "folder", "images": str(path), "captions": None}, "its name says so"
    if packed := re.search(r"\.(tgz|tar\.(gz|bz2|xz|zst))$", name):
        raise ValueError(
            f"{path} is a packed tar ({packed[0]}), in which nothing can be found by its place: unpack it into a new folder,"
            " `tar -xf FILE -C FOLDER`, and name that folder here"
        )
    if name.endswith(".json") and (found := _one_object(path)):
        return found
    return _of_columns(path)


def captions_of(folder: Path) -> str:
    """A line that says how a table in a folder of pictures is read with them; empty where none lies there."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    table = next((each for each in inside if each.suffix.lower() in (".csv", ".tsv", ".jsonl")), None)
    if table is None:
        return ""
    words = shlex.join(["vikdf", "validate", str(folder), "--captions", str(table)])
    return f"{folder}: are the captions in {table.name}? {words} --file COLUMN --caption COLUMN"


def _one_object(path: Path) -> tuple[dict, str] | None:
    with open(path, "rb") as stream:
        begin = stream.read(BEGINNING).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not begin.startswith(b"{"):
        return None
    if b'"image_urls"' in begin or b'"captions"' in begin:
        return {"form": "sbu", "list": str(path)}, "it is one object with lists"
    return {"form": "coco", "captions": str(path), "images": None}, "it is one object with lists"


def _of_columns(path: Path) -> tuple[dict, str]:
    header = None if tables.form_of(path) not in ("tsv", "csv") else _header(path)
    looked = itertools.islice(tables.rows(path, header), 50 * LOOKED_AT)
    sound = [*itertools.islice((row for _, row in looked if not isinstance(row, str)), LOOKED_AT)]
    if not sound:
        raise ValueError(f"{path}: none of its first rows can be read, so its form cannot be guessed: {SETTLE}")
    held = Counter(itertools.chain.from_iterable(sound))
    names = [name for name, rows in held.items() if 2 * rows > len(sound)]  # in most rows, as in _texts
    found = (_numbered(path, sound) if header == [] else None) or _dialogue(names, sound) or _pair(path, names)
    if not found:
        raise ValueError(f"{path} has the columns {', '.join(names)[:200]}, which could be anything: {SETTLE}")
    return found, f"its columns are {', '.join(names)[:80]}"


def _header(path: Path) -> list | None:
    """[] where the first line is a row already: a list of urls has one there, a table of names has none."""
    looked = [row for _, row in itertools.islice(tables.rows(path, []), LOOKED_AT)]
    first = next((row for row in looked if not isinstance(row, str)), {})
    if any(_is_url(value) for value in first.values()):
        return []
    if looked and isinstance(looked[0], str):
        raise ValueError(f"{path}: its first line is {looked[0]}, so it has no header to guess its form by: {SETTLE}")
    return None


def _is_url(value) -> bool:
    return isinstance(value, str) and re.match(r"\s*\w{2,10}://", value) is not None


def _numbered(path: Path, sound: list[dict]) -> dict | None:
    """A list without a header, by the column in which most rows have a url."""
    shares = {name: sum(_is_url(row.get(name)) for row in sound) for name in sound[0]}
    url = int(max(shares, key=shares.get))
    if len(shares) != 2 or not shares[str(url)]:
        return None
    if tables.form_of(path) == "tsv":
        return {"form": "cc3m" if url else "cc12m", "list": str(path)}
    return {"form": "list", "list": str(path), "url": url, "caption": 1 - url}


def _dialogue(names: list[str], sound: list[dict]) -> dict | None:
    lists = [name for name in names if _texts(sound, name)]
    if "dialog" in lists:
        said = [row["dialog"] for row in sound if _is_list(row.get("dialog"))]
        pairs = sum(all(isinstance(turn, list) for turn in turns) for turns in said)
        return {"form": "image_chat"} if 2 * pairs > len(said) else {"form": "turns", "columns": "dialog"}
    response = next((name for name in names if name.lower() in RESPONSES), None)
    if "context" in names and response == "response" and _texts(sound, "context"):
        asked = "probe" in names and any(isinstance(row.get("probe"), dict) for row in sound)
        return {"form": "probe"} if asked else {"form": "reddit"}
    if response:
        return {"form": "turns", "columns": [name for name in names if _is_context(name)] + [response]}
    if len(lists) == 1:
        return {"form": "turns", "columns": lists[0]}
    numbered = [name for name in names if re.fullmatch(r"turn_?\d+", name.lower())]
    return {"form": "turns", "columns": numbered} if len(numbered) > 1 else None


def _is_context(name: str) -> bool:
    return re.match(r"context|turn|question|utterance|history", name.lower()) is not None


def _is_list(value) -> bool:
    return isinstance(value, list) or isinstance(value, str) and value.lstrip().startswith("[")


def _texts(sound: list[dict], name: str) -> bool:
    """A column of lists of text; in most rows at least, as the rest may be what is wrong with the file."""
    return 2 * sum(_is_list(row.get(name)) for row in sound) > len(sound)


def _pair(path: Path, names: list[str]) -> dict | None:
    url = next((name for name in names if name.lower() in URLS), None)
    caption = next((name for name in names if name.lower() in CAPTIONS), None)
    return {"form": "list", "list": str(path), "url": url, "caption": caption} if url and caption else None
