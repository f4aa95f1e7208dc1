"""A trace file in, its record out; graphs, sources and events are read when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tracer.records.events import Leaf, Outcome, Pass
from tracer.records.graph import Graph, Node, NodeKind, Root
from tracer.records.quick import maker
from tracer.records.tensors import Gradient, TensorMeta
from tracer.records.trace import Run, TraceRecord
from tracer.store.archive import Archive
from tracer.store.columns import pairs_of, strings_of
from tracer.store.entries import UNKNOWN_META, decode_entries
from tracer.store.files import check_schema, damaged, open_file
from tracer.store.flows import edges_of
from tracer.store.log import ChunkLog
from tracer.store.schema import select_from
from tracer.store.tables import Leaves, Passes

if TYPE_CHECKING:
    from tracer.store.writer import TraceWriter

Key = TypeVar("Key")
Value = TypeVar("Value")

_GRAPHS_KEPT = 4
_KINDS = {kind.value: kind for kind in NodeKind}
_make_leaf, _make_node = maker(Leaf), maker(Node)
_SOURCES_KEPT = 64


def read_trace(path: str | os.PathLike[str]) -> TraceRecord:
    """Open a trace file, one that is still being recorded or whose process died included.

    Raises TraceFileError for a file that is missing, no trace, too new or damaged; what is read
    later (a graph, events) raises it then.
    """
    return _read(Archive(open_file(Path(path)), os.fspath(path)))


def read_writer(writer: TraceWriter) -> TraceRecord:
    """Flush a trace that this process records, or has recorded without a file, and read it.

    The passes and leaves are those of now; events that are written later are in `events` too.
    """
    if not writer.closed:
        writer.flush()
    if writer.path is not None:
        return read_trace(writer.path)
    check_schema(writer.connection, "the trace in memory")
    return _read(Archive(writer.connection, "the trace in memory"))


def _read(archive: Archive) -> TraceRecord:
    rows = archive.rows(select_from("trace"))
    if not rows:
        raise damaged(archive.label, "it does not say what ran")
    graphs = _graphs(archive)
    with archive.reading():
        run, complete = _run(rows[0])
        return TraceRecord(
            run=run,
            sources=_sources(archive),
            graphs=graphs,
            passes=Passes(archive, _pass),
            leaves=Leaves(archive, _leaf),
            events=ChunkLog(archive, graphs.kept),
            dropped=dict(archive.rows(select_from("dropped", "ORDER BY reason"))),
            complete=complete,
        )


def _run(row: tuple[Any, ...]) -> tuple[Run, bool]:
    (
        _, script, argv, started, host, pid, rank, world_size, versions, limits, outcome, complete,
    ) = row  # fmt: skip
    run = Run(
        script=script, argv=strings_of(argv), started=started, host=host, pid=pid, rank=rank,
        world_size=world_size, versions=pairs_of(versions), limits=limits, outcome=outcome,
    )  # fmt: skip
    return run, bool(complete)


# ---- passes and leaves


_OK = Outcome()


def _pass(archive: Archive, row: Sequence[Any]) -> Pass:
    (
        number, graph, kind, site, roots, seeds, retain_graph, create_graph, inputs, thread, parent,
        begin_ns, end_ns, error, message, error_node, node_count, leaf_count, torchviz,
    ) = row  # fmt: skip
    places = archive.roots(roots)
    ok = not error and not message and error_node is None
    return Pass(
        id=number,
        graph=graph,
        kind=kind,
        site=archive.site(site),
        roots=places,
        seeds=_seeds(archive, seeds, graph, places) if seeds else (),
        retain_graph=bool(retain_graph),
        create_graph=bool(create_graph),
        inputs=None if inputs is None else strings_of(inputs),
        thread=thread,
        parent=parent,
        begin_ns=begin_ns,
        end_ns=end_ns,
        outcome=_OK if ok else Outcome(error, message, error_node),
        node_count=node_count,
        leaf_count=leaf_count,
        torchviz=torchviz,
    )


def _seeds(
    archive: Archive, seeds: bytes, graph: int, roots: tuple[Root, ...]
) -> tuple[Gradient | None, ...]:
    if not any(seeds):  # no gradient was given for any root
        return (None,) * len(seeds)
    metas = [_root_meta(archive, graph, root) for root in roots]
    return decode_entries(seeds, archive, metas)


def _root_meta(archive: Archive, graph: int, root: Root) -> TensorMeta:
    sql = "SELECT CAST(outputs AS TEXT) FROM node WHERE graph = ? AND id = ?"
    found = archive.rows(sql, graph, root.node)
    outputs = archive.metas(found[0][0]) if found else ()
    meta = outputs[root.input_nr] if root.input_nr < len(outputs) else None
    return meta or UNKNOWN_META


def _leaf(archive: Archive, row: Sequence[Any]) -> Leaf:
    number, name, meta_number, site, value, grad = row
    meta = archive.meta(meta_number)
    return _make_leaf(
        number, name, meta, archive.site(site),
        decode_entries(value, archive, [meta])[0] if value else None,
        decode_entries(grad, archive, [meta])[0] if grad else None,
    )  # fmt: skip


# ---- graphs and sources


class _ReadOnDemand(Mapping[Key, Value], Generic[Key, Value]):
    """Rows of a table by key, each read when it is asked for; the last few are kept."""

    def __init__(
        self, keys: Callable[[], list[Key]], read: Callable[[Key], Value | None], *, kept: int
    ) -> None:
        self._keys = keys
        self._read = read
        self._most = kept
        self._kept: dict[Key, Value] = {}

    def __getitem__(self, key: Key) -> Value:
        value = self._kept.pop(key, None) or self._read(key)
        if value is None:
            raise KeyError(key)
        self._kept[key] = value
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        return value

    def kept(self, key: Key) -> Value | None:
        """The row of a key where that is kept: nothing is read."""
        return self._kept.get(key)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())


def _sources(archive: Archive) -> Mapping[str, str]:
    def keys() -> list[str]:
        rows = archive.rows("SELECT CAST(file AS TEXT) FROM source ORDER BY file")
        return [file for (file,) in rows]

    def read(file: str) -> str | None:
        rows = archive.rows(select_from("source", "WHERE file = ?"), file)
        return str(rows[0][1]) if rows else None

    return _ReadOnDemand(keys, read, kept=_SOURCES_KEPT)


def _graphs(archive: Archive) -> _ReadOnDemand[int, Graph]:
    def keys() -> list[int]:
        rows = archive.rows("SELECT CAST(id AS INTEGER) FROM graph ORDER BY id")
        return [number for (number,) in rows]

    def read(number: int) -> Graph | None:
        rows = archive.rows(select_from("graph", "WHERE id = ?"), number)
        with archive.reading():
            return _graph(archive, *rows[0]) if rows else None

    return _ReadOnDemand(keys, read, kept=_GRAPHS_KEPT)


def _graph(archive: Archive, number: int, digest: str, notes: str) -> Graph:
    nodes = archive.each(select_from("node", "WHERE graph = ? ORDER BY id"), number)
    roots = archive.rows(select_from("root", "WHERE graph = ? ORDER BY position"), number)
    graph = Graph(
        id=number,
        nodes=tuple(_node(archive, row) for row in nodes),
        edges=tuple(edges_of(archive, number)),
        roots=tuple(Root(*row[2:]) for row in roots),
        digest=digest,
        notes=strings_of(notes),
    )
    _check_graph(graph)
    return graph


def _check_graph(graph: Graph) -> None:
    """Refuse a graph in which a number leads nowhere."""
    count = len(graph.nodes)
    if [node.id for node in graph.nodes] != list(range(count)):
        raise ValueError(f"nodes of graph {graph.id} are missing")
    ends = [edge.source for edge in graph.edges]
    ends += [edge.target for edge in graph.edges]
    ends += [root.node for root in graph.roots]
    if ends and (min(ends) < 0 or max(ends) >= count):
        raise ValueError(f"an edge of graph {graph.id} leads to no node")


def _node(archive: Archive, row: tuple[Any, ...]) -> Node:
    (
        _, number, name, kind, sequence_nr, outputs, variables, site, op, module, call, loops,
        saved, attributes, note,
    ) = row  # fmt: skip
    return _make_node(
        number, name, _KINDS.get(kind) or NodeKind(kind), sequence_nr, archive.metas(outputs),
        strings_of(variables), archive.site(site), op, archive.module(module), call,
        pairs_of(loops), archive.saved(saved), pairs_of(attributes), note,
    )  # fmt: skip
