"""A pass and a reader's wishes in; the part of its graph that they name, and what it is, out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from tracer.records import words
from tracer.records.graph import Edge
from tracer.records.passes import PassView
from tracer.records.view import View
from tracer.transforms.focus import Part, downstream, focus, upstream
from tracer.transforms.paths import Paths, paths

_MOST_LISTED = 8
_LONGEST_PATH = 6


def part_of(view: PassView, wishes: View) -> Part | None:
    """Find the part that is wished for, None for the whole graph.

    Few paths between two places are listed, each with what it brings to its end. Raises
    NotInTraceError for a name that the graph does not hold.
    """
    graph = view.graph
    if wishes.focus:
        return focus(graph, wishes.focus, wishes.radius)
    if wishes.upstream:
        return upstream(graph, wishes.upstream)
    if wishes.downstream:
        return downstream(graph, wishes.downstream)
    if wishes.path is None:
        return None
    found = paths(graph, *wishes.path, first=_MOST_LISTED)
    return replace(found.part, notes=(found.text, *_path_lines(view, found)))


def _path_lines(view: PassView, found: Paths) -> Iterator[str]:
    """List paths with the gradient that comes in over the last edge of each.

    Over an edge that paths share flows the sum of what they bring: then it is told apart.
    """
    if not 1 < found.count <= len(found.first):
        return
    titles = words.titles(view.graph)
    shared = Counter(path[-1] for path in found.first)
    for path in found.first:
        stations = [path[0].source, *(edge.target for edge in path)]
        names = [words.shorten(titles[node], 32) for node in stations]
        if len(names) > _LONGEST_PATH:
            names[3:-2] = [f"… {len(names) - 5} more …"]
        yield f"{' → '.join(names)}:  {_brought(view, path[-1], shared[path[-1]])}"


def _brought(view: PassView, last: Edge, paths_over_it: int) -> str:
    text = words.tensor(view.contribution(last))
    return f"{text} (with the other paths over the last edge)" if paths_over_it > 1 else text
