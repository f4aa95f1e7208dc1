"""A tree of blocks in; the same tree with each block's shape and its runs of equal ones out."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import isqrt

from tracer.records.graph import Graph, Node
from tracer.transforms.levels import GroupKind, Level
from tracer.transforms.nest import UNIT, Block, in_preorder
from tracer.transforms.views import Units

_DIGITS = re.compile(r"\d+")
_COMMUTATIVE = frozenset({"AddBackward0", "MulBackward0"})
_ONE_CALL = 20  # operations of one call that stand apart; where it made more, equal ones may repeat
_LONGEST_PERIOD = 64
_PERIODS_TRIED = 6
_PART = Level(GroupKind.PART)

Link = tuple[
    int, int, int, int
]  # source, slot, target, input_nr; nodes by place in the tree's order
Run = tuple[int, int]


@dataclass(slots=True)
class _Marker:
    """What marking needs at every block: the graph, the shapes met so far, the most runs."""

    graph: Graph
    first_leaf: int
    widest: int
    nodes: list[int]
    shapes: dict[Hashable, int] = field(default_factory=dict)
    _sorts: dict[tuple[str, int], int] = field(default_factory=dict)

    def sort(self, node: Node) -> int:
        """Number what a node agrees in with those that are alike: its name and its outputs."""
        key = node.name, id(node.outputs)  # of equal nodes, most have the very same outputs
        found = self._sorts.get(key)
        if found is None:
            found = self._sorts[key] = self.shape((node.name, node.outputs))
        return found

    def shape(self, signature: Hashable) -> int:
        """Number the signatures, equal ones alike."""
        return self.shapes.setdefault(signature, len(self.shapes))


def mark_repeats(root: Block, graph: Graph, units: Units, *, widest: int) -> list[int]:
    """Give every block its shape, runs and bounds; return the nodes in the tree's own order.

    Two blocks have the same shape exactly when their nodes agree in name and metadata of outputs,
    and the edges among them agree, node for node in the tree's order; which operand of a sum or
    product is which does not matter. A stretch of children that
    repeats as a whole (`Linear, ReLU, Linear, ReLU`) is gathered into a block for each repetition.
    Where a block has more than `widest` runs, neighbours are gathered into parts.
    """
    blocks = in_preorder(root)
    nodes = _place_nodes(blocks, units)
    inside = _links_by_block(blocks, graph, units, nodes)
    marker = _Marker(graph, units.first_leaf, widest, nodes)
    for block in reversed(blocks):
        links = sorted(inside.pop(block, ()))
        if block.unit >= 0:
            _mark_unit(block, links, marker)
        else:
            _mark_group(block, links, marker)
    return nodes


def _place_nodes(blocks: list[Block], units: Units) -> list[int]:
    nodes: list[int] = []
    for block in blocks:
        block.start = len(nodes)
        if block.unit >= 0:
            nodes += units.members[block.unit]
            block.stop = len(nodes)
    for block in reversed(blocks):
        if block.children:
            block.stop = block.children[-1].stop
    return nodes


def _links_by_block(
    blocks: list[Block], graph: Graph, units: Units, nodes: list[int]
) -> dict[Block, list[Link]]:
    """Give each edge to the innermost block that holds both its ends."""
    ends = {block.unit: block for block in blocks if block.unit >= 0}
    place = [0] * len(nodes)
    for position, node in enumerate(nodes):
        place[node] = position
    inside: dict[Block, list[Link]] = defaultdict(list)
    for edge in graph.edges:
        one, other = ends[units.unit_of[edge.source]], ends[units.unit_of[edge.target]]
        while one is not other:
            if one.depth < other.depth:
                one, other = other, one
            assert one.parent is not None
            one = one.parent
        slot = 0 if graph.nodes[edge.source].name in _COMMUTATIVE else edge.slot
        inside[one].append((place[edge.source], slot, place[edge.target], edge.input_nr))
    return inside


def _mark_unit(block: Block, links: list[Link], marker: _Marker) -> None:
    nodes = marker.graph.nodes
    sorts = [marker.sort(nodes[node]) for node in marker.nodes[block.start : block.stop]]
    block.shape = marker.shape((tuple(sorts), _local(links, block.start)))


def _local(links: Sequence[Link], start: int) -> tuple[Link, ...]:
    return tuple(
        (source - start, slot, target - start, input_nr) for source, slot, target, input_nr in links
    )


def _mark_group(block: Block, links: list[Link], marker: _Marker) -> None:
    keys = _own_keys(block.children, marker)
    ungathered = block.children
    links = _gather_stretches(block, links, keys, marker)
    if block.children is not ungathered:
        keys = _own_keys(block.children, marker)
    keys = _run_keys(block.children, links, keys, marker)
    block.runs = _runs(block.children, keys)
    shapes = tuple(child.shape for child in block.children)
    block.shape = marker.shape((shapes, tuple(block.runs), _local(links, block.start)))
    _gather_parts(block, marker)


def _run_keys(
    children: Sequence[Block], links: list[Link], keys: list[Hashable], marker: _Marker
) -> list[Hashable]:
    """Say of each child what a neighbour must agree in to stand in one run with it, beside its own.

    For units and lines of source that is also where they come from; for leaves, who uses them.
    """
    operations = sum(not _is_leaf(child, marker) for child in children)
    if operations == len(children):
        return keys
    run_of = _run_numbers(_runs(children[:operations], keys[:operations]))
    starts = [child.start for child in children]
    users: dict[int, set[int]] = defaultdict(set)
    for source, _, target, _ in links:
        child = bisect_right(starts, target) - 1
        if child >= operations:
            users[child].add(run_of[bisect_right(starts, source) - 1])
    for child in range(operations, len(children)):
        keys[child] = ("leaf", keys[child], frozenset(users[child]))
    return keys


def _is_leaf(block: Block, marker: _Marker) -> bool:
    return block.unit >= marker.first_leaf


def _own_keys(blocks: Sequence[Block], marker: _Marker) -> list[Hashable]:
    """Say what each must agree in to repeat a neighbour; the few operations that one call made are
    parts of one thing (`LSTMCell`'s gates), and do not repeat one another."""
    calls = [_call(block, marker) for block in blocks]
    sizes = Counter(calls)
    made: Counter[tuple[int, int] | None] = Counter()
    keys: list[Hashable] = []
    for block, call in zip(blocks, calls, strict=True):
        key = _own_key(block, marker)
        if call is not None and sizes[call] <= _ONE_CALL:
            made[call] += 1
            key = key, made[call]
        keys.append(key)
    return keys


def _call(block: Block, marker: _Marker) -> tuple[int, int] | None:
    """Find the site and call of an operation that is no group, where they are known."""
    if block.level is not UNIT or _is_leaf(block, marker):
        return None
    node = marker.graph.nodes[marker.nodes[block.start]]
    return (node.site.id, node.call) if node.site is not None else None


def _own_key(block: Block, marker: _Marker) -> Hashable:
    """Say what a block must agree in with a neighbour to repeat it, beside its users.

    Numbered names are as good as the same name (`h.0`, `h.1`), but small parts with names of their
    own (`q_proj`, `k_proj`) stay apart. Operations and lines come from the same place in source.
    """
    level = block.level
    if level.kind is GroupKind.MODULE:
        composite = any(child.level.kind is not GroupKind.NODE for child in block.children)
        return block.shape, "" if composite else _stem(level.name)
    if level.kind in (GroupKind.LINE, GroupKind.FUNCTION):
        return block.shape, level
    if level.kind is not GroupKind.NODE:
        return block.shape
    node = marker.graph.nodes[marker.nodes[block.start]]
    if node.is_leaf:
        return block.shape, _stem(node.variables[0] if node.variables else "")
    return block.shape, node.site.id if node.site is not None else None


def _stem(name: str) -> str:
    return _DIGITS.sub("", name)


def _runs(blocks: Sequence[Block], keys: Sequence[Hashable]) -> list[Run]:
    """Cut the blocks where the key changes, and between two that differ in name."""
    runs = []
    start = 0
    for stop in range(1, len(keys) + 1):
        if stop == len(keys) or keys[stop] != keys[start]:
            twins = stop - start == 2
            if twins and _stem(blocks[start].level.name) != _stem(blocks[start + 1].level.name):
                runs += [(start, start + 1), (start + 1, stop)]
            else:
                runs.append((start, stop))
            start = stop
    return runs


def _run_numbers(runs: Sequence[Run]) -> list[int]:
    return [number for number, (start, stop) in enumerate(runs) for _ in range(start, stop)]


def _gather_stretches(
    block: Block, links: list[Link], keys: Sequence[Hashable], marker: _Marker
) -> list[Link]:
    """Gather children that repeat as a whole into blocks; return the links that stay between."""
    children = block.children
    operations = sum(not _is_leaf(child, marker) for child in children)
    if operations < 4:  # two of two are the least
        return links
    stretches = _stretches(keys[:operations])
    if not stretches:
        return links
    starts = [child.start for child in children]
    within: dict[int, list[Link]] = defaultdict(list)
    sequence_of = _sequence_numbers(stretches)
    for link in links:
        one, other = (bisect_right(starts, place) - 1 for place in (link[0], link[2]))
        if one in sequence_of and sequence_of[one] == sequence_of.get(other):
            within[sequence_of[one]].append(link)
    kept: list[Block] = []
    gathered: set[Link] = set()
    done = 0
    for start, period, count in stretches:
        sequences = [
            _sequence(block, children[first : first + period], within[first], marker)
            for first in range(start, start + period * count, period)
        ]
        if len({sequence.shape for sequence in sequences}) == 1:
            kept += [*children[done:start], *sequences]
            done = start + period * count
            for first in range(start, done, period):
                gathered.update(within[first])
    block.children = [*kept, *children[done:]]
    return [link for link in links if link not in gathered]


def _sequence_numbers(stretches: list[tuple[int, int, int]]) -> dict[int, int]:
    return {
        first + offset: first
        for start, period, count in stretches
        for first in range(start, start + period * count, period)
        for offset in range(period)
    }


def _sequence(
    parent: Block, children: Sequence[Block], links: list[Link], marker: _Marker
) -> Block:
    classes = (child.level.cls for child in reversed(children))
    level = Level(GroupKind.SEQUENCE, cls=" → ".join(filter(None, classes)))
    block = _gathered(level, parent, children)
    block.runs = _runs(children, _own_keys(children, marker))
    shapes = tuple(child.shape for child in children)
    block.shape = marker.shape((shapes, tuple(block.runs), _local(links, block.start)))
    return block


def _gathered(level: Level, parent: Block, children: Sequence[Block]) -> Block:
    block = Block(level, parent, parent.depth + 1, -1, children)
    for child in children:
        child.parent = block
    block.start, block.stop = children[0].start, children[-1].stop
    return block


def _stretches(keys: Sequence[Hashable]) -> list[tuple[int, int, int]]:
    """Find where two or more neighbours repeat as a whole: start, how many, how often.

    Looks from the end, which comes first in forward order: there a repetition begins as it reads.
    """
    keys = keys[::-1]
    following: list[int] = [len(keys)] * len(keys)
    seen: dict[Hashable, int] = {}
    for position in range(len(keys) - 1, -1, -1):
        following[position] = seen.get(keys[position], len(keys))
        seen[keys[position]] = position
    found = []
    position = 0
    while position < len(keys):
        period, count = _best_period(keys, following, position)
        position += period * count
        if period > 1:
            found.append((len(keys) - position, period, count))
    return found[::-1]


def _best_period(keys: Sequence[Hashable], following: list[int], start: int) -> tuple[int, int]:
    best = (1, 1)
    again = following[start]
    for _ in range(_PERIODS_TRIED):
        period = again - start
        if again >= len(keys) or period > _LONGEST_PERIOD:
            break
        position = start
        while position + period < len(keys) and keys[position] == keys[position + period]:
            position += 1
        count = (position - start) // period + 1
        if count > 1 and period * count > best[0] * best[1]:
            best = (period, count)
        again = following[again]
    return best


def _gather_parts(block: Block, marker: _Marker) -> None:
    """Gather runs of a block, and of its parts, until none has more than the widest may have."""
    waiting = [block]
    while waiting:
        wide = waiting.pop()
        if len(wide.runs) > marker.widest:
            parts = _parts(wide, marker)
            wide.children = parts
            wide.runs = [(number, number + 1) for number in range(len(parts))]
            waiting += parts


def _parts(block: Block, marker: _Marker) -> list[Block]:
    leaves = sum(_is_leaf(block.children[start], marker) for start, _ in block.runs)
    operations = len(block.runs) - leaves
    most_leaves = marker.widest // 3 if operations else marker.widest
    few_leaves = _even_cuts(operations, len(block.runs), most_leaves)
    cuts = _even_cuts(0, operations, marker.widest - len(few_leaves)) + few_leaves
    parts = []
    for first, last in cuts:
        runs = block.runs[first:last]
        begin = runs[0][0]
        part = _gathered(_PART, block, block.children[begin : runs[-1][1]])
        part.runs = [(start - begin, stop - begin) for start, stop in runs]
        parts.append(part)
    return parts


def _even_cuts(start: int, stop: int, most: int) -> list[Run]:
    """Cut a range into about as many pieces as each has items, or one for each where few."""
    size = stop - start
    pieces = size if size <= most else min(most, isqrt(size) + 1)
    return [
        (start + size * piece // pieces, start + size * (piece + 1) // pieces)
        for piece in range(pieces)
    ]
