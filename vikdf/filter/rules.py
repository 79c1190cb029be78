"""The filter's rules: each a name and an expression of the params that is true for what it drops.

In: a column `caption`, or a row's captions, url, width and height; the section `filter` of params.yaml (see `prepared`).
Out: polars expressions; `first` gives the number (its place in NAMES) of the first rule that holds, 0 for what stays.
Run: by the stage, vikdf/filter/__main__.py.

Counting matches costs ten times what finding one does. So a rule that counts has a cheap test first (`_where`) and looks
at the few captions that pass it. Beyond ASCII \\b is slow, (?:^|\\W) is not.
"""

import functools
import importlib
import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl

Rules = dict[str, Callable[[dict], pl.Expr]]

ENGLISH = "the|of|and|is|are|at|to|for|from|by|with|it|this|that|here|there|my|your|you|what|an|in|on|a"
FOREIGN = (  # words of German, French, Spanish, Italian, Portuguese and Dutch that are none in English
    "der|das|und|ein|eine|einem|einen|einer|mit|auf|im|ist|dem|den|zum|zur|von|vom|für|bei|nicht|"
    "le|la|les|un|une|des|du|dans|sur|avec|est|et|au|aux|pour|"
    "el|los|las|una|del|con|por|para|uno|está|muy|y|"
    "il|lo|gli|della|dello|nel|nella|sono|di|"
    "os|uma|um|em|não|na|"
    "het|een|op|van|voor"
)
AROUND = " \t\n\r\u00a0.,;:!?\u2026'\"()-"  # what makes no other text of a text when it stands around it
WORDS_AT_ONCE = 500  # blocked words in one pattern: a larger one passes the limit of the pattern's size

CAPTION = pl.col("caption")


def _where(test: pl.Expr) -> pl.Expr:
    """The captions that pass the test; the others are null, and no expression looks at these."""
    return pl.when(test).then(CAPTION)


def _alone(alternatives: str) -> str:
    """The pattern of words that stand alone: for `contains`, not for counting (it takes the space after the word)."""
    return rf"(?i)(?:^|\W)(?:{alternatives})(?:\W|$)"


def _other_script(params: dict) -> pl.Expr:
    beyond_ascii = CAPTION.str.len_bytes() != CAPTION.str.len_chars()
    text = _where(_where(beyond_ascii).str.contains(r"[\p{L}--\p{Latin}]"))
    return text.str.count_matches(r"[\p{L}--\p{Latin}]") / text.str.count_matches(r"\p{L}").clip(1) > 0.3


def _other_language(params: dict) -> pl.Expr:
    text = _where(CAPTION.str.contains(_alone(FOREIGN)))
    foreign, english = (text.str.count_matches(rf"(?i)\b(?:{words})\b") for words in (FOREIGN, ENGLISH))
    return foreign > english


def _few_words(params: dict) -> pl.Expr:
    return ~CAPTION.str.contains(rf"^\s*(?:\S+\s+){{{params['min_words'] - 1}}}\S")


def _many_words(params: dict) -> pl.Expr:
    most = params["max_words"]
    text = _where(CAPTION.str.len_bytes() > 2 * most)  # one word more needs that many letters and spaces
    return text.str.count_matches(r"\S+") > most


def _few_letters(params: dict) -> pl.Expr:
    text = _where(CAPTION.str.contains(r"[^\p{L}\s]"))
    shown = text.str.len_chars() - text.str.count_matches(r"\s")
    return (shown - text.str.count_matches(r"[^\p{L}\s]")) / shown.clip(1) < params["min_letters"]


def _boilerplate(params: dict) -> pl.Expr:
    patterns = [f"(?:{each})" for each in params["boilerplate"]]
    return CAPTION.str.contains("(?i)" + "|".join(patterns)) if patterns else pl.lit(False)


def _blocked_word(params: dict) -> pl.Expr:
    words = params["blocked_words"]
    text = _where(CAPTION.str.to_lowercase().str.contains_any(words))
    parts = (words[start : start + WORDS_AT_ONCE] for start in range(0, len(words), WORDS_AT_ONCE))
    found = [text.str.contains(_alone("|".join(map(re.escape, part)))) for part in parts]
    return pl.any_horizontal(found) if found else pl.lit(False)


def _blocked_host(params: dict) -> pl.Expr:
    """a.b.example.org is also a host of example.org, however many names stand before it, and so is example.org. with a dot."""
    by_length = {}  # labels -> the list's hosts with so many, which a host's last so many are compared with
    for name in filter(None, (host.strip(".") for host in params["blocked_hosts"])):
        by_length.setdefault(name.count(".") + 1, []).append(name)
    host = pl.col("url").str.to_lowercase().str.extract(r"^\s*[a-z]+://(?:[^/?#]*@)?([^/:?#]+)")
    host = host.str.strip_chars_end(".")
    found = [
        host.str.extract(rf"((?:[^.]+\.){{{labels - 1}}}[^.]+)$").is_in(pl.Series(names).implode())
        for labels, names in by_length.items()
    ]
    return pl.any_horizontal(found) if found else pl.lit(False)


# Rules of a row. A status other than ok comes before all of them and is its own reason.
PICTURE_RULES: Rules = {
    "no_caption": lambda p: pl.col("captions").list.len().fill_null(0) == 0,
    "blocked_host": _blocked_host,
    "small": lambda p: pl.min_horizontal("width", "height") < p["min_side"],
    "narrow": lambda p: pl.max_horizontal("width", "height") > p["max_aspect"] * pl.min_horizontal("width", "height"),
}

# Rules of one caption.
CAPTION_RULES: Rules = {
    "garbled": lambda p: CAPTION.str.contains(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x{FFFD}]"),
    "blocked_word": _blocked_word,
    "boilerplate": _boilerplate,
    "other_script": _other_script,
    "other_language": _other_language,
    "few_words": _few_words,
    "many_words": _many_words,
    "few_letters": _few_letters,
}

# A rule of one caption that costs so much that it is asked only where no other holds.
COSTLY_RULES: Rules = {
    "detected_language": lambda p: CAPTION.map_batches(
        lambda texts: _elsewhere(texts, **p["detector"]), return_dtype=pl.Boolean
    )
}

# Rules that look at several captions of what is left: of one picture, then of all.
REPEATS = {
    "same_caption_again": "the same text once more for one picture",
    "same_words_again": "once more but for case, spaces and what stands around it",
    "on_many_pictures": "the same text on more than max_pictures_a_caption pictures",
    "words_on_many_pictures": "so but for case, spaces and what stands around it",
}

# Rules that look at the pictures themselves, of rows that have a caption left (vikdf/filter/near.py).
LOOKS = {
    "unreadable": "the picture's bytes cannot be decoded, or there are none",
    "blocked_picture": "its sha256 is on the blocklist",
    "same_picture_again": "the same bytes as an earlier one's",
    "near_picture_again": "nearly the look of an earlier one",
}

NAMES = ["", *PICTURE_RULES, *CAPTION_RULES, *COSTLY_RULES, *REPEATS, *LOOKS]


def first(rules: Rules, params: dict) -> pl.Expr:
    """The number of the first rule that holds, 0 where none does."""
    chain = pl.lit(0, pl.UInt16)
    for name, rule in reversed(rules.items()):
        chain = pl.when(rule(params)).then(pl.lit(NAMES.index(name), pl.UInt16)).otherwise(chain)
    return chain


def normal() -> pl.Expr:
    """The caption without what makes no other text of it: case, runs of spaces, marks around it."""
    text = CAPTION.str.to_lowercase().str.strip_chars(AROUND)
    odd = pl.when(text.str.contains(r"\s\s|[^\S ]")).then(text)
    return pl.coalesce(odd.str.replace_all(r"\s+", " "), text)


def prepared(params: dict) -> dict:
    """The params with their blocklists read, after a check of what no schema can check."""
    for pattern in params["boilerplate"]:
        try:
            pl.Series([""]).str.contains(pattern)
        except pl.exceptions.ComputeError as error:
            raise ValueError(
                f"`filter.boilerplate` of params.yaml has a pattern that is none, {pattern!r}: {error}"
            ) from None
    lists = {f"blocked_{name}": _lines(name, path) for name, path in params["blocklists"].items()}
    if wrong := [line for line in lists["blocked_pictures"] if not re.fullmatch("[0-9a-f]{64}", line)]:
        path = params["blocklists"]["pictures"]
        raise ValueError(
            f"{path} holds {wrong[0]!r}: expected the sha256 of a picture, 64 digits and letters a to f, a line"
        )
    if params["detector"]:
        _detect(params["detector"]["name"])
    return params | lists


def _lines(name: str, path: str | None) -> list[str]:
    """One entry a line, in lower case; lines that are empty or begin with # say nothing."""
    if path is None:
        return []
    if not Path(path).is_file():
        raise ValueError(
            f"{path} is missing: `filter.blocklists.{name}` of params.yaml names it; write null there for none"
        )
    try:
        lines = [line.strip().lower() for line in Path(path).read_text("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): save it as such") from None
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def _py3langid() -> Callable[[str], tuple[str, float]]:
    langid = importlib.import_module("py3langid.langid")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True).classify


DETECTORS = {"py3langid": _py3langid}  # name of the module -> text -> (language, probability)


@functools.cache
def _detect(name: str) -> Callable[[str], tuple[str, float]]:
    if name not in DETECTORS:
        raise ValueError(f"`filter.detector.name` is {name!r}: expected one of {', '.join(DETECTORS)}")
    try:
        return DETECTORS[name]()
    except ModuleNotFoundError:
        raise ValueError(f"`filter.detector` needs {name}: run `pip install {name}`, or write null there") from None


def off(params: dict) -> frozenset[str]:
    """The rules that are not asked: no list or no detector is set for them."""
    lists = {"blocked_word": "words", "blocked_host": "hosts", "blocked_picture": "pictures"}
    named = {rule for rule, name in lists.items() if not params["blocklists"].get(name)}
    return frozenset(named | (set() if params["detector"] else {*COSTLY_RULES}))


def detector(params: dict) -> dict[str, str]:
    """What the detector is, for the key of the work: another version of it may say otherwise."""
    if not params["detector"]:
        return {}
    name = params["detector"]["name"]
    return {"the detector": f"{name} {importlib.metadata.version(name)}"}


def _elsewhere(texts: pl.Series, name: str, languages: list[str], sure: float) -> pl.Series:
    """True where the detector is as sure as that of another language."""
    detect = _detect(name)
    found = [detect(text) for text in texts]
    return pl.Series([language not in languages and share >= sure for language, share in found], dtype=pl.Boolean)
