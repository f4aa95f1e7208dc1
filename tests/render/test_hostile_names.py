"""Whatever a name holds, Graphviz draws it as it is: no text is DOT, HTML or XML."""

from __future__ import annotations

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
NAMES = st.lists(PARTS | st.text(max_size=6), min_size=1, max_size=5).map("".join)


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


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(NAMES, min_size=3, max_size=3))
def test_a_hostile_name_changes_nothing_but_its_own_text(names: list[str]) -> None:
    drawn = ElementTree.fromstring(draw_dot(to_dot(diagram_of(names)), "svg").data)
    plain = ElementTree.fromstring(draw_dot(to_dot(diagram_of(["a", "b", "c"])), "svg").data)
    kinds = {element.tag for element in drawn.iter()}
    assert kinds == {element.tag for element in plain.iter()}
    links = [link.get(HREF) or "" for link in drawn.iter(f"{SVG}a")]
    assert all(link.startswith("file:///") for link in links)
    for kind in ("polygon", "path"):
        assert len(list(drawn.iter(SVG + kind))) == len(list(plain.iter(SVG + kind)))
    said = "".join("".join(text.itertext()) for text in drawn.iter(f"{SVG}text"))
    for name in names:
        expected = words.one_line(name).replace("  ", "\xa0 ")
        assert expected.strip() in said
