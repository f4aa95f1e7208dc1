"""A graph in; its nodes gathered into units, an operation with the views that serve it, out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tracer.records.graph import Edge, Graph, Node, NodeKind

_VIEWS = re.compile(
    r"(Alias|AsStrided|Chunk|Diagonal|Expand|H|Imag|MH|MT|Movedim|Narrow|Permute|Real|Reshape"
    r"|ReshapeAlias|ReshapeCopy|Select|Slice|Split|SplitWithSizes|Squeeze|SwapAxes|T|Transpose"
    r"|Unbind|Unflatten|Unfold|UnsafeChunk|UnsafeSplit|UnsafeSplitWithSizes|UnsafeView|Unsqueeze"
    r"|View|ViewAs|ViewAsComplex|ViewAsReal)Backward\d*"
)


@dataclass(frozen=True, slots=True)
class Units:
    """A partition of the nodes: `unit_of[node]`, and `members[unit]` with its operation first.

    Units are numbered in flow order with the leaves last; `first_leaf` is the first leaf's number.
    """

    unit_of: list[int]
    members: list[list[int]]
    first_leaf: int


def is_view(node: Node) -> bool:
    """Tell whether the forward operation only looked at its input in another shape."""
    return node.kind is NodeKind.OPERATION and _VIEWS.fullmatch(node.name) is not None


def gather_units(graph: Graph, order: list[int], *, fold_views: bool) -> Units:
    """Number the units in the order given, each view folded into the operation it serves.

    That is the one operation that uses the view, else the one operation it is a view of. Either
    way an edge is contracted that is its source's only way out or its target's only way in, so no
    cycle can arise.
    """
    views = {node.id for node in graph.nodes if fold_views and is_view(node)}
    serves = _served(order, graph.edges, views)
    unit_of = [-1] * len(order)
    members: list[list[int]] = []
    first_leaf = 0
    for node in order:
        if node not in serves:
            unit_of[node] = len(members)
            members.append([node])
            first_leaf += not graph.nodes[node].is_leaf
    for node in order:
        if node in serves:
            members[_unit_served(node, serves, unit_of)].append(node)
    return Units(unit_of, members, first_leaf)


def _unit_served(node: int, serves: dict[int, int], unit_of: list[int]) -> int:
    chain = []
    while unit_of[node] < 0:
        chain.append(node)
        node = serves[node]
    for view in chain:
        unit_of[view] = unit_of[node]
    return unit_of[node]


def _served(order: list[int], edges: Sequence[Edge], views: set[int]) -> dict[int, int]:
    """Map each view that can be folded to its neighbour on the way to the operation it serves."""
    users: dict[int, set[int]] = defaultdict(set)
    viewed: dict[int, set[int]] = defaultdict(set)
    for edge in edges:
        if edge.target in views:
            users[edge.target].add(edge.source)
        if edge.source in views:
            viewed[edge.source].add(edge.target)
    serves: dict[int, int] = {}
    downwards: set[int] = set()
    for view in filter(views.__contains__, order):
        user = next(iter(users[view])) if len(users[view]) == 1 else None
        if user is not None and user not in downwards:
            serves[view] = user
        elif len(viewed[view]) == 1:
            serves[view] = next(iter(viewed[view]))
            downwards.add(view)
    return serves
