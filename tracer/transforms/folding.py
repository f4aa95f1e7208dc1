"""Records of a folded graph: the groups that a picture shows, nested, and what joins them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from tracer.records.graph import Edge
from tracer.transforms.levels import GroupKind


@dataclass(frozen=True, slots=True)
class Group:
    """Some nodes shown as one box, or, where it has `children`, as a region around other groups.

    `label` names it within the module around it, `name` in full: what `expand` takes.
    `members` are the ids of all its nodes, ascending. `repeat` says how many equal neighbours were
    laid on one another to make it; `blocks` holds the nodes of each, node for node alike and in
    flow order, and has more where a group around it repeats too. `main` is the one operation, or
    the leaf, that names a box: one of kind `node`, or a module of an operation and its parameters.
    """

    id: int
    kind: GroupKind
    label: str
    cls: str
    name: str
    parent: int | None
    members: tuple[int, ...]
    blocks: tuple[tuple[int, ...], ...]
    repeat: int = 1
    main: int | None = None
    children: tuple[int, ...] = ()

    @property
    def is_box(self) -> bool:
        """Whether it is shown closed."""
        return not self.children


@dataclass(frozen=True, slots=True)
class GroupEdge:
    """All edges that lead from one box to another. `carried` ones lead from one repetition of an
    open group to another (from step 3 to step 2), the only ones that may lead back."""

    source: int
    target: int
    members: tuple[Edge, ...]
    carried: bool = False


@dataclass(frozen=True)
class Folding:
    """A partition of a graph's nodes into boxes, in nested groups; `groups[i].id == i`.

    Parents come before their children, and siblings in the order that gradients flow.
    `box_of[node]` is the box that holds a node. Where only a part of a graph was folded, its other
    nodes are in none. Without the carried ones the edges form no cycle.
    """

    groups: tuple[Group, ...]
    edges: tuple[GroupEdge, ...]
    box_of: Mapping[int, int]

    @property
    def boxes(self) -> tuple[Group, ...]:
        """The groups shown closed: every node is in exactly one."""
        return tuple(group for group in self.groups if group.is_box)

    @property
    def regions(self) -> tuple[Group, ...]:
        """The groups shown open, around others."""
        return tuple(group for group in self.groups if not group.is_box)

    @cached_property
    def edges_between(self) -> Mapping[tuple[int, int], GroupEdge]:
        """The edges that are not carried, by their boxes."""
        return {(edge.source, edge.target): edge for edge in self.edges if not edge.carried}
