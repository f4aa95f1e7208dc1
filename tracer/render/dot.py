"""A diagram in, the DOT text of its picture out, in which nothing from the trace is an order."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from pathlib import PurePosixPath, PureWindowsPath

import graphviz

from tracer.records import words
from tracer.records.diagram import (
    Arrow,
    Box,
    Diagram,
    Flow,
    Legend,
    Line,
    LineRole,
    Region,
    Role,
    State,
)
from tracer.render import theme
from tracer.render.ranks import spans

_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"  # the common fonts have no more of them


def to_dot(diagram: Diagram, *, direction: str = "TB") -> str:
    """Write a diagram as DOT; `direction` is Graphviz's `rankdir`: gradients flow that way."""
    graph = graphviz.Digraph("gradients")
    graph.attr("graph", **_graph_attributes(diagram, direction))
    graph.attr("node", fontname=theme.FONT, fontsize="10", fontcolor=theme.INK, margin="0.11,0.06")
    graph.attr("edge", fontname=theme.MONO, fontsize="9", arrowsize="0.6", color=theme.ARROW)
    boxes = {box.id: box for box in diagram.boxes}
    looks = _Looks(diagram)
    for region in diagram.regions:
        _add_region(graph, region, boxes, looks)
    for box in boxes.values():
        _add_box(graph, box, looks)
    widths, far = _Widths(diagram.arrows), spans(diagram)
    for arrow in diagram.arrows:
        _add_arrow(graph, arrow, widths, far.get((arrow.source, arrow.target), 1))
    return str(graph.source)


class _Looks:
    """How the boxes of one diagram look: their shades, and whether steps are circled numbers."""

    def __init__(self, diagram: Diagram) -> None:
        steps = (box.step or 0 for box in diagram.boxes)
        self.circled = max(steps, default=0) <= len(_CIRCLED)
        self._legend = diagram.legend

    def fill(self, box: Box, usual: str) -> str:
        """The fill of a box: its shade's, where it has one."""
        if self._legend is None or box.shade is None:
            return usual
        return _shades(self._legend)[box.shade]


def _shades(legend: Legend) -> tuple[str, ...]:
    return theme.SCALE if legend.ordered else theme.KINDS


def _graph_attributes(diagram: Diagram, direction: str) -> dict[str, str]:
    return {
        "rankdir": direction, "label": _title(diagram), "labelloc": "t",
        "labeljust": "l", "fontname": theme.FONT, "fontsize": "11", "fontcolor": theme.INK,
        "nodesep": "0.35", "ranksep": "0.38", "bgcolor": theme.PAPER, "pad": "0.15",
        "tooltip": " ", "charset": "UTF-8",
    }  # fmt: skip


def _title(diagram: Diagram) -> str:
    title = diagram.title
    rows = [_row(f"<B>{_text(title.call)}</B>", 12, theme.INK)]
    rows.append(_row(_text(" · ".join(title.facts)), 10, theme.FAINT_INK))
    if title.failure:
        rows.append(_row(f"<B>{_text(title.failure)}</B>", 10, theme.WRONG_INK))
    rows += [_row(_text(note), theme.SMALL_SIZE, theme.PALE_INK) for note in diagram.notes]
    if diagram.legend is not None:
        rows.append(f'<TR><TD ALIGN="LEFT">{_legend(diagram.legend)}</TD></TR>')
    return _table(rows)


def _legend(legend: Legend) -> str:
    """The shades side by side, each with what it stands for written on it."""
    colors = _shades(legend)
    cells = [f"<TD>{_font(_text(legend.measure), theme.SMALL_SIZE, theme.FAINT_INK)}</TD>"]
    cells += [
        f'<TD BGCOLOR="{colors[shade.number]}">'
        f"{_font(_text(shade.text), theme.SMALL_SIZE, theme.INK)}</TD>"
        for shade in legend.shades
    ]
    look = 'BORDER="0" CELLSPACING="0" CELLPADDING="3" ALIGN="LEFT"'
    return f"<TABLE {look}><TR>{''.join(cells)}</TR></TABLE>"


def _add_region(
    graph: graphviz.Digraph, region: Region, boxes: dict[str, Box], looks: _Looks
) -> None:
    look = theme.REGIONS[region.role]
    with graph.subgraph(name=f"cluster_{region.id}") as inside:
        inside.attr(
            label=_region_label(region), tooltip=_attribute(region.tooltip), margin="10",
            style=look.style, labeljust="l", color=look.line, fillcolor=look.fill,
            penwidth=f"{look.pen:g}",
            **{"class": region.role.value},
        )  # fmt: skip
        for below in region.regions:
            _add_region(inside, below, boxes, looks)
        for name in region.boxes:
            _add_box(inside, boxes.pop(name), looks)


def _region_label(region: Region) -> str:
    title = f"<B>{_text(region.title)}</B>"
    repeat = f"×{region.repeat:,}" if region.repeat > 1 else ""
    more = "".join(f"&#160; {_text(part)}" for part in (region.detail, repeat) if part)
    return _table([_row(title + more, theme.SMALL_SIZE, theme.FAINT_INK)])


def _add_box(graph: graphviz.Digraph, box: Box, looks: _Looks) -> None:
    look = theme.look_of(box.role, box.state)
    attributes = {
        "shape": look.shape, "style": look.style, "color": look.line,
        "fillcolor": looks.fill(box, look.fill),
        "penwidth": f"{look.pen:g}", "tooltip": _attribute(box.tooltip) or " ",
        "class": f"{box.role.value} {box.state.value}", "label": _label(box, looks.circled),
    }  # fmt: skip
    if box.role is Role.FOLDED or box.repeat > 1:
        attributes["peripheries"] = "2"
    url = _url(box.link)
    if url:
        attributes["URL"] = url
    graph.node(box.id, **attributes)


def _url(link: str) -> str:
    """Where `file:line` is on this machine, for a file with a full path; nothing else is linked."""
    file, _, line = link.rpartition(":")
    for path in (PurePosixPath(file), PureWindowsPath(file)):
        if path.is_absolute() and file.isprintable():
            return f"{path.as_uri()}#L{line}".replace("\\", "%5C").replace("&", "%26")
    return ""


def _label(box: Box, circled: bool) -> str:
    first, *others = box.lines
    rows = [_title_row(box, first, circled)]
    rows += [_line_row(box, line) for line in others]
    return _table(rows)


def _title_row(box: Box, line: Line, circled: bool) -> str:
    ink = _ink(box, line)
    title = _text(line.text)
    if line.role is LineRole.TITLE:
        title = f"<B>{title}</B>"
    if box.repeat > 1:
        title += f" ×{box.repeat:,}"
    mark = ""
    if box.step is not None:
        step = _CIRCLED[box.step - 1] if circled else f"#{box.step}"
        faint = theme.FAINT_INK if box.shade is None else theme.INK
        mark = f'<TD ALIGN="RIGHT"><FONT COLOR="{faint}">&#160; {step}</FONT></TD>'
    size = theme.TEXT_SIZE if line.role is LineRole.TITLE else theme.SMALL_SIZE
    return f'<TR><TD ALIGN="LEFT">{_font(title, size, ink)}</TD>{mark}</TR>'


def _line_row(box: Box, line: Line) -> str:
    text = _text(line.text)
    if line.role is LineRole.ALARM:
        text = f"<B>{text}</B>"
    span = ' COLSPAN="2"' if box.step is not None else ""
    strip = f' BGCOLOR="{theme.LEAF_STRIP}"' if line.role is LineRole.LEAF else ""
    content = _font(text, theme.SMALL_SIZE, _ink(box, line))
    return f'<TR><TD ALIGN="LEFT"{span}{strip}>{content}</TD></TR>'


def _ink(box: Box, line: Line) -> str:
    if box.shade is not None and line.role is not LineRole.LEAF:
        return theme.INK
    if box.state is State.IDLE or box.role is Role.CUT:
        return theme.FAINT_INK if line.role is LineRole.TITLE else theme.PALE_INK
    return theme.INKS[line.role]


class _Widths:
    """How wide an arrow is: its gradient's norm on a logarithmic scale of four decades or more."""

    def __init__(self, arrows: Iterable[Arrow]) -> None:
        known = [arrow.magnitude for arrow in arrows if arrow.magnitude]
        finite = [size for size in known if math.isfinite(size)]
        self._least = min(finite, default=1.0)
        self._decades = max(4.0, math.log10(max(finite, default=1.0) / self._least))

    def of(self, arrow: Arrow) -> float:
        """The pen width in points, 0.8 to 3.2."""
        if not arrow.magnitude or not math.isfinite(arrow.magnitude):
            return 0.8
        return 0.8 + 2.4 * math.log10(arrow.magnitude / self._least) / self._decades


def _add_arrow(graph: graphviz.Digraph, arrow: Arrow, widths: _Widths, ranks: int) -> None:
    look = {"penwidth": f"{widths.of(arrow):.2g}", "color": theme.ARROW}
    ink = theme.FLOW_INK
    if arrow.flow is Flow.CUT:
        head = "tee" if arrow.text else "none"
        look = {"color": theme.CUT_LINE, "style": "dashed", "arrowhead": head, "penwidth": "0.9"}
        ink = theme.FAINT_INK
    elif arrow.flow is Flow.PART:
        look = {"color": theme.MODULE_LINE, "style": "dotted", "arrowhead": "empty"}
        ink = theme.PALE_INK
    elif arrow.state is State.WRONG:
        look, ink = {"color": theme.WRONG_INK, "penwidth": "2"}, theme.WRONG_INK
    elif arrow.state is State.ZERO:
        look, ink = {"color": theme.ZERO_LINE, "style": "dashed"}, theme.FAINT_INK
    if arrow.flow is Flow.CARRIED:
        look["style"] = "dashed"
    look["tooltip"] = look["labeltooltip"] = _attribute(arrow.tooltip) or " "
    look["class"] = f"{arrow.flow.value} {arrow.state.value}"
    if ranks > 1:
        look["minlen"] = str(ranks)
    if arrow.text:
        bold = arrow.state is State.WRONG
        text = f"&#160;{_text(arrow.text)}&#160;"
        look["label"] = f'<<FONT COLOR="{ink}">{f"<B>{text}</B>" if bold else text}</FONT>>'
    graph.edge(arrow.source, arrow.target, **look)


def _table(rows: Iterable[str]) -> str:
    return f'<<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="1">{"".join(rows)}</TABLE>>'


def _row(content: str, size: float, ink: str) -> str:
    return f'<TR><TD ALIGN="LEFT">{_font(content, size, ink)}</TD></TR>'


def _font(content: str, size: float, ink: str) -> str:
    return f'<FONT POINT-SIZE="{size:g}" COLOR="{ink}">{content}</FONT>'


def _text(text: str) -> str:
    """Text for an HTML-like label, none of which is markup; runs of spaces stay.

    Graphviz replaces `\\N` and its like in HTML-like labels too.
    """
    escaped = html.escape(words.one_line(text)).replace("\\", 2 * "\\")
    return escaped.replace("  ", "&#160; ") or " "


def _attribute(text: str) -> str:
    """Text for a tooltip, in which `\\N` and `&lt;` stay as they are, lines apart.

    Graphviz takes the escapes of a tooltip twice: four backslashes come out as one. One at the end
    of a line would join it with the next.
    """
    lines = [
        words.one_line(line).replace("&", "&amp;").replace("<", "&lt;") for line in text.split("\n")
    ]
    return "&#10;".join(lines).replace("\\", 4 * "\\").replace('"', "&quot;")
