"""Whatever a name holds, Graphviz draws it as it is: no text is DOT, HTML or XML."""

from __future__ import annotations

import functools
from collections import Counter
from xml.etree import ElementTree

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.records import words
from tracer.records.diagram import (
    Arrow,
    Box,
    Diagram,
    Legend,
    Line,
    LineRole,
    Region,
    RegionRole,
    Role,
    Shade,
    Title,
)
from tracer.render.dot import to_dot
from tracer.render.picture import draw_dot

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
PARTS = st.sampled_from(
    ["<B>", "</TD>", "<!--", "]]>", "&lt;", "&#0;", "\\N", "\\l", '"', "];", "->", "{", "|", "\\",
     "</svg>", "<script>", "javascript:", "%s", "$(x)", "梯度", "\u202e", "\x00", "\ud800", " "]
)  # fmt: skip
NAMES = (
    st.lists(PARTS | st.text(max_size=6), min_size=1, max_size=5)
    .map("".join)
    .filter(lambda name: bool(words.one_line(name).strip()))
)


def diagram_of(names: list[str]) -> Diagram:
    """A picture with each name wherever there is room for one."""
    lines = (LineRole.TITLE, LineRole.DETAIL, LineRole.LEAF, LineRole.ALARM)
    boxes = tuple(
        Box(
            f"n{number}", Role.FOLDED, tuple(Line(role, name) for role in lines),
            tooltip=name, link=f"/{name}:3", repeat=2, shade=0,
        )
        for number, name in enumerate(names)
    )  # fmt: skip
    arrows = tuple(Arrow(box.id, box.id, name) for box, name in zip(boxes, names, strict=True))
    regions = tuple(
        Region(f"r{number}", RegionRole.MODULE, name, name, (f"n{number}",), tooltip=name)
        for number, name in enumerate(names)
    )
    title, legend = (
        Title(names[0], tuple(names), names[-1]),
        Legend(names[0], (Shade(0, names[0]),)),
    )
    return Diagram(title, boxes, arrows, regions, tuple(names), legend)


@functools.cache
def drawn(*names: str) -> ElementTree.Element:
    """The SVG of that picture."""
    return ElementTree.fromstring(draw_dot(to_dot(diagram_of(list(names))), "svg").data)


def shapes(root: ElementTree.Element) -> list[str]:
    """What is drawn but for text, and links, which only some files get."""
    kinds = (f"{SVG}polygon", f"{SVG}path", f"{SVG}title", f"{SVG}style", f"{SVG}g")
    found = [element.tag for element in root.iter()]
    assert set(found) <= {*kinds, f"{SVG}svg", f"{SVG}text", f"{SVG}a"}
    return [tag for tag in found if tag in kinds[:2]]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(NAMES, min_size=3, max_size=3))
def test_a_hostile_name_changes_nothing_but_its_own_text(names: list[str]) -> None:
    root = drawn(*names)
    assert Counter(shapes(root)) == Counter(shapes(drawn("a", "b", "c")))
    assert all(link.get(HREF, "").startswith("file:///") for link in root.iter(f"{SVG}a"))
    said = "".join("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    for name in names:
        assert words.one_line(name).replace("  ", "\xa0 ").strip() in said
