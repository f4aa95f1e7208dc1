"""Blocks shown as one in; the words that name them out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tracer.records import words
from tracer.records.graph import Graph
from tracer.transforms.frontier import Shown
from tracer.transforms.levels import GroupKind
from tracer.transforms.nest import Block

_MOST_NAMED = 4
_UNNAMED = (GroupKind.SEQUENCE, GroupKind.PART)
_GENERATED = re.compile(r"Backward\d*$")


def span(first: str, last: str) -> str:
    """Write a range of dotted names, once where they agree: `h.0` to `h.11` is `h.0–11`."""
    if first == last:
        return first
    one, other = first.split("."), last.split(".")
    shared = 0
    while shared < min(len(one), len(other)) - 1 and one[shared] == other[shared]:
        shared += 1
    return f"{first}–{'.'.join(other[shared:])}"


class Labels:
    """Names what is shown of one graph; `nodes` are its nodes in the tree's order."""

    def __init__(self, graph: Graph, nodes: list[int]) -> None:
        self._graph = graph
        self._nodes = nodes

    def of(self, shown: Shown, around: str) -> tuple[str, str, str]:
        """Name what is shown: its label inside the module `around`, its class, its full name."""
        first, last = shown.blocks[shown.repeat - 1], shown.blocks[0]  # in forward order
        level = first.level
        if level.kind is GroupKind.NODE:
            return self._node(first, shown.blocks, around), "", ""
        if level.kind is GroupKind.SEQUENCE:
            return (*self._sequence(first, last, around), "")
        if level.kind is GroupKind.PART:
            ends = self._name(_end(first, -1), around), self._name(_end(last, 0), around)
            return " … ".join(dict.fromkeys(ends)), "", ""
        if level.kind is GroupKind.MODULE:
            name = span(level.name, last.level.name)
            return _within(name, around), level.cls, name
        together = level.together if shown.repeat > 1 else ""
        if around and around == (together or level.label):
            return "calls" if shown.repeat > 1 else "call", "", level.name
        return _within(together or level.label, around), level.cls, level.name

    def _node(self, first: Block, blocks: Sequence[Block], around: str) -> str:
        """Name an operation by its source, leaves from the first to the last of them."""
        node = self._graph.nodes[self._nodes[first.start]]
        name = words.node_title(node)
        if not node.is_leaf or (around and name.startswith(f"{around}.")):
            return _within(name, around)
        ends = [self._name(block, around) for block in (blocks[0], blocks[-1])]
        return span(*sorted(ends, key=lambda name: (len(name), name)))

    def _sequence(self, first: Block, last: Block, around: str) -> tuple[str, str]:
        children = first.children[::-1]
        if len(children) > _MOST_NAMED:
            shortened = [self._what(child) for child in children[: _MOST_NAMED - 1]]
            classes = " → ".join([*shortened, "…"])
        else:
            classes = " → ".join(self._what(child) for child in children)
        if all(child.level.kind is GroupKind.MODULE for child in children):
            ends = self._name(first.children[-1], around), self._name(last.children[0], around)
            return span(*ends), classes
        return classes, ""

    def _name(self, block: Block, around: str) -> str:
        if block.level.kind is GroupKind.NODE:
            return _within(words.node_title(self._graph.nodes[self._nodes[block.start]]), around)
        if block.level.kind is GroupKind.MODULE:
            return _within(block.level.name, around)
        return block.level.label

    def _what(self, block: Block) -> str:
        if block.level.kind is not GroupKind.NODE:
            return block.level.cls or block.level.label
        return _GENERATED.sub("", self._graph.nodes[self._nodes[block.start]].name)


def _end(block: Block, index: int) -> Block:
    while block.children and block.level.kind in _UNNAMED:
        block = block.children[index]
    return block


def _within(path: str, around: str) -> str:
    return path.removeprefix(f"{around}.") if around else path
