"""Nodes and edges of a graph in; the same in a few bytes each, with once what many share, out."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, compress, repeat
from operator import attrgetter
from typing import Generic, NamedTuple, TypeVar, overload

from tracer.records.graph import (
    Edge,
    EdgesBySource,
    Graph,
    ModuleRef,
    Node,
    NodeKind,
    NodesBySort,
    SavedTensor,
    Site,
)
from tracer.records.quick import maker
from tracer.records.tensors import TensorMeta

R = TypeVar("R")
T = TypeVar("T")

Names = tuple[str, ...]
Loops = tuple[tuple[str, str], ...]
_node, _edge = maker(Node), maker(Edge)


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of how a node was made: site, operation, module, call number, names, what else
    there is to say of it, and where the loops around it stood."""

    site: Site | None = None
    op: str = ""
    module: ModuleRef | None = None
    call: int = 1
    variables: Names = ()
    note: str = ""
    loops: Loops = ()


class Sort(NamedTuple):
    """What a node is, wherever it was made: thousands of a graph are of few sorts."""

    name: str
    kind: NodeKind
    outputs: tuple[TensorMeta | None, ...]
    saved: tuple[SavedTensor, ...]
    attributes: tuple[tuple[str, str], ...]


class Operation(NamedTuple):
    """What made a node, on which line, and what else there is to say of it."""

    site: Site | None
    op: str
    note: str


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One thing that is known of each node: for each a number, by that what it stands for."""

    numbers: array[int]
    values: Sequence[T]

    def __getitem__(self, node: int) -> T:
        return self.values[self.numbers[node]]

    def __iter__(self) -> Iterator[T]:
        return map(self.values.__getitem__, self.numbers)

    def each(self, told: Callable[[T], R]) -> Iterator[R]:
        """What is told of each node by what it has, node by node."""
        return iter(Column(self.numbers, list(map(told, self.values))))


class PackedNodes(NodesBySort):
    """The nodes of a graph in some 20 bytes each, besides what they share; they are made when asked
    for.

    `sequence_nrs` has one more than the number of a node, 0 for none.
    """

    __slots__ = ("calls", "loops", "modules", "operations", "sequence_nrs", "sorts", "variables")

    def __init__(
        self,
        sorts: Column[Sort],
        operations: Column[Operation],
        variables: Column[Names],
        modules: Column[ModuleRef | None],
        loops: Column[Loops],
        calls: array[int],
        sequence_nrs: array[int],
    ) -> None:
        self.sorts = sorts
        self.operations = operations
        self.variables = variables
        self.modules = modules
        self.loops = loops
        self.calls = calls
        self.sequence_nrs = sequence_nrs

    def tell(self, what: Callable[[Sort], int]) -> bytes:
        """A byte for each node, by its sort."""
        return bytes(self.sorts.each(what))

    @property
    def leaves(self) -> tuple[Node, ...]:
        """The `AccumulateGrad` nodes, in first-visit order."""
        are_leaves = self.sorts.each(lambda sort: sort.kind is NodeKind.ACCUMULATE)
        return tuple(map(self._make, compress(range(len(self)), are_leaves)))

    def __len__(self) -> int:
        return len(self.calls)

    def __iter__(self) -> Iterator[Node]:
        sorts, operations = self.sorts, self.operations
        return map(
            _node,
            range(len(self)),
            sorts.each(attrgetter("name")),
            sorts.each(attrgetter("kind")),
            [number - 1 if number else None for number in self.sequence_nrs],
            sorts.each(attrgetter("outputs")),
            iter(self.variables),
            operations.each(attrgetter("site")),
            operations.each(attrgetter("op")),
            iter(self.modules),
            self.calls,
            iter(self.loops),
            sorts.each(attrgetter("saved")),
            sorts.each(attrgetter("attributes")),
            operations.each(attrgetter("note")),
        )

    @overload
    def __getitem__(self, index: int) -> Node: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Node, ...]: ...

    def __getitem__(self, index: int | slice) -> Node | tuple[Node, ...]:
        place = range(len(self))[index]
        return self._make(place) if isinstance(place, int) else tuple(map(self._make, place))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (PackedNodes, tuple)) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def _make(self, node: int) -> Node:
        name, kind, outputs, saved, attributes = self.sorts[node]
        site, op, note = self.operations[node]
        sequence_nr = self.sequence_nrs[node]
        made: Node = _node(
            node, name, kind, sequence_nr - 1 if sequence_nr else None, outputs,
            self.variables[node], site, op, self.modules[node], self.calls[node], self.loops[node],
            saved, attributes, note,
        )  # fmt: skip
        return made


class Packing:
    """The nodes of a graph in, one by one; packed ones out.

    Sorts and origins are told apart by the objects that they are and consist of: those who read a
    structure have the same ones for what is alike.
    """

    def __init__(self) -> None:
        self._sorts: list[Sort] = []
        self._known_sorts: dict[object, int] = {}
        self._origins: dict[int, tuple[int, Origin]] = {}
        self._sort_of: list[int] = []
        self._origin_of: list[int] = []
        self._sequence_nrs: list[int] = []

    def add(self, sort: Sort, origin: Origin, sequence_nr: int | None) -> Sort:
        """Add the next node; the sort that is kept for it."""
        name, kind, outputs, saved, attributes = sort
        key = name, id(kind), id(attributes), *map(id, outputs), *map(id, saved)
        number = self._known_sorts.setdefault(key, len(self._sorts))
        if number == len(self._sorts):
            self._sorts.append(sort)
        place = self._origins.get(id(origin))
        if place is None:
            place = self._origins[id(origin)] = len(self._origins), origin
        self._sort_of.append(number)
        self._origin_of.append(place[0])
        self._sequence_nrs.append(0 if sequence_nr is None else sequence_nr + 1)
        return self._sorts[number]

    def nodes(self) -> PackedNodes:
        """All that were added."""
        calls = [origin.call for _, origin in self._origins.values()]
        return PackedNodes(
            Column(narrow(self._sort_of), self._sorts),
            self._column(
                lambda one: (id(one.site), one.op, one.note),
                lambda one: Operation(one.site, one.op, one.note),
            ),
            self._column(attrgetter("variables"), attrgetter("variables")),
            self._column(lambda one: id(one.module), attrgetter("module")),
            self._column(attrgetter("loops"), attrgetter("loops")),
            narrow([calls[place] for place in self._origin_of]),
            narrow(self._sequence_nrs),
        )

    def _column(self, key: Callable[[Origin], Hashable], told: Callable[[Origin], T]) -> Column[T]:
        """What origins tell of nodes, once for those of the same key."""
        origins = [origin for _, origin in self._origins.values()]
        keys = list(map(key, origins))
        kept = dict(zip(keys, origins, strict=True))
        numbers = dict(zip(kept, range(len(kept)), strict=True))
        of_origins = [numbers[one] for one in keys]
        of_nodes = [of_origins[place] for place in self._origin_of]
        return Column(narrow(of_nodes), list(map(told, kept.values())))


class PackedEdges(EdgesBySource):
    """The edges of a graph by source and slot; they are made when asked for.

    `slots` is how many entries the `next_functions` of each node have; for each of them, node by
    node, `targets` is one more than the node that it leads to, 0 for none, and `input_nrs` at which
    of its inputs.
    """

    def __init__(self, slots: array[int], targets: array[int], input_nrs: array[int]) -> None:
        self.slots = slots
        self.targets = targets
        self.input_nrs = input_nrs

    @cached_property
    def starts(self) -> array[int]:
        """Where the slots of each node begin, and where the last one's end."""
        return array("I", accumulate(self.slots, initial=0))

    @cached_property
    def sources(self) -> array[int]:
        """The node that each slot is one of."""
        return narrow(list(chain.from_iterable(map(repeat, range(len(self.slots)), self.slots))))

    @property
    def by_source(self) -> Mapping[int, tuple[Edge, ...]]:
        """The edges that leave each node, by slot."""
        return _Leaving(self)

    def leaving(self, source: int) -> Iterator[Edge]:
        """The edges of one node, by slot."""
        start = self.starts[source]
        for slot in range(self.slots[source]):
            target = self.targets[start + slot]
            if target:
                yield _edge(source, slot, target - 1, self.input_nrs[start + slot])

    def __iter__(self) -> Iterator[Edge]:
        slots = chain.from_iterable(map(range, self.slots))
        ends = zip(self.sources, slots, self.targets, self.input_nrs, strict=True)
        return (_edge(source, slot, to - 1, nr) for source, slot, to, nr in ends if to)

    def __len__(self) -> int:
        return len(self.targets) - self.targets.count(0)

    @overload
    def __getitem__(self, index: int) -> Edge: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Edge, ...]: ...

    def __getitem__(self, index: int | slice) -> Edge | tuple[Edge, ...]:
        return tuple(iter(self))[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (PackedEdges, tuple)) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


class _Leaving(Mapping[int, tuple[Edge, ...]]):
    """The edges that leave each node."""

    def __init__(self, edges: PackedEdges) -> None:
        self._edges = edges

    def __getitem__(self, source: int) -> tuple[Edge, ...]:
        if not 0 <= source < len(self):
            raise KeyError(source)
        return tuple(self._edges.leaving(source))

    def __len__(self) -> int:
        return len(self._edges.slots)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))


def narrow(numbers: Sequence[int]) -> array[int]:
    """The numbers in as few bytes each, 1, 2, 4 or 8, as the greatest needs."""
    most = max(numbers, default=0)
    return array(next(code for code in "BHIQ" if most >> 8 * array(code).itemsize == 0), numbers)


def pack(graph: Graph) -> tuple[PackedNodes, PackedEdges]:
    """The nodes and edges of a graph packed, which they may be already.

    Raises ValueError where two edges leave one slot of a node.
    """
    nodes, edges = graph.nodes, graph.edges
    return (
        nodes if isinstance(nodes, PackedNodes) else _pack_nodes(nodes),
        edges if isinstance(edges, PackedEdges) else _pack_edges(edges, len(nodes)),
    )


def _pack_nodes(nodes: Iterable[Node]) -> PackedNodes:
    packing = Packing()
    sorts: dict[Sort, Sort] = {}
    origins: dict[Origin, Origin] = {}
    for node in nodes:
        sort = Sort(node.name, node.kind, node.outputs, node.saved, node.attributes)
        origin = Origin(
            node.site, node.op, node.module, node.call, node.variables, node.note, node.loops
        )
        packing.add(
            sorts.setdefault(sort, sort), origins.setdefault(origin, origin), node.sequence_nr
        )
    return packing.nodes()


def _pack_edges(edges: Iterable[Edge], nodes: int) -> PackedEdges:
    slots: list[dict[int, Edge]] = [{} for _ in range(nodes)]
    for edge in edges:
        if slots[edge.source].setdefault(edge.slot, edge) is not edge:
            raise ValueError(f"two edges leave slot {edge.slot} of node {edge.source}")
    counts = [max(leaving, default=-1) + 1 for leaving in slots]
    ends = [
        leaving.get(slot)
        for leaving, count in zip(slots, counts, strict=True)
        for slot in range(count)
    ]
    return PackedEdges(
        narrow(counts),
        narrow([0 if edge is None else edge.target + 1 for edge in ends]),
        narrow([0 if edge is None else edge.input_nr for edge in ends]),
    )
