"""The filter's caption rules in plain pandas: what benchmarks/filter.py and tests/test_streaming.py compare ours with.

In: a parquet with key and caption, a column each; the section `filter` of params.yaml (blocklists and detector are null).
Out: a parquet of key and reason, empty for what stays.
Run: from benchmarks.filter.

Each rule is one vectorised expression on what the rules before left. Python's patterns know no scripts: letters are
[^\\W\\d_], and Latin ones are told by their blocks. For letters beyond these (such as ½) it may differ from ours.
"""

import re
from pathlib import Path

import pandas as pd

ENGLISH = "the|of|and|is|are|at|to|for|from|by|with|it|this|that|here|there|my|your|you|what|an|in|on|a"
FOREIGN = (
    "der|das|und|ein|eine|einem|einen|einer|mit|auf|im|ist|dem|den|zum|zur|von|vom|für|bei|nicht|"
    "le|la|les|un|une|des|du|dans|sur|avec|est|et|au|aux|pour|"
    "el|los|las|una|del|con|por|para|uno|está|muy|y|il|lo|gli|della|dello|nel|nella|sono|di|"
    "os|uma|um|em|não|na|het|een|op|van|voor"
)
LETTER = r"[^\W\d_]"
NOT_LATIN = r"[^\W\d_\u0000-\u024f\u1e00-\u1eff]"
AROUND = " \t\n\r\u00a0.,;:!?\u2026'\"()-"


def _words(text: pd.Series, alternatives: str) -> pd.Series:
    return text.str.count(rf"\b(?:{alternatives})\b", flags=re.IGNORECASE)


RULES = {
    "garbled": lambda text, p: text.str.contains("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffd]"),
    "boilerplate": lambda text, p: text.str.contains("|".join(f"(?:{each})" for each in p["boilerplate"]), case=False),
    "other_script": lambda text, p: text.str.count(NOT_LATIN) / text.str.count(LETTER).clip(1) > 0.3,
    "other_language": lambda text, p: _words(text, FOREIGN) > _words(text, ENGLISH),
    "few_words": lambda text, p: text.str.count(r"\S+") < p["min_words"],
    "many_words": lambda text, p: text.str.count(r"\S+") > p["max_words"],
    "few_letters": lambda text, p: text.str.count(LETTER) / text.str.count(r"\S").clip(1) < p["min_letters"],
}


def _often(text: pd.Series, most: int) -> pd.Series:
    return text.map(text.value_counts()) > most


def reasons(text: pd.Series, params: dict) -> pd.Series:
    """The reason of each caption; one caption a picture."""
    reason = pd.Series("", index=text.index)
    for name, rule in RULES.items():
        left = text[reason == ""]
        reason[left.index[rule(left, params)]] = name
    left = text[reason == ""]
    normal = left.str.lower().str.strip(AROUND).str.replace(r"\s+", " ", regex=True)
    reason[normal.index[_often(normal, params["max_pictures_a_caption"])]] = "words_on_many_pictures"
    reason[left.index[_often(left, params["max_pictures_a_caption"])]] = "on_many_pictures"
    return reason


def plain(rows: Path, output: Path, params: dict) -> None:
    table = pd.read_parquet(rows, columns=["key", "caption"])
    table["reason"] = reasons(table.pop("caption"), params)
    table.to_parquet(output, compression="zstd", index=False)
