"""An SVG file in; the same drawing as an element that is safe inside a page out."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tracer.errors import RenderError

SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}"
_SPACE = "{http://www.w3.org/XML/1998/namespace}space"
_DRAWN = "svg g path polygon polyline line rect circle ellipse text tspan title desc defs style"
_SHADED = "linearGradient radialGradient stop clipPath marker"
_TAGS = frozenset(f"{_DRAWN} {_SHADED}".split())
_REFERENCE = re.compile(r"url\(\s*['\"]?#([^)'\"]+)['\"]?\s*\)")
_OUTSIDE = re.compile(r"url\(\s*(?!['\"]?#)|@import|expression\(|javascript:", re.IGNORECASE)


def embed_svg(svg: str, name: str, alt: str) -> str:
    """Return an SVG document as one `<svg>` element for a page.

    Scripts, links, images, event attributes and whatever leads out of the file are left out.
    `name` goes in front of every id, so that several drawings fit on a page; `alt` says what it
    shows to those who cannot see it. Raises RenderError for what is not SVG.
    """
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise RenderError(f"the drawing is not well-formed SVG: {error}") from error
    if root.tag != f"{{{SVG}}}svg":
        raise RenderError("the drawing is not SVG")
    _clean(root, name)
    root.set("role", "img")
    root.set("aria-label", alt)
    ElementTree.register_namespace("", SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _clean(root: ElementTree.Element, name: str) -> None:
    waiting = [root]
    while waiting:
        element = waiting.pop()
        _clean_attributes(element, name)
        if element.tag == f"{{{SVG}}}style":
            element.text = element.text if not _OUTSIDE.search(element.text or "") else ""
        for child in list(element):
            kept = _replacement(child)
            if kept is None:
                element.remove(child)
            else:
                waiting.append(kept)


def _replacement(child: ElementTree.Element) -> ElementTree.Element | None:
    """Return the element, made a plain group where it was a link; None where it has to go."""
    if child.tag == f"{{{SVG}}}a":
        child.tag = f"{{{SVG}}}g"
    if not isinstance(child.tag, str) or child.tag.removeprefix(f"{{{SVG}}}") not in _TAGS:
        return None
    return child


def _clean_attributes(element: ElementTree.Element, name: str) -> None:
    for key, value in list(element.attrib.items()):
        local = key.removeprefix(_XLINK)
        if local == "href" or local.lower().startswith("on") or _OUTSIDE.search(value):
            del element.attrib[key]
        elif key == "id":
            element.set(key, f"{name}-{value}")
        elif key.startswith("{") and key != _SPACE:
            del element.attrib[key]
        else:
            element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))
