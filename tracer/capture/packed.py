"""The nodes of a structure in, one by one; a graph that holds once what they have in common out."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

from tracer.records.graph import Edge, Graph, ModuleRef, Node, NodeKind, SavedTensor, Site
from tracer.records.quick import maker
from tracer.records.tensors import TensorMeta

_node, _edge = maker(Node), maker(Edge)


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of how a node was made: site, operation, module, call number, names, what else
    there is to say of it, and where the loops around it stood."""

    site: Site | None = None
    op: str = ""
    module: ModuleRef | None = None
    call: int = 1
    variables: tuple[str, ...] = ()
    note: str = ""
    loops: tuple[tuple[str, str], ...] = ()


class Sort(NamedTuple):
    """What a node is, wherever it was made: thousands of a graph are of few sorts."""

    name: str
    kind: NodeKind
    outputs: tuple[TensorMeta | None, ...]
    saved: tuple[SavedTensor, ...]
    attributes: tuple[tuple[str, str], ...]


class PackedNodes(Sequence[Node]):
    """The nodes of a graph in 16 bytes each, besides their sorts and origins; one that is asked for
    is made anew.

    Sorts and origins are told apart by the objects that they are and consist of: those who read a
    structure have the same ones for what is alike.
    """

    __slots__ = (
        "_known_origins", "_known_sorts", "_origin_of", "_origins", "_sequence_nrs", "_sort_of",
        "_sorts",
    )  # fmt: skip

    def __init__(self) -> None:
        self._sorts: list[Sort] = []
        self._origins: list[Origin] = []
        self._sort_of, self._origin_of = array("I"), array("I")
        self._sequence_nrs = array("Q")
        self._known_sorts: dict[object, int] = {}
        self._known_origins: dict[int, int] = {}

    def add(self, sort: Sort, origin: Origin, sequence_nr: int) -> Sort:
        """Add the next node; the sort that is kept for it."""
        name, kind, outputs, saved, attributes = sort
        key = name, id(kind), (*map(id, outputs),), (*map(id, saved),), id(attributes)
        number = self._known_sorts.setdefault(key, len(self._sorts))
        if number == len(self._sorts):
            self._sorts.append(sort)
        place = self._known_origins.setdefault(id(origin), len(self._origins))
        if place == len(self._origins):
            self._origins.append(origin)
        self._sort_of.append(number)
        self._origin_of.append(place)
        self._sequence_nrs.append(sequence_nr)
        return self._sorts[number]

    def close(self) -> None:
        """Say that no more are added."""
        self._known_sorts.clear()
        self._known_origins.clear()

    def tell(self, what: Callable[[Sort], int]) -> bytes:
        """A byte for each node, by its sort."""
        told = [what(sort) for sort in self._sorts]
        return bytes(map(told.__getitem__, self._sort_of))

    def __len__(self) -> int:
        return len(self._sort_of)

    def __iter__(self) -> Iterator[Node]:
        return map(self._node, range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Node: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Node, ...]: ...

    def __getitem__(self, index: int | slice) -> Node | tuple[Node, ...]:
        place = range(len(self))[index]
        return self._node(place) if isinstance(place, int) else tuple(map(self._node, place))

    def _node(self, number: int) -> Node:
        name, kind, outputs, saved, attributes = self._sorts[self._sort_of[number]]
        origin = self._origins[self._origin_of[number]]
        made: Node = _node(
            number, name, kind,
            None if kind is NodeKind.ACCUMULATE else self._sequence_nrs[number],
            outputs, origin.variables, origin.site, origin.op, origin.module, origin.call,
            origin.loops, saved, attributes, origin.note or _note(name, origin.op),
        )  # fmt: skip
        return made


def _note(name: str, op: str) -> str:
    """What else a reader must know of such a node."""
    if name == "CopySlices":
        return f"in-place on a view: {op or 'the operation'} runs inside, where nothing can be seen"
    if name == "CompiledFunctionBackward":
        return "torch.compile: what it compiled runs as one node"
    if name == "DifferentiableGraphBackward":
        return "TorchScript: what it compiled runs as one node"
    return ""


class PackedEdges(Sequence[Edge]):
    """The edges of a graph by source and slot, as `Walk.links` has them: they are made when asked
    for."""

    __slots__ = ("_links", "_starts")

    def __init__(self, links: bytes) -> None:
        self._links = memoryview(links).cast("i")
        self._starts = array("I")

    def leaving(self, source: int) -> Iterator[Edge]:
        """The edges of one node, by slot."""
        starts = self._starts or self._find_starts()
        return self._at(source, starts[source])

    def _find_starts(self) -> array[int]:
        at, links = 0, self._links
        while at < len(links):
            self._starts.append(at)
            at += 1 + 2 * links[at]
        return self._starts

    def _at(self, source: int, start: int) -> Iterator[Edge]:
        links = self._links
        for slot in range(links[start]):
            target, input_nr = links[start + 1 + 2 * slot : start + 3 + 2 * slot]
            if target >= 0:
                yield _edge(source, slot, target, input_nr)

    def __iter__(self) -> Iterator[Edge]:
        for source, start in enumerate(self._starts or self._find_starts()):
            yield from self._at(source, start)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @overload
    def __getitem__(self, index: int) -> Edge: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Edge, ...]: ...

    def __getitem__(self, index: int | slice) -> Edge | tuple[Edge, ...]:
        return tuple(iter(self))[index]


class _Leaving(Mapping[int, tuple[Edge, ...]]):
    """The edges that leave each node."""

    def __init__(self, graph: PackedGraph) -> None:
        self._graph = graph

    def __getitem__(self, source: int) -> tuple[Edge, ...]:
        if not 0 <= source < len(self):
            raise KeyError(source)
        return tuple(self._graph.edges.leaving(source))

    def __len__(self) -> int:
        return len(self._graph.nodes)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))


@dataclass(frozen=True)
class PackedGraph(Graph):
    """A graph while passes over it are recorded: in a tenth of the memory of its records."""

    nodes: PackedNodes
    edges: PackedEdges

    @property
    def edges_from(self) -> Mapping[int, tuple[Edge, ...]]:
        """The edges that leave each node, by slot."""
        return _Leaving(self)

    def unpack(self) -> Graph:
        """The same as records."""
        nodes, edges = tuple(self.nodes), tuple(iter(self.edges))
        return Graph(self.id, nodes, edges, self.roots, self.digest, self.notes)
