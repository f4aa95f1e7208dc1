"""What to show of a tree of blocks in; the folding, with the edges between its boxes, out."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from tracer.records.graph import Edge, Graph
from tracer.transforms.folding import Folding, Group, GroupEdge
from tracer.transforms.frontier import Shown
from tracer.transforms.labels import Labels
from tracer.transforms.levels import GroupKind
from tracer.transforms.nest import Block


@dataclass(frozen=True, slots=True)
class _Numbered:
    """What is shown, by number, parents first: the number it is in, and the module around it."""

    shown: Shown
    parent: int | None
    around: str


def assemble(top: Shown, graph: Graph, nodes: list[int], layers: Mapping[Block, Block]) -> Folding:
    """Number what is shown and gather the edges; `nodes` are the graph's in the tree's order, and
    `layers` the blocks that are named after the one operation in them."""
    numbered = _number(top)
    groups = _groups(numbered, graph, nodes, layers)
    box_of = {node: group.id for group in groups if group.is_box for node in group.members}
    edges = _edges(graph, box_of, _Insides(numbered, top, nodes))
    return Folding(groups, edges, box_of)


def _number(top: Shown) -> list[_Numbered]:
    numbered: list[_Numbered] = []
    waiting = [_Numbered(shown, None, "") for shown in _framed(top) or [top][: top.size]]
    while waiting:
        current = waiting.pop()
        level = current.shown.block.level
        around = level.name if level.kind is GroupKind.MODULE else current.around
        number = len(numbered)
        numbered.append(current)
        waiting += [_Numbered(child, number, around) for child in _framed(current.shown)]
    return numbered


def _framed(shown: Shown) -> list[Shown]:
    """List its children, the last first; those of an open part stand in its place."""
    found = []
    waiting = list(shown.children)
    while waiting:
        child = waiting.pop()
        if child.children and child.block.level.kind is GroupKind.PART:
            waiting += child.children
        else:
            found.append(child)
    return found


def _groups(
    numbered: list[_Numbered], graph: Graph, nodes: list[int], layers: Mapping[Block, Block]
) -> tuple[Group, ...]:
    labels = Labels(graph, nodes)
    children: dict[int | None, list[int]] = defaultdict(list)
    for number, item in enumerate(numbered):
        children[item.parent].append(number)
    groups = []
    for number, (item, inside) in enumerate((item, children[n]) for n, item in enumerate(numbered)):
        shown, block, level = item.shown, item.shown.block, item.shown.block.level
        label, cls, name = labels.of(shown, item.around)
        is_unit = block.unit >= 0
        main = block if is_unit else None if inside else layers.get(block)
        groups.append(
            Group(
                id=number,
                kind=GroupKind.NODE if is_unit else level.kind,
                label=label,
                cls=cls,
                name=name,
                parent=item.parent,
                members=tuple(sorted(n for b in shown.blocks for n in nodes[b.start : b.stop])),
                blocks=tuple(tuple(nodes[b.start : b.stop]) for b in shown.blocks),
                repeat=shown.repeat,
                main=None if main is None else nodes[main.start],
                children=tuple(inside),
            )
        )
    return tuple(groups)


class _Insides:
    """Tells whether an edge stays in one repetition of whatever is open around both its ends."""

    def __init__(self, numbered: list[_Numbered], top: Shown, nodes: list[int]) -> None:
        self._shown = [item.shown for item in numbered]
        self._parents = [item.parent for item in numbered]
        self._place = [0] * len(nodes)
        for position, node in enumerate(nodes):
            self._place[node] = position
        self._starts: dict[tuple[int, int], list[int]] = {}

    def is_carried(self, edge: Edge, source: int, target: int) -> bool:
        """Tell whether it leads from one repetition to another; the boxes of its ends are given."""
        starts = self._starts.get((source, target))
        if starts is None:
            starts = self._starts[source, target] = self._repetitions(source, target)
        if len(starts) < 2:
            return False
        ends = self._place[edge.source], self._place[edge.target]
        return bisect_right(starts, ends[0]) != bisect_right(starts, ends[1])

    def _repetitions(self, source: int, target: int) -> list[int]:
        """List where the blocks of the innermost group around both boxes start."""
        around = set(self._ancestors(source))
        shared = next((group for group in self._ancestors(target) if group in around), None)
        return [] if shared is None else [block.start for block in self._shown[shared].blocks]

    def _ancestors(self, group: int) -> list[int]:
        found = []
        parent = self._parents[group]
        while parent is not None:
            found.append(parent)
            parent = self._parents[parent]
        return found


def _edges(graph: Graph, box_of: dict[int, int], insides: _Insides) -> tuple[GroupEdge, ...]:
    gathered: dict[tuple[int, int, bool], list[Edge]] = defaultdict(list)
    for edge in graph.edges:
        source, target = box_of[edge.source], box_of[edge.target]
        carried = insides.is_carried(edge, source, target)
        if carried or source != target:
            gathered[source, target, carried].append(edge)
    return tuple(
        GroupEdge(source, target, tuple(edges), carried)
        for (source, target, carried), edges in sorted(gathered.items(), key=lambda item: item[0])
    )
