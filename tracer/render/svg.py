"""Graphviz's SVG in, one out that a page can hold, a browser can theme and a pointer can ask."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from tracer.render import theme

_SVG = "http://www.w3.org/2000/svg"
_TITLE_OF_LINK = "{http://www.w3.org/1999/xlink}title"
_HREF = "{http://www.w3.org/1999/xlink}href"
_POINTS_TO_PIXELS = 4 / 3


def finish_svg(data: bytes) -> bytes:
    """Turn tooltips into `<title>`, name boxes in `data-box`, drop ids, and add the style sheet.

    Without ids and with every rule under `.tracer-picture`, several pictures fit in one page.
    """
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(data)
    for group in root.iter(f"{{{_SVG}}}g"):
        group.attrib.pop("id", None)
        _answer(group)
    for parent in list(root.iter()):
        _unwrap_links(parent)
    _dress(root, data.decode("utf-8", "replace"))
    finished: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return finished + b"\n"


def _answer(group: ElementTree.Element) -> None:
    """Put the tooltip where browsers look for it, in place of Graphviz's name of the thing."""
    title = group.find(f"{{{_SVG}}}title")
    link = group.find(f".//{{{_SVG}}}a")
    if title is None:
        return
    if "node" in group.get("class", "").split():
        group.set("data-box", title.text or "")
    tooltip = link.get(_TITLE_OF_LINK, "").strip() if link is not None else ""
    if tooltip and "graph" not in group.get("class", "").split():
        title.text = tooltip
    else:
        group.remove(title)


def _unwrap_links(parent: ElementTree.Element) -> None:
    """Replace `<g><a>…</a></g>`, which Graphviz makes for a tooltip, by what it holds; a link that
    leads somewhere stays one."""
    children: list[ElementTree.Element] = []
    for child in parent:
        link = child[0] if len(child) == 1 else None
        if link is not None and link.tag == f"{{{_SVG}}}a" and not child.get("class"):
            link.attrib.pop(_TITLE_OF_LINK, None)
            children += [link] if link.get(_HREF) else list(link)
        else:
            children.append(child)
    parent[:] = children


def _dress(root: ElementTree.Element, text: str) -> None:
    root.set("class", "tracer-picture")
    root.set("role", "img")
    for name in ("width", "height"):
        points = re.match(r"[\d.]+", root.get(name, ""))
        if points:
            root.set(name, str(math.ceil(float(points[0]) * _POINTS_TO_PIXELS)))
    root.set("style", "max-width:100%;height:auto")
    style = ElementTree.Element(f"{{{_SVG}}}style")
    used = [color for color in theme.DARK if f'"{color}"' in text]
    style.text = theme.style_sheet(used)
    root.insert(0, style)
