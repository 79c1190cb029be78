"""The pictures that dialogues are about: asked for by name in a folder, zip or tar, looked at, and kept in one table.

In: an open archive (archives.py) and names as the corpus writes them. Out: rows of PICTURES, each picture once; for each
dialogue the name of its picture there, or nothing, and counts of what became of all:

    ok                       the bytes are kept as they came
    unnamed                  the dialogue names no picture
    missing ambiguous_name   not in the folder or archive; in several folders of it
    wrong_type broken ...    what archives.py and pictures.py refuse: read there, never extracted, never trusted by name
    narrow                   a line rather than a picture, see NARROWEST
"""

from collections import Counter
from collections.abc import Callable

from vikdf.corpora.archives import Archive, File
from vikdf.corpora.pictures import examine

ENDINGS = ("", ".jpg")  # Image-Chat names a picture by its hash; the file has an ending
# Longer side by shorter. Models are shown pictures whose shorter side is made some 224 pixels long: of a line of 1 by 100,000
# pixels, a file of 400 bytes, that takes 15 GB. (Pictures of sources meet filter.max_aspect.)
NARROWEST = 100
BATCH, BATCH_BYTES = 1000, 1 << 26  # pictures, and bytes of them, in memory at a time


class Album:
    """The pictures of one task, in the order in which they are first asked for."""

    def __init__(self, task: str, archive: Archive, add: Callable[[list[dict]], None], max_bytes: int, max_pixels: int):
        self.task, self.archive, self.add = task, archive, add
        self.max_bytes, self.max_pixels = max_bytes, max_pixels
        self.became: dict[str, str] = {}  # name -> ok, or why there is no picture
        self.counts, self.waiting, self.size = Counter(), [], 0

    def keep(self, name: str) -> str:
        """The picture's name in the table; empty where there is none to be had."""
        if name not in self.became:
            self.became[name] = self._take(name) if name else "unnamed"
        self.counts[self.became[name]] += 1
        return self._named(name) if self.became[name] == "ok" else ""

    def _named(self, name: str) -> str:
        return f"{self.task}/{name}"

    def _take(self, name: str) -> str:
        wrong, data = self.archive.read(self._find(name), self.max_bytes)
        status = wrong or self._look(data)
        if status == "ok":
            self.waiting.append({"name": self._named(name), "image": data})
            self.size += len(data)
        if len(self.waiting) == BATCH or self.size > BATCH_BYTES:
            self.flush()
        return status

    def _look(self, data: bytes) -> str:
        status, *sides = examine(data, self.max_pixels)
        return "narrow" if status == "ok" and max(sides) > NARROWEST * min(sides) else status

    def _find(self, name: str) -> File | str:
        found = [self.archive.find(f"{name}{ending}") for ending in ENDINGS]
        return next((each for each in found if each != "missing"), "missing")

    def flush(self) -> None:
        if self.waiting:
            self.add(self.waiting)
        self.waiting, self.size = [], 0
