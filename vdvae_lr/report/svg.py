"""From matplotlib's SVG to one that lives in a page: its own identifiers, the page's fonts and colours, and less of it.

matplotlib writes a file of its own: a style for every element of the page it gets into, identifiers that the next chart
has as well, metadata, fonts by name. All of that is taken out here.
"""

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from vdvae_lr.report.html import Html

_LINK = "{http://www.w3.org/1999/xlink}href"
_UNWANTED = ("metadata", "style")
_DIGITS = re.compile(r"-?\d+\.\d{3,}")  # a unit is about a pixel: two decimals do
_FONT_FAMILY = re.compile(r"font-family: [^;]*;? ?")
_FONT = re.compile(r"font: (?:[a-z0-9]+ )*?([\d.]+px) [^;]*")  # matplotlib 3.9 says all of it at once
_NO_ROTATION = re.compile(r"rotate\(-?0 [^)]*\)")


def inline_svg(source: str, name: str, label: str, colours: Mapping[str, str]) -> Html:
    """An `<svg>` element for the inside of a page.

    Args:
        source: what matplotlib wrote, with text as text.
        name: of the chart on its page: letters and digits; its identifiers begin with it.
        label: what it shows, for those who do not see it.
        colours: what to put for each of the colours it was drawn in, `#rrggbb`.
    """
    root = ElementTree.fromstring(source)
    _drop(root)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if _LINK in element.attrib:
            element.set("href", element.attrib.pop(_LINK))
    identifiers = _used_identifiers(root)
    for element in root.iter():
        _clean(element, name, identifiers, colours)
    root.attrib = {
        "class": "chart",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": label,
    }
    return Html(ElementTree.tostring(root, encoding="unicode", method="html"))


def _drop(parent: ElementTree.Element) -> None:
    for child in list(parent):
        if child.tag.rpartition("}")[2] in _UNWANTED:
            parent.remove(child)
        else:
            _drop(child)


def _used_identifiers(root: ElementTree.Element) -> set[str]:
    values = " ".join(value for element in root.iter() for value in element.attrib.values())
    return {found.removeprefix("#") for found in re.findall(r"#[\w.-]+", values)}


def _clean(element: ElementTree.Element, name: str, identifiers: set[str], colours: Mapping[str, str]) -> None:
    own = element.attrib.pop("id", "")
    if own in identifiers:
        element.set("id", f"{name}-{own}")
    for key, value in element.attrib.items():
        if key == "href":
            element.set(key, value.replace("#", f"#{name}-"))
        elif key == "clip-path":
            element.set(key, value.replace("url(#", f"url(#{name}-"))
        elif key == "style":
            element.set(key, _style(value, colours))
        elif key != "id":
            element.set(key, _shorter(value))
    if _NO_ROTATION.fullmatch(element.get("transform", "")):
        del element.attrib["transform"]
    element.tail = None
    if element.tag != "text":
        element.text = None


def _style(style: str, colours: Mapping[str, str]) -> str:
    for drawn, wanted in colours.items():
        style = style.replace(drawn, wanted)
    return _FONT.sub(r"font-size: \1", _FONT_FAMILY.sub("", style))


def _shorter(value: str) -> str:
    rounded = _DIGITS.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), value)
    return " ".join(rounded.split())
