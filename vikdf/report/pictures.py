"""A drawing (SVG) as part of a page: it takes the page's ink, its names do not meet those of others, it runs and fetches nothing.

In: an SVG file of ours. Out: safe markup, with the drawing's own width for the page's layout.
"""

import re
from pathlib import Path
from xml.etree import ElementTree

from markupsafe import Markup

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
KNOWN = set(
    "svg g defs path text tspan title desc rect circle ellipse line polyline polygon use clipPath marker mask pattern "
    "symbol linearGradient radialGradient stop image".split()
)
LEFT_OUT = {"metadata", "style"}  # the page has its own; a style inside a drawing would hold for all of the page
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


def inline(path: Path) -> Markup:
    """The drawing for the page; one that holds more than a drawing is refused."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        cure = f"delete it and run `snakemake --cores all {path}` to make it again"
        raise ValueError(f"{path} is no drawing that can be read ({error}): {cure}") from None
    _clean(root, path)
    width = _width(root)
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    root.set("role", "img")
    root.set("style", f"--natural: {width:g}px; stroke-linejoin: round")
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - cleaned above


def _clean(node: ElementTree.Element, path: Path) -> None:
    for child in list(node):
        name = _local(child.tag)
        if name in LEFT_OUT:
            node.remove(child)
        elif name not in KNOWN:
            raise ValueError(f"{path} holds <{name}>: expected a drawing of {', '.join(sorted(KNOWN))} alone")
        else:
            _clean(child, path)
    for attribute, value in list(node.attrib.items()):
        node.set(attribute, _attribute(_local(attribute), value, path))


def _attribute(name: str, value: str, path: Path) -> str:
    """Names get the drawing's own in front; whatever would run, or lie outside, is refused."""
    if name == "id":
        return f"{path.stem}-{value}"
    outside = [link for link in re.findall(r"url\(\s*['\"]?([^)]*)", value) if not link.startswith("#")]
    if name == "href" and not re.match(r"#|data:image/(png|jpeg);base64,", value):
        outside.append(value)
    if outside or name.lower().startswith("on"):
        raise ValueError(
            f"{path} holds {name}={value[:60]!r}: a drawing of the report runs nothing and asks for nothing"
        )
    return re.sub(r"(url\(['\"]?#|^#)" if name == "href" else r"(url\(['\"]?#)", rf"\g<1>{path.stem}-", value)


def _width(root: ElementTree.Element) -> float:
    box = root.get("viewBox", "").replace(",", " ").split()
    return float(box[2]) if len(box) == 4 else 600.0


def _local(name: object) -> str:
    return str(name).rpartition("}")[2]
