"""A diagram in; how many ranks an arrow that leaves a small module has to span, out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from tracer.records.diagram import Diagram, Flow, Region, RegionRole, Role

_DEEPEST = 4


def spans(diagram: Diagram) -> Mapping[tuple[str, str], int]:
    """Find, by its ends, how far down each arrow out of a module with leaves has to lead, so that
    what comes next stands below the module's leaves, not beside them.

    Otherwise the frames of a chain of layers would go down the page as a staircase.
    """
    frame_of = {box: region.id for region in _innermost(diagram) for box in region.boxes}
    leaves = {box.id for box in diagram.boxes if box.role is Role.LEAF}
    with_leaves = {frame_of[leaf] for leaf in leaves if leaf in frame_of}
    inside: dict[str, list[str]] = defaultdict(list)
    leaving = []
    for arrow in diagram.arrows:
        frame = frame_of.get(arrow.source)
        if frame is None or arrow.flow is Flow.CUT:
            continue
        if frame == frame_of.get(arrow.target):
            inside[arrow.source].append(arrow.target)
        elif frame in with_leaves and arrow.target not in leaves:
            leaving.append((arrow.source, arrow.target))
    depths = {source: _depth(source, inside) for source, _ in leaving}
    return {ends: depths[ends[0]] + 1 for ends in leaving if 1 <= depths[ends[0]] <= _DEEPEST}


def _innermost(diagram: Diagram) -> Iterator[Region]:
    waiting = list(diagram.regions)
    while waiting:
        region = waiting.pop()
        waiting += region.regions
        if region.role is RegionRole.MODULE:
            yield region


def _depth(start: str, inside: Mapping[str, list[str]]) -> int:
    """Count the ranks below a box in its module, no further than is of interest."""
    border = {start}
    for depth in range(_DEEPEST + 1):
        border = {target for box in border for target in inside.get(box, ())}
        if not border:
            return depth
    return _DEEPEST + 1
