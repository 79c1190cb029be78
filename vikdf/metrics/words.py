"""Text to words, and words to numbers: what BLEU, ROUGE-L and the embedding metrics count.

    vocabulary = {}
    encode(["i am fine."], TOKENIZERS["nltk"], vocabulary)  ->  Ragged of ids; `vocabulary` grows: word -> id

Two tokenizers by name: `nltk` (lower case, NLTKWordTokenizer: the paper's script without its sentence splitter, which
needs a download) and `space` (split at white space, case kept: what nlg-eval does with its input).
"""

import importlib.metadata
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

# A piece between spaces can be cut on its own, unless the text has quotes (their sense depends on what stands before)
# or ends with closing brackets that stand alone (a full stop before them counts as the last).
_CONTEXT = re.compile(r"""["`]|(?<!\w)'|'(?!\w)|(?:^| )[\])}>]+ *$""")
_CORE = re.compile(r"([a-z0-9]*)(.*)")  # a word, and what is glued to its end
_LETTER = re.compile(r"[a-z0-9']")
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


@lru_cache(maxsize=100_000)  # more would not be met again soon
def _piece(piece: str, last: bool) -> tuple[str, ...]:
    """Words of one piece between spaces, as the tokenizer cuts them out of a text that goes on, or that ends here."""
    rest = "" if last else " x"
    core, tail = _CORE.match(piece).groups()
    if not core or core in _CONTRACTED or not tail.isascii() or _LETTER.search(tail):
        words = _nltk().tokenize(f"x {piece}{rest}")[1:]
    else:
        first, *words = _after(tail, rest)
        words = [core + first[1:], *words]
    return tuple(words if last else words[:-1])


def forget() -> None:
    """Empties what `nltk` remembers: for fair measuring."""
    _after.cache_clear()
    _piece.cache_clear()


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
    words = [word for piece in pieces[:-1] for word in _piece(piece, False)]
    words.extend(_piece(pieces[-1], True))
    return words


def space(text: str) -> list[str]:
    return text.split()


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"nltk": nltk, "space": space}


def tokenizer_signature(name: str) -> str:
    """Tokenizer and case as they stand in a metric's signature."""
    return f"tok:nltk-{importlib.metadata.version('nltk')}|case:lower" if name == "nltk" else "tok:space|case:kept"


def encode(texts: list[str], tokenizer: Callable[[str], list[str]], vocabulary: dict[str, int]) -> Ragged:
    """Ids of the texts' words; new words are added to the vocabulary in the order in which they come."""
    flat, starts = [], [0]
    for text in texts:
        flat.extend([vocabulary.setdefault(word, len(vocabulary)) for word in tokenizer(text)])
        starts.append(len(flat))
    return Ragged(np.array(flat, dtype=np.int64), np.array(starts, dtype=np.int64))
