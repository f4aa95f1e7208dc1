"""A marked tree of blocks in; which of them to show open and which closed out."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from tracer.transforms.levels import GroupKind
from tracer.transforms.nest import Block


@dataclass(slots=True, eq=False)
class Shown:
    """One or more blocks of equal shape, shown as one thing: closed, or open around `children`.

    `repeat` counts the equal neighbours that were laid on one another here; `blocks` may be more,
    where a block around them was repeated too.
    """

    blocks: list[Block]
    repeat: int
    depth: int
    children: list[Shown] = field(default_factory=list)

    @property
    def block(self) -> Block:
        """The one block that stands for all."""
        return self.blocks[0]

    @property
    def size(self) -> int:
        """The number of nodes that opening it all the way would show."""
        return self.block.stop - self.block.start


@dataclass(frozen=True, slots=True)
class Wanted:
    """The blocks to open in any case, those of them to take out of their run of equal ones, and
    the layers, which stay closed unless they are among the first."""

    opened: Set[Block] = frozenset()
    alone: Set[Block] = frozenset()
    layers: Set[Block] = frozenset()

    def can_open(self, shown: Shown) -> bool:
        """Whether there is something in it that is to be seen."""
        return bool(shown.block.children) and (
            shown.block not in self.layers or not self.opened.isdisjoint(shown.blocks)
        )


def open_all(root: Block, wanted: Wanted) -> Shown:
    """Open every block, each on its own; only modules are shown around what they hold."""
    top = Shown([root], 1, 0)
    waiting = [top]
    while waiting:
        shown = waiting.pop()
        pending = list(reversed(shown.block.children))
        while pending:
            child = pending.pop()
            if child.unit >= 0 or child.level.kind is GroupKind.MODULE:
                shown.children.append(Shown([child], 1, shown.depth + 1))
            else:
                pending += reversed(child.children)
        waiting += filter(wanted.can_open, shown.children)
    return top


def open_to_depth(root: Block, depth: int, wanted: Wanted) -> Shown:
    """Open the blocks that many levels deep, and those that are wanted."""
    top = Shown([root], 1, 0)
    waiting = [top]
    while waiting:
        shown = waiting.pop()
        if (shown.depth <= depth and wanted.can_open(shown)) or _is_wanted(shown, wanted):
            waiting += _open(shown, wanted)
    return top


def open_within_budget(root: Block, budget: int, wanted: Wanted) -> Shown:
    """Open what hides most, over and over, while there are no more boxes than the budget.

    Modules of one class and depth are opened together; where not all fit, one is, as an example.
    What is wanted is opened whatever the budget.
    """
    top = Shown([root], 1, 0)
    closed = _open_wanted(top, wanted)
    boxes = len(closed)
    closed = list(filter(wanted.can_open, closed))
    while closed:
        alike = _largest_alike(closed)
        closed = [shown for shown in closed if shown not in alike]
        if boxes + _cost(alike) > budget:
            alike = [max(alike, key=lambda shown: len(shown.blocks) * shown.size)]
        if boxes + _cost(alike) <= budget:
            boxes += _cost(alike)
            for shown in alike:
                closed += filter(wanted.can_open, _open(shown, wanted))
    return top


def _cost(opened: list[Shown]) -> int:
    return sum(len(shown.block.runs) - 1 for shown in opened)


def _open_wanted(top: Shown, wanted: Wanted) -> list[Shown]:
    closed = []
    waiting = [top]
    while waiting:
        shown = waiting.pop()
        if _is_wanted(shown, wanted):
            waiting += _open(shown, wanted)
        else:
            closed.append(shown)
    return closed


def _is_wanted(shown: Shown, wanted: Wanted) -> bool:
    return bool(wanted.opened) and not wanted.opened.isdisjoint(shown.blocks)


def _largest_alike(closed: list[Shown]) -> list[Shown]:
    """Find the largest of the closed ones, with all of its class and depth."""
    largest = max(closed, key=lambda shown: shown.size)
    if not largest.block.level.cls:
        return [largest]
    return [
        shown
        for shown in closed
        if shown.depth == largest.depth and _kind_of(shown) == _kind_of(largest)
    ]


def _kind_of(shown: Shown) -> tuple[GroupKind, str]:
    return shown.block.level.kind, shown.block.level.cls


def _open(shown: Shown, wanted: Wanted) -> list[Shown]:
    """Open it around its runs of equal children, and through children that say nothing."""
    pending = _runs_shown(shown, shown.depth + 1, wanted)[::-1]
    while pending:
        child = pending.pop()
        if _says_nothing(child):
            pending += _runs_shown(child, shown.depth + 1, wanted)[::-1]
        else:
            shown.children.append(child)
    return shown.children


def _runs_shown(shown: Shown, depth: int, wanted: Wanted) -> list[Shown]:
    """Lay the children of each run on one another, but for those that are wanted alone."""
    found = []
    for run in shown.block.runs:
        for start, stop in _cuts(shown, run, wanted):
            blocks = [block.children[n] for block in shown.blocks for n in range(start, stop)]
            is_part = blocks[0].level.kind is GroupKind.PART
            found.append(Shown(blocks, stop - start, depth - is_part))
    return found


def _cuts(shown: Shown, run: tuple[int, int], wanted: Wanted) -> list[tuple[int, int]]:
    start, stop = run
    if not wanted.alone or len(shown.blocks) > 1:
        return [run]
    cuts = []
    for number in range(*run):
        if shown.block.children[number] in wanted.alone:
            cuts += [(start, number)] * (start < number) + [(number, number + 1)]
            start = number + 1
    return cuts + [(start, stop)] * (start < stop)


def _says_nothing(shown: Shown) -> bool:
    """Tell whether a block holds one thing, or one thing repeated, and has no class to name."""
    block = shown.block
    named = block.level.kind is GroupKind.MODULE and block.level.cls
    return shown.repeat == 1 and len(block.runs) == 1 and not named
