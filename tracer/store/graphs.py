"""A graph in, its row out; and back, as it is held packed, refusing what leads nowhere."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from tracer.records.graph import Graph, ModuleRef, NodeKind, Root, SavedTensor
from tracer.records.packed import Column, Operation, PackedEdges, PackedNodes, Sort, pack
from tracer.records.tensors import TensorMeta
from tracer.store.archive import Archive
from tracer.store.columns import (
    Row,
    items,
    json_text,
    lists_of,
    number,
    number_pairs_of,
    number_pairs_text,
    numbers_of,
    pairs,
    plain,
    string,
    string_lists_of,
    strings_of,
    strings_text,
)
from tracer.store.entries import Names
from tracer.store.schema import select_from
from tracer.store.tables import ReadOnDemand

T = TypeVar("T")

_GRAPHS_KEPT = 4
_CODES = {array(code).itemsize: code for code in "BHIQ"}


class GraphNames(Names, Protocol):
    """Gives ids for all that the row of a graph refers to."""

    def module(self, module: ModuleRef | None) -> int: ...


# ---- writing


def graph_row(graph: Graph, names: GraphNames) -> Row:
    """A row of `graph`."""
    nodes, edges = pack(graph)
    return (
        graph.id, graph.digest, strings_text(graph.notes), roots_text(graph.roots), len(nodes),
        json_text([_sort_item(sort, names) for sort in nodes.sorts.values]),
        json_text([[names.site(site), plain(op), plain(note)]
                   for site, op, note in nodes.operations.values]),
        json_text(nodes.variables.values),
        json_text([names.module(module) for module in nodes.modules.values]),
        json_text(nodes.loops.values),
        *(column.tobytes() for column in _columns(nodes)),
        edges.slots.tobytes(), edges.targets.tobytes(), edges.input_nrs.tobytes(),
    )  # fmt: skip


def roots_text(roots: Iterable[Root]) -> str:
    """JSON of roots."""
    return number_pairs_text((root.node, root.input_nr) for root in roots)


def _columns(nodes: PackedNodes) -> tuple[array[int], ...]:
    return (
        nodes.sorts.numbers, nodes.operations.numbers, nodes.variables.numbers,
        nodes.modules.numbers, nodes.loops.numbers, nodes.calls, nodes.sequence_nrs,
    )  # fmt: skip


def _sort_item(sort: Sort, names: Names) -> list[object]:
    def meta_number(meta: TensorMeta | None) -> int:
        return 0 if meta is None else names.meta(meta)

    return [
        plain(sort.name), sort.kind.value, [meta_number(meta) for meta in sort.outputs],
        [[one.attribute, meta_number(one.meta), one.nbytes] for one in sort.saved],
        sort.attributes,
    ]  # fmt: skip


# ---- reading


def read_graphs(archive: Archive) -> Mapping[int, Graph]:
    """The graphs of a trace by id."""

    def numbers() -> list[int]:
        rows = archive.rows("SELECT CAST(id AS INTEGER) FROM graph ORDER BY id")
        return [graph_id for (graph_id,) in rows]

    def read(graph_id: int) -> Graph | None:
        rows = archive.rows(select_from("graph", "WHERE id = ?"), graph_id)
        with archive.reading():
            return _graph(archive, *rows[0]) if rows else None

    return ReadOnDemand(numbers, read, kept=_GRAPHS_KEPT)


def read_arriving(archive: Archive, graph_id: int, root: Root) -> TensorMeta | None:
    """The metadata of what arrives at a root, where it is known; the rest of the graph is not read:
    a program may have one for each pass."""
    rows = archive.rows(_SORT_OF, root.node, graph_id) if root.node >= 0 else ()
    if not rows or not rows[0][1]:
        return None
    sorts, place = rows[0]
    outputs = items(lists_of(sorts, 5)[int.from_bytes(place, "little")][2])
    return _meta(archive, outputs[root.input_nr]) if 0 <= root.input_nr < len(outputs) else None


_SORT_OF = """
SELECT CAST(sorts AS TEXT), substr(CAST(sort AS BLOB), 1 + ? * size, size)
FROM (SELECT *, length(CAST(sort AS BLOB)) / CAST(nodes AS INTEGER) AS size FROM graph)
WHERE id = ?
"""


def _graph(
    archive: Archive, graph_id: int, digest: str, notes: str, roots: str, count: int, sorts: str,
    operations: str, variables: str, modules: str, loops: str, *columns: bytes,
) -> Graph:  # fmt: skip
    kinds, operation, names, module, turns, calls, sequence_nrs, slots, *ends = columns
    nodes = PackedNodes(
        _column(kinds, count, [_sort(archive, *item) for item in lists_of(sorts, 5)]),
        _column(operation, count, [_operation(archive, *one) for one in lists_of(operations, 3)]),
        _column(names, count, string_lists_of(variables)),
        _column(module, count, [archive.module(one) for one in numbers_of(modules)]),
        _column(turns, count, [pairs(item) for item in lists_of(loops)]),
        _numbers(calls, count),
        _numbers(sequence_nrs, count),
    )
    starts = tuple(Root(*place) for place in number_pairs_of(roots))
    if any(not 0 <= root.node < count for root in starts):
        raise ValueError(f"a root of graph {graph_id} is no node")
    edges = _edges(_numbers(slots, count), *ends)
    return Graph(graph_id, nodes, edges, starts, digest, strings_of(notes))


def _sort(
    archive: Archive, name: object, kind: object, outputs: object, saved: object, attributes: object
) -> Sort:
    return Sort(
        string(name),
        NodeKind(kind),
        tuple(_meta(archive, meta) for meta in items(outputs)),
        tuple(_saved(archive, *items(one, 3)) for one in items(saved)),
        pairs(attributes),
    )


def _meta(archive: Archive, meta: object) -> TensorMeta | None:
    return archive.meta(number(meta)) if meta else None


def _saved(archive: Archive, attribute: object, meta: object, nbytes: object) -> SavedTensor:
    return SavedTensor(
        string(attribute), _meta(archive, meta), None if nbytes is None else number(nbytes)
    )


def _operation(archive: Archive, site: object, op: object, note: object) -> Operation:
    return Operation(archive.site(number(site)), string(op), string(note))


def _column(packed: bytes, count: int, values: Sequence[T]) -> Column[T]:
    numbers = _numbers(packed, count)
    if max(numbers, default=-1) >= len(values):
        raise ValueError("a node is of no sort, operation, module or loop that the graph has")
    return Column(numbers, values)


def _edges(slots: array[int], targets: bytes, input_nrs: bytes) -> PackedEdges:
    count = sum(slots)
    edges = PackedEdges(slots, _numbers(targets, count), _numbers(input_nrs, count))
    if max(edges.targets, default=0) > len(slots):
        raise ValueError("an edge of the graph leads to no node")
    return edges


def _numbers(packed: bytes, count: int) -> array[int]:
    """So many numbers, of as many bytes each as there are."""
    size, rest = divmod(len(packed), count) if count > 0 else (1, len(packed) or count)
    if rest or size not in _CODES:
        raise ValueError("a column of a graph does not have a number for each node or edge")
    numbers = array(_CODES[size])
    numbers.frombytes(packed)
    return numbers
