"""A graph and two places in it in; all that leads from one to the other, and how often, out."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any

from tracer.errors import NotInTraceError
from tracer.records import words
from tracer.records.graph import Edge, Graph
from tracer.transforms.find import find_nodes
from tracer.transforms.focus import Part, reach
from tracer.transforms.order import flow_order

COUNTED_AT_MOST = 10**18

_Trail = tuple[Edge, Any]  # the last edge, and the trail before it: shared, as paths share theirs


@dataclass(frozen=True, slots=True)
class Paths:
    """All paths between two places: the nodes and edges they take, in the graph's order.

    `count` is how many there are, and `over` how many of them take each edge, or `COUNTED_AT_MOST`
    where there are more. `first` are as many of them as were asked for, each as its edges, the
    shortest first and of those the lowest slots. `turned` tells that gradients flow the other way
    round: from the second place to the first. `text` says all of it.
    """

    nodes: tuple[int, ...]
    edges: tuple[Edge, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    count: int
    over: Mapping[Edge, int] = field(default_factory=dict)
    first: tuple[tuple[Edge, ...], ...] = ()
    turned: bool = False
    text: str = ""

    @property
    def part(self) -> Part:
        """The part of the graph that the paths take."""
        return Part(self.nodes, (*self.sources, *self.targets), (self.text,))


def paths(graph: Graph, source: int | str, target: int | str, *, first: int = 0) -> Paths:
    """Find all paths that gradients can take between two places, in either direction.

    A place may be several nodes (a module): paths lead from the last of its nodes on the way to the
    first of the other's. Costs no more than the graph is large, however many paths there are.
    Raises NotInTraceError for an unknown name, two places that overlap, or where no path leads.
    """
    ends = find_nodes(graph, source), find_nodes(graph, target)
    if not set(ends[0]).isdisjoint(ends[1]):
        raise NotInTraceError(f"{source} and {target} overlap; name two places apart to see a path")
    for turned in (False, True):
        sources, targets = ends[::-1] if turned else ends
        edges = _edges_between(graph, set(sources), set(targets))
        if edges:
            found = _paths(graph, edges, sources, targets, first=first)
            return replace(found, turned=turned, text=_text(source, target, found.count, turned))
    raise NotInTraceError(f"no gradient flows between {source} and {target}, in either direction")


def _edges_between(graph: Graph, sources: set[int], targets: set[int]) -> list[Edge]:
    onwards = {node: [edge.target for edge in edges] for node, edges in graph.edges_from.items()}
    backwards = {node: [edge.source for edge in edges] for node, edges in graph.edges_into.items()}
    between = reach(sources, onwards, targets) & reach(targets, backwards, sources)
    left, entered = between - targets, between - sources
    return [edge for edge in graph.edges if edge.source in left and edge.target in entered]


def _paths(
    graph: Graph,
    edges: list[Edge],
    sources: tuple[int, ...],
    targets: tuple[int, ...],
    *,
    first: int,
) -> Paths:
    taken: dict[int, list[Edge]] = {}
    back: dict[int, list[Edge]] = {}
    for edge in edges:
        taken.setdefault(edge.source, []).append(edge)
        back.setdefault(edge.target, []).append(edge)
    order = flow_order(graph)
    starts = [node for node in sources if node in taken]
    ends = [node for node in targets if node in back]
    before = _count(order, {node: [e.target for e in out] for node, out in taken.items()}, starts)
    after = _count(order[::-1], {node: [e.source for e in out] for node, out in back.items()}, ends)
    return Paths(
        nodes=tuple(sorted(before)),
        edges=tuple(edges),
        sources=tuple(starts),
        targets=tuple(ends),
        count=min(sum(before[node] for node in ends), COUNTED_AT_MOST),
        over={e: min(before[e.source] * after[e.target], COUNTED_AT_MOST) for e in edges},
        first=tuple(islice(_shortest(order, taken, starts), first)),
    )


def counted(paths: int) -> str:
    """Say how many paths: `3 paths`, `more than 10^18 paths`."""
    return "more than 10^18 paths" if paths >= COUNTED_AT_MOST else words.count(paths, "path")


def _text(source: int | str, target: int | str, count: int, turned: bool) -> str:
    one, other = (target, source) if turned else (source, target)
    return f"{counted(count)} from {one} to {other}"


def _count(order: list[int], links: dict[int, list[int]], starts: list[int]) -> dict[int, int]:
    """Count the paths from the starts to every node that they lead to."""
    counts = dict.fromkeys(starts, 1)
    for node in order:
        for target in links.get(node, ()):
            counts[target] = min(counts.get(target, 0) + counts[node], COUNTED_AT_MOST)
    return counts


def _shortest(
    order: list[int], taken: dict[int, list[Edge]], starts: list[int]
) -> Iterator[tuple[Edge, ...]]:
    """Follow one path after another, the shortest first; every edge taken leads on to an end."""
    left: dict[int, int] = {}
    for node in reversed(order):
        if node in taken:
            left[node] = 1 + min(left.get(edge.target, 0) for edge in taken[node])
    numbers = count()
    # What is in line for the end at once comes before what is behind: length, edges left, turn.
    line: list[tuple[int, int, int, int, _Trail | None]] = [
        (left[start], left[start], next(numbers), start, None) for start in starts
    ]
    heapq.heapify(line)
    while line:
        length, rest, _, node, trail = heapq.heappop(line)
        if node not in taken:
            yield _edges_of(trail)
        for edge in taken.get(node, ()):
            onwards = left.get(edge.target, 0)
            entry = (
                length - rest + 1 + onwards,
                onwards,
                next(numbers),
                edge.target,
                (edge, trail),
            )
            heapq.heappush(line, entry)


def _edges_of(trail: _Trail | None) -> tuple[Edge, ...]:
    edges = []
    while trail is not None:
        edge, trail = trail
        edges.append(edge)
    return tuple(reversed(edges))
