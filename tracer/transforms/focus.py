"""A graph and the name of something in it in; the part of the graph that a reader asked for out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from tracer.records import words
from tracer.records.graph import Edge, Graph, Root
from tracer.transforms.find import find_nodes


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a graph's nodes, ascending, the `targets` among them that were asked for, and, in
    words, what part it is and what there is to say of it.

    Of paths, `shares` tells by node how much of what it received came along them (see
    `shares.Shares`), and `paths_over` how many lead over an edge.
    """

    nodes: tuple[int, ...]
    targets: tuple[int, ...]
    notes: tuple[str, ...] = ()
    shares: Mapping[int, float | None] = field(default_factory=dict)
    paths_over: Mapping[Edge, int] = field(default_factory=dict)


def focus(graph: Graph, target: int | str, radius: int = 2) -> Part:
    """Take what is at most `radius` edges away from the target, in either direction.

    Raises NotInTraceError for a name that the graph does not hold.
    """
    targets = find_nodes(graph, target)
    found = set(targets)
    border: Iterable[int] = targets
    for _ in range(radius):
        after = {edge.target for node in border for edge in graph.edges_from[node]}
        before = {edge.source for node in border for edge in graph.edges_into[node]}
        border = (after | before) - found
        found |= border
    near = f" and what is near it, {words.count(radius, 'edge')} far" if radius else ""
    return Part(tuple(sorted(found)), targets, (f"{target}{near}",))


def upstream(graph: Graph, target: int | str) -> Part:
    """Take all that a gradient can pass on its way from the roots to the target.

    Raises NotInTraceError for a name that the graph does not hold.
    """
    targets = find_nodes(graph, target)
    sources = {node: [e.source for e in edges] for node, edges in graph.edges_into.items()}
    return Part(tuple(sorted(reach(targets, sources))), targets, (f"upstream of {target}",))


def downstream(graph: Graph, target: int | str) -> Part:
    """Take all that a gradient can pass on its way from the target to the leaves.

    Raises NotInTraceError for a name that the graph does not hold.
    """
    targets = find_nodes(graph, target)
    onwards = {node: [e.target for e in edges] for node, edges in graph.edges_from.items()}
    return Part(tuple(sorted(reach(targets, onwards))), targets, (f"downstream of {target}",))


def reach(
    start: Iterable[int], links: Mapping[int, Iterable[int]], stop: Collection[int] = ()
) -> set[int]:
    """Find all that can be reached along the links, not looking beyond what is in `stop`."""
    found = set(start)
    waiting = list(found)
    while waiting:
        node = waiting.pop()
        if node not in stop:
            new = set(links[node]) - found
            found |= new
            waiting += new
    return found


def cut_out(graph: Graph, nodes: Iterable[int]) -> tuple[Graph, tuple[int, ...]]:
    """Make a graph of some nodes and the edges among them; return their old ids by new id.

    Its roots are the graph's own where they are among the nodes, and nodes that no edge leads to.
    """
    old = tuple(sorted(set(nodes)))
    new = {node: number for number, node in enumerate(old)}
    edges = tuple(
        Edge(new[edge.source], edge.slot, new[edge.target], edge.input_nr)
        for edge in graph.edges
        if edge.source in new and edge.target in new
    )
    roots = [Root(new[root.node], root.input_nr) for root in graph.roots if root.node in new]
    entered = {edge.target for edge in edges} | {root.node for root in roots}
    roots += [Root(number) for number in range(len(old)) if number not in entered]
    kept = tuple(replace(graph.nodes[node], id=number) for number, node in enumerate(old))
    return Graph(graph.id, kept, edges, tuple(roots), notes=graph.notes), old
