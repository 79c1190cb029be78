"""Word vectors by path, for Average, Extrema and Greedy.

In: a folder with vectors.npy + words.txt (what the stage `backbones` makes), a .npy beside its words.txt, word2vec binary
(.bin), or text (.txt, .vec: GloVe's, or word2vec's, which has a first line `count width`); .bin, .txt and .vec may be gzipped.
A folder may also hold exactly one such file. Out: Vectors; name and sha256 go into every signature.
    table = load(Path("glove.6B.300d.txt"))
Written here because gensim, which reads most of these, keeps the whole of its own objects and needs the form to be told.
"""

import contextlib
import gzip
import tokenize
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from vikdf import files
from vikdf.corpora.bounds import bound

FORMS = ".npy beside words.txt, word2vec .bin, GloVe or word2vec .txt or .vec; the last three also with .gz"
LONGEST = 10_000  # bytes of a word, and numbers of a vector: more is no table of words
LINE = 1 << 20  # bytes
UNREADABLE = (ValueError, OverflowError, EOFError, OSError, zlib.error, tokenize.TokenError)  # the last: of .npy's head


@dataclass(frozen=True)
class Vectors:
    name: str
    sha256: str
    place: dict[str, int]  # word -> row
    matrix: np.ndarray  # [V, d] float32
    mean: np.ndarray  # [d] float64: the vector of every word that is not there, as in the reference tool

    @property
    def signature(self) -> str:
        return f"vectors:{self.name}@{self.sha256}|unknown:mean"

    def places(self, words: list[str]) -> np.ndarray:
        """[len(words)] rows of the words; -1 for one that is not there."""
        return np.array([self.place.get(word, -1) for word in words], dtype=np.int64)

    def look(self, places: np.ndarray) -> np.ndarray:
        """[..., d] float64: the vectors of some places."""
        found = self.matrix[places].astype(np.float64)
        found[places < 0] = self.mean
        return found

    def rows(self, words: list[str]) -> np.ndarray:
        """[len(words), d] float64."""
        return self.look(self.places(words))


@contextlib.contextmanager
def _open(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """The open file, and what refuses to read on in one that unpacks without end."""
    packed, check = path.suffix == ".gz", bound(path)
    with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
        yield stream, lambda: check(stream.tell() if packed else 0)


def _text(path: Path) -> tuple[list[str], np.ndarray]:
    words, flat, head, width = [], array("f"), None, 0  # one flat array: no second copy of a large table
    for number, line in _lines(path):
        fields = line.split(" ")
        if number == 1 and len(fields) == 2 and all(field.isascii() and field.isdigit() for field in fields):
            head = [int(field) for field in fields]
            width = head[1]
            continue
        width = width or len(fields) - 1
        if len(fields) <= width or not width:
            raise ValueError(f"line {number}: {len(fields) - 1} numbers, but {width or 'some'} expected")
        words.append(" ".join(fields[:-width]))  # GloVe of 840B has words with spaces
        flat.frombytes(_row(fields[-width:], number).tobytes())
    if head and head[0] != len(words):
        raise ValueError(f"its first line tells {head[0]} words, but {len(words)} follow: it was cut off; copy it anew")
    if not words:
        raise ValueError("no vectors in it: expected lines `word number number ...`")
    return words, np.frombuffer(flat, dtype=np.float32).reshape(-1, width)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each line that is not blank, with its number."""
    with _open(path) as (stream, check):
        lines = iter(lambda: stream.readline(LINE), b"")
        for number, line in enumerate(
            tqdm(lines, desc=path.name, unit=" word", delay=3, mininterval=1, leave=False), 1
        ):
            check()
            if len(line) == LINE:
                raise ValueError(f"line {number} is longer than {LINE} bytes")
            try:
                text = line.decode("utf-8").rstrip(" \r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"line {number} is no UTF-8: {error.reason}") from None
            if text:
                yield number, text


def _row(numbers: list[str], line: int) -> np.ndarray:
    try:
        return np.array(numbers, dtype=np.float32)
    except ValueError as error:
        raise ValueError(
            f"line {line}: {_short(error)}; words of this table must have {len(numbers)} numbers each"
        ) from None


def _word2vec(path: Path) -> tuple[list[str], np.ndarray]:
    with _open(path) as (stream, check):
        head = stream.readline(100).split()
        if len(head) != 2 or not all(field.isdigit() for field in head):
            raise ValueError("it does not begin with `count width`, as word2vec's binary form does")
        count, width = map(int, head)
        if width > LONGEST:
            raise ValueError(f"it tells words of {width} numbers, expected at most {LONGEST}")
        if path.suffix == ".bin" and count * (4 * width + 1) > path.stat().st_size:
            raise ValueError(f"it tells {count} words of {width} numbers, more than it has bytes for; copy it anew")
        words, flat = [], bytearray()
        for row in tqdm(range(count), desc=path.name, unit=" word", delay=3, mininterval=1, leave=False):
            check()
            words.append(_word(stream, row))
            numbers = stream.read(4 * width)
            if len(numbers) < 4 * width:
                raise ValueError(f"it ends within word {row + 1} of {count}; copy it anew")
            flat += numbers
    return words, np.frombuffer(flat, dtype="<f4").reshape(len(words), width)


def _word(stream: IO[bytes], row: int) -> str:
    """The bytes up to the next space; a line end before them closed the row before."""
    found = bytearray()
    while (letter := stream.read(1)) != b" ":
        if not letter or len(found) > LONGEST:
            raise ValueError(f"no word where word {row + 1} should begin; copy it anew")
        found += letter
    return found.decode("utf-8", errors="replace").lstrip("\n")  # Google's table has words cut within a letter


def _numpy(path: Path) -> tuple[list[str], np.ndarray]:
    text = (path.parent / "words.txt").read_text(encoding="utf-8")
    words = text.removesuffix("\n").split("\n") if text else []
    matrix = np.load(path, allow_pickle=False, mmap_mode="r")  # so that its head cannot ask for more than the file has
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise ValueError(
            f"an array of shape {matrix.shape} and type {matrix.dtype}: expected [words, width] of numbers"
        )
    if len(words) != len(matrix):
        raise ValueError(f"{len(matrix)} rows, but words.txt beside it has {len(words)} words")
    return words, np.array(matrix)


READERS = {".npy": _numpy, ".bin": _word2vec, ".txt": _text, ".vec": _text}


def _form(path: Path) -> str:
    """The suffix that says how it is read."""
    form = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    return form if form in READERS and (form != ".npy" or path.suffix == form) else ""


def _file(path: Path) -> Path:
    """The one file with vectors in a folder."""
    found = [file for file in sorted(path.iterdir()) if _form(file) and file.name != "words.txt"]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ValueError(f"{path} must hold one file of word vectors ({FORMS}); found: {names}")
    return found[0]


def load(path: Path) -> Vectors:
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} is missing: it should hold word vectors ({FORMS})")
    file = _file(path) if path.is_dir() else path
    if not _form(file):
        raise ValueError(f"{file}: unknown form of word vectors; expected {FORMS}")
    try:
        words, matrix = READERS[_form(file)](file)
        _check(words, matrix)
    except UNREADABLE as error:
        raise ValueError(f"{file} cannot be read as word vectors: {error}") from None
    place: dict[str, int] = {}
    for row, word in enumerate(words):  # of a word that stands there twice the first counts
        place.setdefault(word, row)
    matrix = matrix.astype(np.float32, copy=False)
    return Vectors(_name(file), _digest(file), place, matrix, matrix.mean(axis=0, dtype=np.float64))


def _check(words: list[str], matrix: np.ndarray) -> None:
    if not matrix.size:
        raise ValueError("no vectors in it")
    wrong = [row for row in range(len(matrix)) if not np.isfinite(matrix[row]).all()]
    if wrong:
        raise ValueError(f"the vector of {_short(words[wrong[0]])!r} has numbers that are not finite; copy it anew")


def _name(file: Path) -> str:
    about = file.parent / "about.json"  # the maker's own name for what it trained
    told = files.read_json(about) if file.suffix == ".npy" and about.exists() else {}
    return str(told.get("name", "") if isinstance(told, dict) else "") or file.name.removesuffix(".npy")


def _digest(file: Path) -> str:
    parts = [file, file.parent / "words.txt"] if file.suffix == ".npy" else [file]
    return files.digest([files.sha256(part) for part in parts]) if len(parts) > 1 else files.sha256(file)


def _short(said: object) -> str:
    """The beginning of what may hold a stranger's line, which is of any length."""
    return f"{text[:200]} ..." if len(text := str(said)) > 200 else text
