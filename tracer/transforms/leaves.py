"""A tree of operations and the leaves of its graph in; the same tree with the leaves in it out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tracer.records.graph import Graph, Node
from tracer.transforms.levels import GroupKind
from tracer.transforms.nest import UNIT, Block
from tracer.transforms.views import Units

Use = tuple[str, int | None, str, int]  # a user's operation and site; the node that reads, its slot


def hang_leaves(root: Block, ends: list[Block], graph: Graph, units: Units) -> None:
    """Put each leaf after the operations of the block that it belongs to.

    `ends` are the blocks of the units that are no leaves. A leaf belongs where all its users are,
    but a module's parameter to that module, a plain variable outside of modules, and what one
    iteration alone takes from outside (the state that the first begins with) outside of the loop.
    """
    users, uses = _users(ends, graph, units)
    homes = {
        leaf: _home(found, graph.nodes[units.members[leaf][0]]) for leaf, found in users.items()
    }
    seen = _iterations_by_use(homes, uses)
    hung: dict[Block, list[Block]] = defaultdict(list)
    for leaf, home in homes.items():
        home = _outside_of_loops(home, uses[leaf], seen)
        hung[home].append(Block(UNIT, home, home.depth + 1, leaf))
    for leaf in range(len(ends), len(units.members)):
        if leaf not in homes:
            hung[root].append(Block(UNIT, root, 1, leaf))
    for home, blocks in hung.items():
        home.children = [*home.children, *blocks]


def _users(
    ends: list[Block], graph: Graph, units: Units
) -> tuple[dict[int, list[Block]], dict[int, set[Use]]]:
    """List the blocks that use each leaf, in flow order, and what each of its uses looks like."""
    found: list[tuple[int, int, int, Use]] = []
    for edge in graph.edges:
        user, leaf = units.unit_of[edge.source], units.unit_of[edge.target]
        if leaf >= len(ends) > user:
            main = graph.nodes[units.members[user][0]]
            site = main.site.id if main.site is not None else None
            use = (main.name, site, graph.nodes[edge.source].name, edge.slot)
            found.append((user, edge.slot, leaf, use))
    users: dict[int, list[Block]] = defaultdict(list)
    uses: dict[int, set[Use]] = defaultdict(set)
    for user, _, leaf, use in sorted(found, key=lambda item: item[:3]):
        users[leaf].append(ends[user])
        uses[leaf].add(use)
    return users, uses


def _home(users: list[Block], leaf: Node) -> Block:
    """Find the innermost block around all users that is no line or loop; or the owning module."""
    home = users[0].parent or users[0]
    for user in users:
        home = _shared(home, user)
    while home.parent is not None and home.level.kind in (GroupKind.LINE, GroupKind.LOOP):
        home = home.parent
    name = leaf.variables[0] if leaf.variables else ""
    modules = [block for block in _outwards(home) if block.level.kind is GroupKind.MODULE]
    for module in modules:
        if name.startswith(f"{module.level.name}."):
            return module
    if modules and name.isidentifier():
        return modules[-1].parent or home
    return home


def _shared(one: Block, other: Block) -> Block:
    while one is not other:
        if one.depth < other.depth:
            one, other = other, one
        assert one.parent is not None
        one = one.parent
    return one


def _outwards(block: Block) -> Iterator[Block]:
    current: Block | None = block
    while current is not None:
        yield current
        current = current.parent


def _iterations_by_use(
    homes: dict[int, Block], uses: dict[int, set[Use]]
) -> dict[tuple[Block, Use], set[Block]]:
    """Gather the iterations of each loop that have a leaf of their own for the same use."""
    seen: dict[tuple[Block, Use], set[Block]] = defaultdict(set)
    for leaf, home in homes.items():
        for block in _outwards(home):
            if block.level.kind is GroupKind.ITERATION and block.parent is not None:
                for use in uses[leaf]:
                    seen[block.parent, use].add(block)
    return seen


def _outside_of_loops(
    home: Block, uses: set[Use], seen: dict[tuple[Block, Use], set[Block]]
) -> Block:
    for block in _outwards(home):
        loop = block.parent
        if block.level.kind is GroupKind.ITERATION and loop is not None:
            alone = all(len(seen[loop, use]) == 1 for use in uses)
            if alone and len(loop.children) > 1 and loop.parent is not None:
                home = loop.parent
    return home
