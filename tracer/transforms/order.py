"""Links in; an order in which gradients can flow along them, or what rules one out, out."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from tracer.errors import TraceFileError
from tracer.records.graph import Graph

Links = Sequence[Sequence[int]]


def flow_order(graph: Graph) -> list[int]:
    """Order all nodes so that every edge leads forward, with the leaves last.

    The engine takes the highest sequence number first, so that order is used wherever it is one:
    operations of one module call or loop iteration then stand together. Otherwise (several threads,
    in-place operations, unknown numbers) ties are broken by it. Raises TraceFileError on a cycle.
    """
    newest_first = [-(node.sequence_nr or 0) for node in graph.nodes]
    order = [node.id for node in graph.nodes if not node.is_leaf]
    order.sort(key=newest_first.__getitem__)
    order += [node.id for node in graph.nodes if node.is_leaf]
    place = [0] * len(order)
    for position, node in enumerate(order):
        place[node] = position
    if all(place[edge.source] < place[edge.target] for edge in graph.edges):
        return order
    links: list[list[int]] = [[] for _ in graph.nodes]
    for edge in graph.edges:
        links[edge.source].append(edge.target)
    found = sorted_by_links(links, place)
    if len(found) < len(order):
        raise TraceFileError(
            f"graph {graph.id} has a cycle, so the trace is damaged; record it anew"
        )
    return found


def sorted_by_links(links: Links, rank: Sequence[int]) -> list[int]:
    """Order items so that every link leads forward, lowest rank first, but for those on cycles."""
    waiting = [0] * len(links)
    for targets in links:
        for target in targets:
            waiting[target] += 1
    ready = [(rank[item], item) for item, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        _, item = heapq.heappop(ready)
        order.append(item)
        for target in links[item]:
            waiting[target] -= 1
            if not waiting[target]:
                heapq.heappush(ready, (rank[target], target))
    return order


def tangled(links: Links) -> set[int]:
    """Find the items that are on a cycle, or between two: what no order can hold apart."""
    ahead = set(range(len(links))) - set(sorted_by_links(links, range(len(links))))
    back: list[list[int]] = [[] for _ in links]
    for item in ahead:
        for target in links[item]:
            if target in ahead:
                back[target].append(item)
    return ahead - set(sorted_by_links(back, range(len(links))))
