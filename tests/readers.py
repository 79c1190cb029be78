"""What reads bytes from outside, for tests/test_fuzz.py: how an entry of readers_of_data.py and readers_of_work.py looks.

In: nothing. Out: Reader, and makers of a sound folder's files.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reader:
    make: Callable[[Path], None]  # writes what is sound into a folder
    file: str  # of that folder, which is harmed
    read: Callable[[Path], object]  # reads the folder
    slow: int = 1  # as many times fewer inputs
    called: str = ""  # what an error calls it, if not by its path


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def value(name: str, content) -> Callable[[Path], None]:
    return text(name, json.dumps(content))


def both(*makers: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: [make(folder) for make in makers]


def raw(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content)
