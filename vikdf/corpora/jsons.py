"""Streams the elements of the lists of one JSON file, so that a file larger than memory needs no more than one element.

In: a .json (or .json.gz) that is a list, or an object with lists (COCO's and SBU's form). Out: its elements, one by one.
Python's own decoder reads each element; only the commas and brackets between them are read here, because the packages
that stream JSON bound neither the size nor the depth of an element. Used by vikdf/corpora/tables.py and pairs.py.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from vikdf.corpora.bounds import bound

CHUNK = 1 << 20  # characters read at a time
LARGEST = 1 << 26  # characters of one element; what is larger cannot be stepped over
SPACE = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()
TOO_DEEP = object()  # in the place of a value that is nested deeper than Python's decoder goes
NESTED = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}"]', re.DOTALL)


def sound(value) -> bool:
    """False for a value with a lone surrogate in a text: no file can hold it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def sound_object(text: str) -> dict | str:
    """The object that a text says, or what is wrong with it."""
    try:
        value = json.loads(text)
    except RecursionError:
        return "too_deep"
    except ValueError:
        return "not_json"
    return _object(value, text)


def _object(value, text: str) -> dict | str:
    if not isinstance(value, dict):
        return "too_deep" if value is TOO_DEEP else "not_an_object"
    try:
        return value if (text.isascii() and "\\u" not in text) or sound(value) else "not_utf8"
    except RecursionError:  # what can just be read is too deep to be written
        return "too_deep"


def objects(path: Path, longest: int, key: str = "") -> Iterator[tuple[int, dict | str]]:
    """The objects of a list, numbered from 1; in the place of one that is none, what is wrong with it."""
    for number, (value, text) in enumerate(elements(path, key), 1):
        yield number, "too_long" if len(text) > longest else _object(value, text)


def elements(path: Path, key: str = "") -> Iterator[tuple[object, str]]:
    """(value, text) of each element of the file's list; with a key, of the list that stands under it in an object."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing: put the file there, or change the entry of params.yaml that names it")
    with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as stream:
        try:
            text = _Text(path, stream)
            if not key:
                yield from _list(text)
                return
            if not (yield from _under(text, key)):
                raise ValueError(f"{path} has no key `{key}`: expected an object with a list under it")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is no whole gzip file ({error}): fetch it again") from None


class _Text:
    """The file as text that is read on when what was read is used up; bytes that are no UTF-8 become lone surrogates."""

    def __init__(self, path: Path, stream):
        self.path, self.stream, self.held, self.at, self.before = path, stream, "", 0, 0
        self.check_size = bound(path) if isinstance(stream, gzip.GzipFile) else None
        self.decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode

    def more(self) -> bool:
        """Reads on; False at the end. What was used up is let go."""
        data = self.stream.read(max(CHUNK, len(self.held) - self.at))
        if self.check_size:
            self.check_size(self.stream.tell())
        self.before += self.at
        self.held, self.at = self.held[self.at :] + self.decode(data, not data), 0
        return bool(data)

    def sign(self) -> str:
        """The next character that is no space; it stays."""
        while True:
            self.at = SPACE.match(self.held, self.at).end()
            if self.at < len(self.held):
                return self.held[self.at]
            if not self.more():
                return ""

    def take(self, *signs: str) -> str:
        """The next sign, which must be one of these."""
        if (found := self.sign()) not in signs or not found:
            self.wrong(f"expected {' or '.join(signs)}")
        self.at += 1
        return found

    def value(self) -> tuple[object, str]:
        """The next value, read on until it is whole and something stands behind it."""
        self.sign()
        while True:
            try:
                value, end = DECODER.raw_decode(self.held, self.at)
            except RecursionError:
                value, end, said = TOO_DEEP, _end(self.held, self.at), "it ends in the middle"
            except ValueError as error:
                end, said = len(self.held), error
            else:
                said = None
            if end < len(self.held):
                text, self.at = self.held[self.at : end], end
                return value, text
            if len(self.held) - self.at > LARGEST:
                self.wrong(f"one value has more than {LARGEST} characters")
            if not self.more():
                self.wrong(str(said) if said else "it ends in the middle")

    def wrong(self, said: str):
        place = f"at character {self.before + self.at}"
        raise ValueError(f"{self.path} is not valid JSON {place} ({said}): fetch the file again")


def _end(text: str, at: int) -> int:
    """Where a list or object ends that begins here, however deep it is; the text's end where it goes on."""
    depth = 0
    for found in NESTED.finditer(text, at):
        sign = found[0]
        if sign == '"':
            break  # a text that does not end
        depth += (sign in "[{") - (sign in "]}")
        if not depth:
            return found.end()
    return len(text)


def _list(text: _Text) -> Iterator[tuple[object, str]]:
    text.take("[")
    if text.sign() == "]":
        text.take("]")
        return
    while True:
        yield text.value()
        if text.take(",", "]") == "]":
            return


def _under(text: _Text, key: str):
    """The elements of the list under a key; every other list is stepped over one element at a time."""
    text.take("{")
    found = False
    while text.sign() != "}":
        name, _ = text.value()
        text.take(":")
        if text.sign() != "[":
            if name == key:
                text.wrong(f"expected a list under the key `{key}`")
            text.value()
        elif name == key:
            found = True
            yield from _list(text)
        else:
            for _ in _list(text):
                pass
        if text.take(",", "}") == "}":
            return found
    return found
