"""A pass and a reader's wishes in; the part of its graph that they name, and what it is, out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from os.path import commonprefix

from tracer.records import words
from tracer.records.graph import Edge, Graph
from tracer.records.passes import PassView
from tracer.records.view import View
from tracer.transforms.find import module_of
from tracer.transforms.focus import Part, downstream, focus, upstream
from tracer.transforms.paths import Paths, counted, paths
from tracer.transforms.shares import Shares, brought_along, scaled, shares_of

_MOST_LISTED = 8
_MOST_STATIONS = 9


def part_of(view: PassView, wishes: View) -> Part | None:
    """Find the part that is wished for, None for the whole graph.

    Of paths between two places the shortest are listed, each with what it brings to its end as far
    as that can be known. Raises NotInTraceError for a name that the graph does not hold.
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
    return _paths_part(view, *wishes.path)


def _paths_part(view: PassView, one: str, other: str) -> Part:
    """The part that all paths take, with what is known of how much came along them."""
    found = paths(view.graph, one, other, first=_MOST_LISTED)
    shares = shares_of(view, found)
    source, target = (other, one) if found.turned else (one, other)
    notes = [found.text, *_path_lines(view, found)]
    if len(found.targets) == 1:
        notes.append(_whole(view, found, shares, target))
    if None in (shares[edge.source] for edge in found.edges):
        notes.append(f"*: with what came from elsewhere than {source}, which cannot be told apart")
    return replace(found.part, notes=tuple(notes), shares=shares, paths_over=found.over)


def _path_lines(view: PassView, found: Paths) -> Iterator[str]:
    """List the shortest paths, after what each brings to its end, and count the rest."""
    names = _Stations(view.graph, found.first)
    for path in found.first:
        yield f"{_brought(view, path, names)}: {names.along(path)}"
    if found.count > len(found.first):
        yield f"and {counted(found.count - len(found.first))} more, none of them shorter"


def _brought(view: PassView, path: Sequence[Edge], names: _Stations) -> str:
    brought, mixed = brought_along(view, path)
    if mixed is None:
        return words.tensor(brought)
    return f"part of {words.tensor(view.contribution(path[-1]))} (adds up at {names.of(mixed)})"


class _Stations:
    """Names the nodes of paths that are listed together, by the least that tells them apart."""

    def __init__(self, graph: Graph, listed: Sequence[Sequence[Edge]]) -> None:
        self._graph = graph
        self._prefix = ""
        nodes = {node for path in listed for node in _nodes_of(path)}
        found = {module_of(graph.nodes[node]) for node in nodes} - {""}
        modules = [path.split(".") for path in sorted(found)]
        shared = list(commonprefix(modules)) if modules else []
        if any("".join(path[len(shared) :])[:1].isdigit() for path in modules):
            del shared[-1:]  # `layers.23`, not `23`
        self._prefix = "".join(f"{part}." for part in shared)
        seen = Counter(name for path in listed for name in set(map(self.of, _nodes_of(path))))
        self._usual = {name for name, paths in seen.items() if 2 * paths > len(listed) > 1}

    def of(self, node: int) -> str:
        """What the user called it, else the module it ran in, else what it does."""
        found = self._graph.nodes[node]
        called = ", ".join(words.names_of(found)) or module_of(found) or words.op_name(found)
        return words.shorten(called.removeprefix(self._prefix), 32)

    def along(self, path: Sequence[Edge]) -> str:
        """The stations of a path; of many, its ends and those that most of the others lack."""
        names = list(dict.fromkeys(map(self.of, _nodes_of(path))))
        if len(names) > _MOST_STATIONS:
            inner = ["…" if name in self._usual else name for name in names[1:-1]]
            names = [name for name, _ in groupby([names[0], *inner, names[-1]])]
        if len(names) > _MOST_STATIONS:
            half = _MOST_STATIONS // 2
            names[half:-half] = [f"… {len(names) - 2 * half} more …"]
        return " → ".join(names)


def _nodes_of(path: Sequence[Edge]) -> list[int]:
    return [path[0].source, *(edge.target for edge in path)]


def _whole(view: PassView, found: Paths, shares: Shares, target: str) -> str:
    """Say how much of what their end receives all paths bring together."""
    (end,) = found.targets
    last = [edge for edge in found.edges if edge.target == end]
    received, share = view.arrived(end, last[0].input_nr), shares[end]
    if share == 1.0:
        return f"together all that {target} receives: {words.tensor(received)}"
    brought = "some" if share is None else words.tensor(scaled(received, share))
    if len(last) == 1 and shares[last[0].source] is not None:
        brought = words.tensor(scaled(view.contribution(last[0]), shares[last[0].source]))
    return f"together {brought} of the {words.tensor(received)} that {target} receives"
