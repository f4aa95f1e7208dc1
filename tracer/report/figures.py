"""A trace and some of its passes in; a drawing of each distinct graph, with words for it, out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from html import escape

from tracer.errors import RenderError
from tracer.records import Pass, TraceRecord, words
from tracer.records.diagram import Box, Diagram, LineRole, Role
from tracer.records.view import View
from tracer.render.dot import to_dot
from tracer.report.pictures import draw_view
from tracer.transforms.diagram import diagram

MOST_GRAPHS = 6
_MOST_LEAVES_SAID = 8


@dataclass(frozen=True, slots=True)
class Drawing:
    """One pass drawn: `svg` is a whole SVG file, or empty with the `problem` that prevented it.

    `which` says which of the passes with this graph it is, where there are several; `alt` tells
    what it shows to those who cannot see it. `digest` is of what was laid out, not of how: machines
    with other fonts lay out the same drawing otherwise.
    """

    pass_id: int
    svg: str
    alt: str
    which: str = ""
    problem: str = ""
    digest: str = ""

    @property
    def is_wide(self) -> bool:
        """Whether it is too wide to stand beside another on a page."""
        size = _SIZE.search(self.svg)
        return size is not None and int(size[1]) > NARROW


NARROW = 600
_SIZE = re.compile(r'<svg\b[^>]*?\bwidth="(\d+)')


@dataclass(frozen=True, slots=True)
class Figure:
    """One distinct graph: its first pass drawn and, where there are several, its last."""

    graph: int
    passes: tuple[int, ...]
    drawings: tuple[Drawing, ...]


def draw_figures(
    trace: TraceRecord, passes: Iterable[Pass], view: View | None = None, *, folder: str = ""
) -> tuple[Figure, ...]:
    """Draw each distinct graph of the passes, up to `MOST_GRAPHS`, in the order they came up.

    `view` says how much of each to show, and how. Files in `folder` are named from there. Raises
    `NotInTraceError` for a place in the view that is in none of them.
    """
    found = group_by_graph(passes)
    shown = list(found.items())[:MOST_GRAPHS]
    return tuple(_figure(trace, graph, numbers, view or View(), folder) for graph, numbers in shown)


def group_by_graph(passes: Iterable[Pass]) -> dict[int, tuple[int, ...]]:
    """Return the numbers of the passes by the graph they share."""
    found: dict[int, tuple[int, ...]] = {}
    for one in passes:
        found[one.graph] = (*found.get(one.graph, ()), one.id)
    return found


def draw_pass(
    trace: TraceRecord,
    pass_id: int,
    view: View | None = None,
    *,
    which: str = "",
    folder: str = "",
) -> Drawing:
    """Draw one pass as SVG; a drawing that fails says why and keeps the page whole."""
    view = view or View()
    try:
        picture = draw_view(trace, pass_id, view, "svg")
    except RenderError as error:
        return Drawing(pass_id, "", describe(diagram(trace, pass_id, view)), which, str(error))
    inside = os.path.join(folder, "") if folder else ""
    shown = to_dot(picture.content, direction=view.direction).replace(inside, "")
    digest = sha256(shown.encode("utf-8", "replace")).hexdigest()
    svg = picture.data.decode().replace(escape(inside), "")
    return Drawing(pass_id, svg, describe(picture.content), which, digest=digest)


def describe(content: Diagram) -> str:
    """Tell what a diagram shows: the call, its counts, and what became of the leaves' `.grad`."""
    leaves = [text for box in content.boxes for text in _describe_leaves(box)]
    said = leaves[:_MOST_LEAVES_SAID]
    more = [f"and {len(leaves) - len(said)} more leaves"] if len(leaves) > len(said) else []
    facts = [content.title.call, *content.title.facts, content.title.failure]
    return ". ".join([", ".join(fact for fact in facts if fact), *said, *more])


def _describe_leaves(box: Box) -> list[str]:
    """Tell of the leaf that a box is, or of a layer's parameters."""
    if box.role is Role.LEAF:
        wanted = (LineRole.TITLE, LineRole.GRAD)
        return [" ".join(line.text for line in box.lines if line.role in wanted)]
    title = box.lines[0].text
    return [f"{title}, {line.text}" for line in box.lines if line.role is LineRole.LEAF]


def _figure(
    trace: TraceRecord, graph: int, passes: tuple[int, ...], view: View, folder: str
) -> Figure:
    if len(passes) == 1:
        return Figure(graph, passes, (draw_pass(trace, passes[0], view, folder=folder),))
    alike = f"{words.count(len(passes), 'pass')} with this graph"
    first = draw_pass(trace, passes[0], view, which=f"The first of {alike}", folder=folder)
    last = draw_pass(trace, passes[-1], view, which=f"The last of {alike}", folder=folder)
    return Figure(graph, passes, (first, last))
