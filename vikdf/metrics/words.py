"""Text to words, and words to numbers: what BLEU, ROUGE-L and the embedding metrics count.

    vocabulary = Vocabulary()
    encode(["i am fine."], TOKENIZERS["nltk"], vocabulary)  ->  Ragged of ids; `vocabulary` grows: word -> id

Two tokenizers by name: `nltk` (lower case, NLTKWordTokenizer: the paper's script without its sentence splitter, which
needs a download) and `space` (split at white space, case kept: what nlg-eval does with its input).
"""

import importlib.metadata
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain

import numpy as np
from tqdm import tqdm

BLOCK = 2048  # texts at a time where the memory shall not grow with their number
DELAY = 3  # seconds that pass before a bar is shown

# A piece between spaces can be cut on its own, unless the text has quotes (their sense depends on what stands before)
# or ends with closing brackets that stand alone (a full stop before them counts as the last).
_CONTEXT = re.compile(r"""["`]|(?<!\w)'|'(?!\w)|(?:^| )[\])}>]+ *$""")
# A word, and what is glued to its end: first one of the endings that are cut off whatever word they stand at.
_CORE = re.compile(r"([a-z0-9]+?)((?:n't|'(?:s|m|d|ll|re|ve))?[^a-z0-9']*)", re.ASCII)
_CONTRACTED = {"cannot", "gimme", "gonna", "gotta", "lemme", "wanna"}  # plain words that the tokenizer cuts in two


@dataclass(frozen=True)
class Ragged:
    """Rows of different length in one flat array: row i is flat[starts[i] : starts[i + 1]]."""

    flat: np.ndarray  # [T]
    starts: np.ndarray  # [N + 1]

    @property
    def lengths(self) -> np.ndarray:  # [N]
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def part(self, first: int, last: int) -> "Ragged":
        """Rows first to last - 1."""
        starts = self.starts[first : last + 1]
        return Ragged(self.flat[starts[0] : starts[-1]], starts - starts[0])

    def row(self, place: int) -> list[int]:
        return self.flat[self.starts[place] : self.starts[place + 1]].tolist()

    def rows(self) -> list[list[int]]:
        flat, starts = self.flat.tolist(), self.starts.tolist()
        return [flat[first:last] for first, last in zip(starts[:-1], starts[1:], strict=True)]


@cache
def _nltk():
    from nltk.tokenize import NLTKWordTokenizer  # imports regular expressions for a second: only where it is used

    return NLTKWordTokenizer()


@lru_cache(maxsize=10_000)
def _after(tail: str, rest: str) -> list[str]:
    """Words of a letter with this tail, and `rest` (" x", or nothing at the end of the text) after it."""
    return _nltk().tokenize(f"x x{tail}{rest}")[1:]


def _cut(piece: str, rest: str) -> list[str]:
    """Words of one piece between spaces, and of what comes after it."""
    found = _CORE.fullmatch(piece)
    if not found or found[1] in _CONTRACTED or not piece.isascii():
        return _nltk().tokenize(f"x {piece}{rest}")[1:]
    first, *words = _after(found[2], rest)
    return [found[1] + first[1:], *words]


@lru_cache(maxsize=50_000)  # more would not be met again soon
def _inside(piece: str) -> tuple[str, ...]:
    """Words of a piece, as the tokenizer cuts them out of a text that goes on."""
    return tuple(_cut(piece, " x")[:-1])


@lru_cache(maxsize=20_000)
def _last(piece: str) -> tuple[str, ...]:
    """Words of a piece at the end of a text."""
    return tuple(_cut(piece, ""))


def forget() -> None:
    """Empties what `nltk` remembers: for fair measuring."""
    for remembered in (_after, _inside, _last):
        remembered.cache_clear()


def nltk_plain(text: str) -> list[str]:
    """NLTKWordTokenizer on the lower-cased text: what `nltk` must equal."""
    return _nltk().tokenize(text.lower().strip())


def nltk(text: str) -> list[str]:
    """The same words several times faster: each piece between spaces is cut once and remembered."""
    text = text.lower().strip()
    if not (text.isascii() and text.isprintable()) or _CONTEXT.search(text):
        return _nltk().tokenize(text)
    pieces = text.split()
    if not pieces:
        return []
    last = pieces.pop()
    words = list(chain.from_iterable(map(_inside, pieces)))
    words.extend(_last(last))
    return words


def space(text: str) -> list[str]:
    return text.split()


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"nltk": nltk, "space": space}


def tokenizer_signature(name: str) -> str:
    """Tokenizer and case as they stand in a metric's signature."""
    return f"tok:nltk-{importlib.metadata.version('nltk')}|case:lower" if name == "nltk" else "tok:space|case:kept"


class Vocabulary(dict[str, int]):
    """word -> id; a word that is asked for the first time gets the next id."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


def blocks(total: int, size: int, doing: str) -> Iterator[range]:
    """Ranges of `size` up to `total`; on the standard error a bar, which comes only where it takes long."""
    with tqdm(total=total, desc=doing, unit=" answer", delay=DELAY, mininterval=1, leave=False) as bar:
        for first in range(0, total, size):
            block = range(first, min(first + size, total))
            yield block
            bar.update(len(block))


def encode(texts: Sequence[str], tokenizer: Callable[[str], list[str]], vocabulary: Vocabulary) -> Ragged:
    """Ids of the texts' words; new words are added to the vocabulary in the order in which they come."""
    flat, starts = array("i"), np.zeros(len(texts) + 1, dtype=np.int64)
    for row, text in enumerate(texts, 1):
        flat.fromlist(list(map(vocabulary.__getitem__, tokenizer(text))))
        starts[row] = len(flat)
    return Ragged(np.frombuffer(flat, dtype=np.int32) if flat else np.zeros(0, dtype=np.int32), starts)


def joined(sides: list[Ragged]) -> Ragged:
    """The rows of all sides, one side after the other."""
    ends = np.cumsum([0] + [len(side.flat) for side in sides])
    starts = [side.starts[:-1] + end for side, end in zip(sides, ends[:-1], strict=True)]
    return Ragged(np.concatenate([side.flat for side in sides]), np.concatenate([*starts, ends[-1:]]))


def grams(words: Ragged, orders: int) -> Iterator[Ragged]:
    """For each order from 1: the n-grams of each row, as ids from 0 that the rows share."""
    left = np.repeat(words.starts[1:], words.lengths) - np.arange(len(words.flat))  # words from here to the row's end
    largest = int(words.flat.max(initial=0)) + 1
    code = words.flat.astype(np.int64)
    for order in range(1, orders + 1):
        inside = left >= order
        if order > 1:  # the id of the n-gram one shorter, and the word after it
            at = np.flatnonzero(inside)
            pairs = code[at] * largest + words.flat[at + order - 1]
            code[at] = np.unique(pairs, return_inverse=True)[1]
        starts = np.concatenate([[0], np.cumsum(np.maximum(words.lengths - order + 1, 0))])
        yield Ragged(code[inside], starts)
