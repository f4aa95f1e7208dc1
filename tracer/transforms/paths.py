"""A graph and two places in it in; all that leads from one to the other, and how often, out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from tracer.errors import NotInTraceError
from tracer.records import words
from tracer.records.graph import Edge, Graph
from tracer.transforms.find import find_nodes
from tracer.transforms.focus import Part, reach
from tracer.transforms.order import flow_order

COUNTED_AT_MOST = 10**18


@dataclass(frozen=True, slots=True)
class Paths:
    """All paths between two places: the nodes and edges they take, in the graph's order.

    `count` is how many there are, or `COUNTED_AT_MOST` where there are more. `first` are as many of
    them as were asked for, each as its edges, the lowest slots first. `turned` tells that
    gradients flow the other way round: from the second place to the first. `text` says all of it.
    """

    nodes: tuple[int, ...]
    edges: tuple[Edge, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    count: int
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
    for edge in edges:
        taken.setdefault(edge.source, []).append(edge)
    starts = [node for node in sources if node in taken]
    counts = _count(flow_order(graph), taken, starts)
    ends = [node for node in targets if node in counts]
    return Paths(
        nodes=tuple(sorted(counts)),
        edges=tuple(edges),
        sources=tuple(starts),
        targets=tuple(ends),
        count=min(sum(counts[node] for node in ends), COUNTED_AT_MOST),
        first=tuple(islice(_walk(taken, starts), first)),
    )


def _text(source: int | str, target: int | str, count: int, turned: bool) -> str:
    one, other = (target, source) if turned else (source, target)
    many = "more than 10^18 paths" if count >= COUNTED_AT_MOST else words.count(count, "path")
    return f"{many} from {one} to {other}"


def _count(order: list[int], taken: dict[int, list[Edge]], starts: list[int]) -> dict[int, int]:
    """Count the paths from the starts to every node that they lead to."""
    counts = dict.fromkeys(starts, 1)
    for node in order:
        for edge in taken.get(node, ()):
            counts[edge.target] = min(counts.get(edge.target, 0) + counts[node], COUNTED_AT_MOST)
    return counts


def _walk(taken: dict[int, list[Edge]], starts: list[int]) -> Iterator[tuple[Edge, ...]]:
    """Follow one path after another; every edge taken leads on to an end."""
    for start in starts:
        trail: list[Edge] = []
        waiting = [iter(taken[start])]
        while waiting:
            edge = next(waiting[-1], None)
            if edge is None:
                waiting.pop()
                del trail[-1:]
            elif edge.target in taken:
                trail.append(edge)
                waiting.append(iter(taken[edge.target]))
            else:
                yield (*trail, edge)
