"""What all figures share: colours that the colour-blind tell apart, and SVGs that fit a phone, a dark page and print.

In: a title and what a figure draws on its panels. Out: an SVG for a page to take in as it is: no background, ink in
`currentColor`, text as text, no id that another figure has, nothing that is fetched, always the same bytes.
Run: by the modules of this folder:

    with style.figure(path, "probe", title="...", about="...", height=3) as made:
        panels = made.subplots(1, 2)
"""

import contextlib
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from vikdf import drawn, files
from vikdf.flags import printable

WIDTH = 5.2  # inches: 374 units of 9-point text are read without a loupe on a phone of 360 pixels
LARGEST = 720  # pixels: wider, the text would be larger than the page's
INK = "#0a0b0c"  # what matplotlib draws text and axes in; `currentColor` takes its place
ALONE = "svg:root{color:#737373}"  # a file that is opened by itself: grey reads on white and on black
# Contrast of each with white and with #16181d is at least 3; the smallest distance of two in CIELAB is 17 for people who
# see no red or no green (tests/test_figures.py counts both). The first three are Okabe and Ito's.
COLORS = ["#0072b2", "#d55e00", "#009e73", "#7e39e5", "#8591b2", "#597f3f", "#7f5f74", "#7272e5"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<"]  # never the colour alone
LINES = ["-", "--", ":", "-."]
GOOD, BAD, PLAIN = COLORS[0], COLORS[1], "#7a7a7a"
INKED = ["text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"]
SETTINGS = dict.fromkeys(INKED, INK) | {
    "svg.hashsalt": "vikdf", "svg.fonttype": "none", "text.parse_math": False, "font.family": "sans-serif", "font.size": 9,
    "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8,
    "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False, "axes.unicode_minus": True,
    "lines.markersize": 4.5, "lines.linewidth": 1.4,
}  # fmt: skip
SVG = "http://www.w3.org/2000/svg"


def looks(names: list[str]) -> dict[str, dict]:
    """Colour, marker and line of each name, by its place: the same in every figure; from the ninth on, a colour comes again
    with another marker and another line."""
    count, made = len(COLORS), {}
    for at, name in enumerate(names):
        turn = at // count
        marker = MARKERS[(at + 3 * turn) % count]
        made[name] = {"color": COLORS[at % count], "marker": marker, "linestyle": LINES[turn % len(LINES)]}
    return made


@contextlib.contextmanager
def figure(path: Path, name: str, *, title: str, about: str, height: float) -> Iterator:
    """Gives a matplotlib figure of our style; at the end it is the SVG `path`. `about` is told to who cannot see it."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        made = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="none")
        FigureCanvasSVG(made)
        yield made
        text = io.StringIO()
        drawn.save(made, text)
    with files.whole(path) as aside:
        aside.write_text(_dressed(text.getvalue(), name, title, about), encoding="utf-8")


def nothing(path: Path, name: str, title: str, why: str) -> None:
    """A figure without rows says so: the page keeps its place."""
    with figure(path, name, title=title, about=why, height=0.6) as made:
        made.text(0.5, 0.5, why, ha="center", va="center")


def bare(panel, title: str) -> None:
    """A panel's title at the left, faint lines to read values by."""
    panel.set_title(title, loc="left")
    panel.set_facecolor("none")
    panel.grid(color=INK, alpha=0.15, linewidth=0.6)
    panel.set_axisbelow(True)


def panels(made, count: int, columns: int = 2, **shared) -> list:
    """`count` panels in rows; what is over in the last row is empty."""
    grid = made.subplots(-(-count // columns), columns, squeeze=False, **shared).flat
    every = list(grid)
    for panel in every[count:]:
        panel.set_axis_off()
    return every


def _dressed(text: str, name: str, title: str, about: str) -> str:
    """matplotlib's SVG made fit for a page."""
    root = ET.fromstring(text[text.index("<svg") :])
    for part in [*root.findall(f"{{{SVG}}}metadata"), root.find(f"{{{SVG}}}defs[{{{SVG}}}style]")]:
        root.remove(part)  # where it came from, and a style that would touch the whole page
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    for part in root.iter():
        part.tag = part.tag.removeprefix(f"{{{SVG}}}")
        part.attrib = dict(_attribute(key, value, name) for key, value in part.attrib.items())
    root.attrib |= {
        "xmlns": SVG, "role": "img", "width": "100%", "style": f"max-width:{min(LARGEST, 1.8 * width):.0f}px;height:auto",
        "stroke-linejoin": "round", "stroke-linecap": "butt",
    }  # fmt: skip
    for place, (tag, said) in enumerate([("title", title), ("desc", about), ("style", ALONE)]):
        part = ET.Element(tag)
        part.text, part.tail = printable(said), "\n"  # a model may say what no XML holds
        root.insert(place, part)
    return _numbered(ET.tostring(root, encoding="unicode"), name) + "\n"


def _numbered(text: str, name: str) -> str:
    """Clip paths by their order: matplotlib names them after coordinates whose last digits differ from run to run."""
    ids = re.findall(rf'id="{name}-(p[0-9a-f]{{10}})"', text)
    numbers = {clip: f"clip{place}" for place, clip in enumerate(dict.fromkeys(ids), 1)}
    return re.sub(rf"(?<={name}-)p[0-9a-f]{{10}}\b", lambda found: numbers.get(found[0], found[0]), text)


def _attribute(key: str, value: str, name: str) -> tuple[str, str]:
    key = key.rpartition("}")[2]  # xlink:href is href
    if key == "id":
        return key, f"{name}-{value}"
    if key in ("d", "x", "y", "transform"):
        return key, re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", value)
    value = re.sub(r"(^|url\()#(?![0-9a-f]{6}$)", rf"\1#{name}-", value)
    value = re.sub(r"font-family: [^;]+", "font-family: sans-serif", value)  # not a list of the fonts of one machine
    return key, value.replace(INK, "currentColor")
