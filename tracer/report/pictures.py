"""A pass and a reader's wishes in; its picture, drawn in bounded time, out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from tracer.records import words
from tracer.records.collection import no_collection
from tracer.records.diagram import Diagram
from tracer.records.passes import find_pass
from tracer.records.trace import TraceRecord
from tracer.records.view import View
from tracer.render.dot import to_dot
from tracer.render.fonts import missing_scripts
from tracer.render.mermaid import to_mermaid, too_large
from tracer.render.picture import LayoutError, LayoutTimeoutError, draw_dot, format_of
from tracer.transforms.diagram import diagram

_FEWEST = 4
_MOST_A_SECOND = 2_000  # boxes: Graphviz is slower than that on every graph that was tried
TEXT = ("dot", "mmd")
TIME_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class PassPicture:
    """A drawn picture of a pass, what it says, and which Graphviz drew it: `dot`, `pygraphviz`, or
    `none` for text. `advice` is what its reader should know of how it came about: that it had to be
    folded further, that a font is missing, or that Mermaid will find it too large."""

    data: bytes
    engine: str
    content: Diagram
    advice: tuple[str, ...] = ()


@no_collection()
def draw_view(
    trace: TraceRecord,
    pass_id: int,
    wishes: View,
    path_or_format: str | os.PathLike[str],
    *,
    dpi: int | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> PassPicture:
    """Draw one pass. A layout that is not done in time is tried again, folded further.

    Raises `NotInTraceError` for a pass or a name that is not there, `RenderError` for another
    format, where nothing on the machine can draw, or where no folding helps.
    """
    format = format_of(path_or_format)
    note = ""
    nodes = len(trace.graphs[find_pass(trace, pass_id).graph].nodes)
    if format not in TEXT and not wishes.fold and nodes > _MOST_A_SECOND * time_limit_s:
        note = f"folded: {words.count(nodes, 'box')} cannot be laid out in {time_limit_s:g} s"
        wishes = replace(wishes, fold=True)
    while True:
        content = diagram(trace, pass_id, wishes)
        content = replace(content, notes=(*content.notes, *filter(None, (note,))))
        if format == "mmd":
            text = to_mermaid(content, direction=wishes.direction)
            advice = tuple(filter(None, (too_large(text),)))
            return PassPicture(text.encode("utf-8", "replace"), "none", content, advice)
        try:
            dot = to_dot(content, direction=wishes.direction)
            picture = draw_dot(dot, format, dpi=dpi, timeout_s=time_limit_s)
            return PassPicture(picture.data, picture.engine, content, _advice(note, dot, format))
        except LayoutError as error:
            coarser = fold_further(wishes, len(content.boxes))
            if coarser is None:
                raise
            boxes = words.count(len(content.boxes), "box")
            late = isinstance(error, LayoutTimeoutError)
            why = f"in {time_limit_s:g} s" if late else "without a crash of Graphviz"
            note = f"folded further: {boxes} could not be laid out {why}"
            wishes = coarser


def _advice(note: str, dot: str, format: str) -> tuple[str, ...]:
    more = f"{note}; for everything, write DOT text (--no-fold -o g.dot)" if note else ""
    missing = missing_scripts(dot) if format in ("png", "pdf") else ()
    fonts = (
        f"no font here has {' and '.join(missing)} characters: they are right in SVG, "
        "and in PNG and PDF once a font such as Noto Sans CJK is installed"
    )
    return tuple(filter(None, (more, fonts if missing else "")))


def fold_further(wishes: View, boxes: int) -> View | None:
    """Ask for the budget where it was not kept to, else for half the boxes that there were; None
    where they are few already."""
    kept_to = wishes.fold and wishes.depth is None and not wishes.expand
    budget = min(wishes.budget, boxes) // 2 if kept_to else wishes.budget
    if budget < _FEWEST:
        return None
    return replace(wishes, fold=True, depth=None, expand=(), budget=budget)
