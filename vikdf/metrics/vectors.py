"""Word vectors by path, for Average, Extrema and Greedy.

A folder with vectors.npy + words.txt (what the stage `backbones` makes), a .npy beside its words.txt, a word2vec .bin,
or GloVe text (.txt, .txt.gz). A folder may also hold exactly one such file. Name and sha256 go into every signature.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vikdf import files


@dataclass(frozen=True)
class Vectors:
    name: str
    sha256: str
    place: dict[str, int]  # word -> row
    matrix: np.ndarray  # [V, d] float32
    mean: np.ndarray  # [d] float64: the vector of every word that is not there, as in the reference tool

    @property
    def signature(self) -> str:
        return f"vectors:{self.name}@{self.sha256[:12]}|unknown:mean"

    def rows(self, words: list[str]) -> np.ndarray:
        """[len(words), d] float64."""
        places = np.array([self.place.get(word, -1) for word in words], dtype=np.int64)
        return np.where((places >= 0)[:, None], self.matrix[places].astype(np.float64), self.mean)


def _text(path: Path) -> tuple[list[str], np.ndarray]:
    words, rows = [], []
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            word, _, numbers = line.rstrip("\n").partition(" ")
            row = np.array(numbers.split(" "), dtype=np.float32)
            if rows and len(row) != len(rows[0]):
                raise ValueError(f"{path}, line {number}: {len(row)} numbers, but {len(rows[0])} in the lines before")
            words.append(word)
            rows.append(row)
    if not rows:
        raise ValueError(f"{path} holds no vectors: expected lines `word number number ...`")
    return words, np.stack(rows)


def _word2vec(path: Path) -> tuple[list[str], np.ndarray]:
    content = path.read_bytes()
    head, _, _ = content.partition(b"\n")
    count, width = map(int, head.split())
    words, matrix, at = [], np.empty((count, width), dtype=np.float32), len(head) + 1
    for row in range(count):
        end = content.index(b" ", at)
        words.append(content[at:end].decode("utf-8", errors="replace").lstrip("\n"))
        at = end + 1 + 4 * width
        matrix[row] = np.frombuffer(content[end + 1 : at], dtype="<f4")
    return words, matrix


def _numpy(path: Path) -> tuple[list[str], np.ndarray]:
    words = (path.parent / "words.txt").read_text(encoding="utf-8").split("\n")[:-1]
    matrix = np.load(path, allow_pickle=False)
    if len(words) != len(matrix):
        raise ValueError(f"{path} has {len(matrix)} rows, but words.txt beside it has {len(words)} words")
    return words, matrix


READERS = {".npy": _numpy, ".bin": _word2vec, ".txt": _text, ".gz": _text}
FORMS = ".npy beside words.txt, word2vec .bin, GloVe .txt or .txt.gz"


def _file(path: Path) -> Path:
    """The one file with vectors in a folder."""
    found = [file for file in sorted(path.iterdir()) if file.suffix in READERS and file.name != "words.txt"]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ValueError(f"{path} must hold one file of word vectors ({FORMS}); found: {names}")
    return found[0]


def load(path: Path) -> Vectors:
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} is missing: it should hold word vectors ({FORMS})")
    file = _file(path) if path.is_dir() else path
    if file.suffix not in READERS:
        raise ValueError(f"{file}: unknown form of word vectors; expected {FORMS}")
    try:
        words, matrix = READERS[file.suffix](file)
    except (ValueError, IndexError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{file} cannot be read as word vectors ({error})") from None
    about = file.parent / "about.json"  # the maker's own name for what it trained
    name = json.loads(about.read_text())["name"] if about.exists() else file.name.split(".npy")[0]
    parts = [file, file.parent / "words.txt"] if file.suffix == ".npy" else [file]
    digest = files.digest([files.sha256(part) for part in parts]) if len(parts) > 1 else files.sha256(file)
    place: dict[str, int] = {}
    for row, word in enumerate(words):
        place.setdefault(word, row)
    return Vectors(name, digest, place, matrix.astype(np.float32), matrix.mean(axis=0, dtype=np.float64))
