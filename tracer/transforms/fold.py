"""A graph of any size in; the few nested groups of its nodes that a reader can take in, out."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

from tracer.records.collection import no_collection
from tracer.records.graph import Graph
from tracer.records.view import View
from tracer.transforms.assembly import assemble
from tracer.transforms.belonging import unit_paths
from tracer.transforms.find import in_module, no_such_name
from tracer.transforms.focus import Part, cut_out
from tracer.transforms.folding import Folding
from tracer.transforms.frontier import (
    Shown,
    Wanted,
    open_all,
    open_to_depth,
    open_within_budget,
)
from tracer.transforms.layers import find_layers
from tracer.transforms.leaves import hang_leaves
from tracer.transforms.levels import Level
from tracer.transforms.nest import Block, drop_idle_blocks, in_preorder, nest_units
from tracer.transforms.order import flow_order
from tracer.transforms.repeats import mark_repeats
from tracer.transforms.views import Units, gather_units

_WIDEST = 40
_NARROWEST = 4


def fold(graph: Graph, wishes: View | None = None, part: Part | None = None) -> Folding:
    """Group a graph's nodes so that at most `wishes.budget` boxes show the whole of it.

    Views are folded into the operation they serve. Groups are modules, and where there are none
    functions, lines and loop iterations; equal neighbours are laid on one another. A graph with no
    more operations and leaves than the budget has a box for each. Of a `part` only its nodes are
    grouped. Raises NotInTraceError for a name in `expand` that the graph does not hold.
    """
    wishes = wishes or View()
    with no_collection():
        if part is None:
            return _fold(graph, wishes)
        smaller, ids = cut_out(graph, part.nodes)
        asked = set(part.targets)
        targets = {number for number, old in enumerate(ids) if old in asked}
        return _with_ids(_fold(smaller, wishes, targets), ids)


def _fold(graph: Graph, wishes: View, targets: Set[int] = frozenset()) -> Folding:
    fold_views = wishes.fold and "views" not in wishes.show
    units = gather_units(graph, flow_order(graph), fold_views=fold_views)
    levels, paths = unit_paths(graph, units)
    root, ends = nest_units(levels, paths, _unit_links(graph, units))
    hang_leaves(root, ends, graph, units)
    drop_idle_blocks(root)
    widest = max(_NARROWEST, min(_WIDEST, wishes.budget))
    nodes = mark_repeats(root, graph, units, widest=widest)
    for name in wishes.expand:
        _check_name(name, levels, graph)
    layers = find_layers(root, units.first_leaf) if _joins_parameters(wishes) else {}
    layers = {
        block: operation
        for block, operation in layers.items()
        if _is_one(nodes[block.start : block.stop], targets)
    }
    return assemble(_shown(root, units, wishes, layers), graph, nodes, layers)


def _is_one(nodes: list[int], targets: Set[int]) -> bool:
    """Tell whether a reader asked for all of the nodes, or none: a parameter that was asked for is
    shown apart from its operation."""
    return len(targets & set(nodes)) in (0, len(nodes))


def _joins_parameters(wishes: View) -> bool:
    return wishes.fold and "accumulate" not in wishes.show


def _with_ids(folding: Folding, ids: tuple[int, ...]) -> Folding:
    """Write the nodes of a folding with the ids that they had before they were cut out."""
    groups = tuple(
        replace(
            group,
            members=tuple(ids[node] for node in group.members),
            blocks=tuple(tuple(ids[node] for node in block) for block in group.blocks),
            main=None if group.main is None else ids[group.main],
        )
        for group in folding.groups
    )
    edges = tuple(
        replace(
            joined,
            members=tuple(
                replace(e, source=ids[e.source], target=ids[e.target]) for e in joined.members
            ),
        )
        for joined in folding.edges
    )
    return Folding(groups, edges, {ids[node]: box for node, box in folding.box_of.items()})


def _check_name(name: str, levels: list[Level], graph: Graph) -> None:
    """Accept what a group is called, and a module all of which is folded into others."""
    known = any(_has_name(level, name) for level in levels)
    if not known and not any(in_module(node, name) for node in graph.nodes):
        raise no_such_name(name, (level.name for level in levels))


def _unit_links(graph: Graph, units: Units) -> list[list[int]]:
    links: list[list[int]] = [[] for _ in units.members]
    for edge in graph.edges:
        source, target = units.unit_of[edge.source], units.unit_of[edge.target]
        if source != target:
            links[source].append(target)
    return links


def _shown(root: Block, units: Units, wishes: View, layers: Mapping[Block, Block]) -> Shown:
    wanted = replace(_wanted(root, wishes.expand), layers=layers.keys())
    if not wishes.fold or (wishes.depth is None and len(units.members) <= wishes.budget):
        return open_all(root, wanted)
    if wishes.depth is not None:
        return open_to_depth(root, wishes.depth, wanted)
    return open_within_budget(root, wishes.budget, wanted)


def _wanted(root: Block, names: tuple[str, ...]) -> Wanted:
    """Find the blocks that are named, and those around them, which have to be opened too.

    A name that only one block has takes it out of its run of equal ones.
    """
    if not names:
        return Wanted()
    opened: set[Block] = set()
    alone: set[Block] = set()
    blocks = in_preorder(root)
    for name in names:
        found = [block for block in blocks if _has_name(block.level, name)]
        around = {parent for block in found for parent in _upwards(block)}
        opened |= around
        if len(found) == 1:
            alone |= around
    return Wanted(opened, alone)


def _has_name(level: Level, name: str) -> bool:
    return level.name == name or (bool(name) and level.name.endswith(f".{name}"))


def _upwards(block: Block) -> list[Block]:
    found = [block]
    while found[-1].parent is not None:
        found.append(found[-1].parent)
    return found
