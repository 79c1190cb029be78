"""What stands below table 1, from table1.md: the page repeats its sentences and writes none of its own.

In: table1.md. Out: the points of its last sections, with `names` as code.
"""

import re
from pathlib import Path

from markupsafe import Markup, escape

HEADINGS = ("Notes", "Signatures")


def sections(path: Path) -> list[dict]:
    """[{title, points}] of the sections that are lists for the reader."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: run `snakemake --cores all {path}` to make it")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and run `snakemake --cores all {path}`") from None
    parts = re.split(r"^## +(.+)$", text, flags=re.MULTILINE)
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))
    return [
        {"title": name, "points": [_point(line[2:]) for line in texts[name].splitlines() if line.startswith("- ")]}
        for name in HEADINGS
        if name in texts
    ]


def _point(text: str) -> Markup:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\\([*_|\\])", r"\1", text))  # noqa: S704 - escaped above
