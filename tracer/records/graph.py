"""One structure that the engine walks: nodes, edges and roots, with the source they came from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

from tracer.records.tensors import TensorMeta


class NodeKind(str, Enum):
    """What a node is to the reader of a picture."""

    OPERATION = "operation"
    ACCUMULATE = "accumulate"
    CUSTOM = "custom"
    HOOK_WRAPPER = "hook wrapper"
    COMPILED = "compiled"


@dataclass(frozen=True, slots=True)
class Site:
    """A place in source: one expression of one line of one user file.

    `expression` is the source text of the call or operator that ran (`x1 * m3`); `targets` are the
    names its value was bound to (`("x2",)`), empty when it is part of a larger expression;
    `statement` is the whole statement's text. Where the source could not be read, they are empty.
    """

    id: int
    file: str
    line: int
    function: str = "<module>"
    expression: str = ""
    targets: tuple[str, ...] = ()
    statement: str = ""

    @property
    def text(self) -> str:
        """`x2 = x1 * m3` where a name was bound, else the expression."""
        if self.targets and self.expression and self.expression != self.statement:
            return f"{', '.join(self.targets)} = {self.expression}"
        return self.expression


@dataclass(frozen=True, slots=True)
class ModuleRef:
    """The `nn.Module` that an operation ran in: path from the outermost module, class, call number.

    `parent` is the call of the module that called it, where that is known.
    """

    id: int
    path: str
    cls: str
    call: int = 1
    parent: ModuleRef | None = None


@dataclass(frozen=True, slots=True)
class SavedTensor:
    """A tensor that a node keeps for backward: attribute (`_saved_self`), what it is, its bytes."""

    attribute: str
    meta: TensorMeta | None
    nbytes: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """Our record of one `torch.autograd.graph.Node`; `id` is in first-visit order from the roots.

    `name` is `type(fn).__name__`. `sequence_nr` is None for `AccumulateGrad`. `outputs` is the
    metadata of each output of the forward operation, hence of each gradient that arrives.
    `variables` are the names the user gave to those outputs (`("x2",)`), or to the leaf of an
    `AccumulateGrad`. `op` is the qualified name of the forward function (`torch.mul`); of a node
    that a backward pass with `create_graph` made, `backward of MulBackward0`. `call` counts
    executions of the same site when the graph was built (loop iterations), from 1; `loops`
    is where the loops around it stood then, outermost first (`(("t", "3"),)`), as far as they are
    known: not those that the backward call itself is in, since a graph is shared by all passes.
    """

    id: int
    name: str
    kind: NodeKind = NodeKind.OPERATION
    sequence_nr: int | None = None
    outputs: tuple[TensorMeta | None, ...] = ()
    variables: tuple[str, ...] = ()
    site: Site | None = None
    op: str = ""
    module: ModuleRef | None = None
    call: int = 1
    loops: tuple[tuple[str, str], ...] = ()
    saved: tuple[SavedTensor, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    note: str = ""

    @property
    def is_leaf(self) -> bool:
        """Whether this is the `AccumulateGrad` of a leaf tensor."""
        return self.kind is NodeKind.ACCUMULATE


@dataclass(frozen=True, slots=True)
class Edge:
    """Entry `slot` of the source's `next_functions`: it leads to input `input_nr` of the target."""

    source: int
    slot: int
    target: int
    input_nr: int = 0


@dataclass(frozen=True, slots=True)
class Root:
    """A node that a backward call starts from, and which of the node's inputs the seed goes to."""

    node: int
    input_nr: int = 0


class NodesBySort(Sequence[Node]):
    """Nodes that are held by what they are: leaves are found without the others."""

    @property
    @abstractmethod
    def leaves(self) -> tuple[Node, ...]:
        """The `AccumulateGrad` nodes, in first-visit order."""


class EdgesBySource(Sequence[Edge]):
    """Edges that are held by source: those that leave a node are found without the others."""

    @property
    @abstractmethod
    def by_source(self) -> Mapping[int, tuple[Edge, ...]]:
        """The edges that leave each node, by slot."""


@dataclass(frozen=True)
class Graph:
    """One structure, shared by every pass that has it; `nodes[i].id == i`.

    Where it is recorded or read, nodes and edges are held packed, and records of them are made as
    they are asked for (see `packed`); they equal tuples of the same records.
    """

    id: int
    nodes: Sequence[Node]
    edges: Sequence[Edge]
    roots: tuple[Root, ...]
    digest: str = ""
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def edges_from(self) -> Mapping[int, tuple[Edge, ...]]:
        """The edges that leave each node, by slot."""
        if isinstance(self.edges, EdgesBySource):
            return self.edges.by_source
        return _group(self.edges, lambda edge: edge.source, len(self.nodes))

    @cached_property
    def edges_into(self) -> Mapping[int, tuple[Edge, ...]]:
        """The edges that arrive at each node, in the order they are stored."""
        return _group(self.edges, lambda edge: edge.target, len(self.nodes))

    @cached_property
    def unpacked(self) -> Graph:
        """The same with a record of each node and edge at hand, for who goes through them often."""
        return replace(self, nodes=tuple(self.nodes), edges=tuple(self.edges))

    @property
    def leaves(self) -> tuple[Node, ...]:
        """The `AccumulateGrad` nodes, in first-visit order."""
        if isinstance(self.nodes, NodesBySort):
            return self.nodes.leaves
        return tuple(node for node in self.nodes if node.is_leaf)


def _group(
    edges: Sequence[Edge], key: Callable[[Edge], int], size: int
) -> dict[int, tuple[Edge, ...]]:
    groups: dict[int, list[Edge]] = {node: [] for node in range(size)}
    for edge in edges:
        groups[key(edge)].append(edge)
    return {node: tuple(group) for node, group in groups.items()}
