"""Units with what each belongs to in; a tree of blocks of which every cut is acyclic, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracer.transforms.levels import GroupKind, Level, Path
from tracer.transforms.order import Links, sorted_by_links, tangled

ROOT = Level(GroupKind.PART)
UNIT = Level(GroupKind.NODE)


@dataclass(slots=True, eq=False)
class Block:
    """A group of units: a tree, with one unit at each of its ends.

    `level` says what the block is; a unit's is the module that it alone makes up, else `UNIT`.
    After `mark_repeats` has seen it, `shape` is equal for blocks of equal structure, `runs` are the
    stretches of equal `children`, and `start` and `stop` bound its nodes in the tree's own order.
    """

    level: Level
    parent: Block | None
    depth: int
    unit: int = -1
    children: Sequence[Block] = ()
    shape: int = -1
    runs: Sequence[tuple[int, int]] = ()
    start: int = 0
    stop: int = 0


def nest_units(
    levels: Sequence[Level], paths: Sequence[Path], links: Links
) -> tuple[Block, list[Block]]:
    """Nest the units into blocks by their paths; return the tree and the block of each unit.

    The children of each block are in flow order, and no cycle leads through them: where one would,
    its blocks are split. Hence none leads through any choice of blocks that covers the tree.
    `links` lead from unit to unit; those past the end of `paths` do not count.
    """
    root = Block(ROOT, None, 0)
    ends = [root] * len(paths)
    waiting = [(root, list(range(len(paths))), 0)]
    while waiting:
        block, units, known = waiting.pop()
        if len(units) == 1:  # as most are, in a large graph
            ends[units[0]] = _nest_one(
                block, units[0], [levels[key] for key in paths[units[0]][known:]]
            )
            continue
        parts = _parts(units, known, paths, links)
        depth = block.depth + 1
        block.children = [Block(UNIT if key < 0 else levels[key], block, depth) for key, _ in parts]
        for child, (key, members) in zip(block.children, parts, strict=True):
            if key < 0:
                child.unit = members[0]
                ends[members[0]] = child
            else:
                waiting.append((child, members, known + 1))
    return root, ends


def _nest_one(block: Block, unit: int, levels: Sequence[Level]) -> Block:
    """Nest a unit that is alone in a block by what is left of its path; return the unit's block."""
    for level in (*levels, UNIT):
        child = Block(level, block, block.depth + 1)
        block.children = [child]
        block = child
    block.unit = unit
    return block


def _parts(
    units: list[int], known: int, paths: Sequence[Path], links: Links
) -> list[tuple[int, list[int]]]:
    """Part the units by the next level of their paths, in flow order and without a cycle.

    A unit whose path ends is a part of its own, with the key -1.
    """
    keys = [paths[unit][known] if len(paths[unit]) > known else -1 - unit for unit in units]
    stretches: list[tuple[int, list[int]]] = []
    last = None
    for unit, key in zip(units, keys, strict=True):
        if key == last:
            stretches[-1][1].append(unit)
        else:
            stretches.append((key, [unit]))
            last = key
    if len({key for key, _ in stretches}) < len(stretches):
        stretches = _joined(units, keys, links)
    return [(max(key, -1), members) for key, members in stretches]


def _joined(units: list[int], keys: list[int], links: Links) -> list[tuple[int, list[int]]]:
    """Join the units of each key, but not those whose part would be on a cycle."""
    owner = dict(zip(units, keys, strict=True))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    owner = {unit: numbers[key] for unit, key in owner.items()}
    parts = _part_links(owner, len(numbers), links)
    split = tangled(parts)
    if split:
        last = None
        fresh = len(numbers)
        for unit, part in owner.items():
            if part in split:
                fresh += part != last
                owner[unit] = fresh - 1
                last = part
    return _in_order(owner, dict(zip(units, keys, strict=True)), links)


def _in_order(
    owner: dict[int, int], keys: dict[int, int], links: Links
) -> list[tuple[int, list[int]]]:
    numbers: dict[int, int] = {}
    members: list[tuple[int, list[int]]] = []
    for unit, part in owner.items():
        if part not in numbers:
            numbers[part] = len(members)
            members.append((keys[unit], []))
        members[numbers[part]][1].append(unit)
    owner = {unit: numbers[part] for unit, part in owner.items()}
    order = sorted_by_links(_part_links(owner, len(members), links), range(len(members)))
    return [members[part] for part in order]


def _part_links(owner: dict[int, int], count: int, links: Links) -> list[list[int]]:
    found: list[set[int]] = [set() for _ in range(count)]
    for unit, part in owner.items():
        for target in links[unit]:
            other = owner.get(target, part)
            if other != part:
                found[part].add(other)
    return [sorted(targets) for targets in found]


def in_preorder(root: Block) -> list[Block]:
    """List the blocks of the tree, each before its children."""
    blocks = []
    waiting = [root]
    while waiting:
        block = waiting.pop()
        blocks.append(block)
        waiting += reversed(block.children)
    return blocks


def drop_idle_blocks(root: Block) -> None:
    """Leave out blocks that hold one block and say nothing of it; a unit becomes its module."""
    for block in reversed(in_preorder(root)):
        if block.children:
            block.children = [_stand_in(child) for child in block.children]
    for block in in_preorder(root):
        for child in block.children:
            child.parent, child.depth = block, block.depth + 1


def _stand_in(block: Block) -> Block:
    if len(block.children) != 1:
        return block
    (only,) = block.children
    if only.unit >= 0:
        if only.level is UNIT and block.level.kind is GroupKind.MODULE:
            only.level = block.level
        return only
    if not _is_named_module(block):
        return only
    if not _is_named_module(only):
        block.children = only.children
    return block


def _is_named_module(block: Block) -> bool:
    return block.level.kind is GroupKind.MODULE and bool(block.level.cls)
