"""A trace file in, its record out; graphs, sources and events are read when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracer.records.events import Leaf, Outcome, Pass
from tracer.records.graph import Root
from tracer.records.quick import maker
from tracer.records.tensors import Gradient, TensorMeta
from tracer.records.trace import Run, TraceRecord
from tracer.store.archive import Archive
from tracer.store.columns import pairs_of, strings_of
from tracer.store.entries import UNKNOWN_META, decode_entries
from tracer.store.files import check_schema, damaged, open_file
from tracer.store.graphs import read_arriving, read_graphs
from tracer.store.log import ChunkLog
from tracer.store.schema import select_from
from tracer.store.tables import Leaves, Passes, ReadOnDemand

if TYPE_CHECKING:
    from tracer.store.writer import TraceWriter

_make_leaf = maker(Leaf)
_METAS_KEPT = 100_000
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
    graphs = read_graphs(archive)
    metas = _RootMetas(archive)
    with archive.reading():
        run, complete = _run(rows[0])
        return TraceRecord(
            run=run,
            sources=_sources(archive),
            graphs=graphs,
            passes=Passes(archive, partial(_pass, metas)),
            leaves=Leaves(archive, _leaf),
            events=ChunkLog(archive, graphs),
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


def _pass(metas: _RootMetas, archive: Archive, row: Sequence[Any]) -> Pass:
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
        seeds=_seeds(archive, seeds, [(graph, root) for root in places], metas) if seeds else (),
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
    archive: Archive, seeds: bytes, places: list[tuple[int, Root]], metas: _RootMetas
) -> tuple[Gradient | None, ...]:
    if not any(seeds):  # no gradient was given for any root
        return (None,) * len(seeds)
    return decode_entries(seeds, archive, [metas[place] for place in places])


class _RootMetas(dict[tuple[int, Root], TensorMeta]):
    """The metadata of what arrives at the roots of graphs."""

    def __init__(self, archive: Archive) -> None:
        super().__init__()
        self._archive = archive

    def __missing__(self, place: tuple[int, Root]) -> TensorMeta:
        if len(self) >= _METAS_KEPT:
            self.clear()
        meta = self[place] = read_arriving(self._archive, *place) or UNKNOWN_META
        return meta


def _leaf(archive: Archive, row: Sequence[Any]) -> Leaf:
    number, name, meta_number, site, value, grad = row
    meta = archive.meta(meta_number)
    return _make_leaf(
        number, name, meta, archive.site(site),
        decode_entries(value, archive, [meta])[0] if value else None,
        decode_entries(grad, archive, [meta])[0] if grad else None,
    )  # fmt: skip


# ---- sources


def _sources(archive: Archive) -> Mapping[str, str]:
    def keys() -> list[str]:
        rows = archive.rows("SELECT CAST(file AS TEXT) FROM source ORDER BY file")
        return [file for (file,) in rows]

    def read(file: str) -> str | None:
        rows = archive.rows(select_from("source", "WHERE file = ?"), file)
        return str(rows[0][1]) if rows else None

    return ReadOnDemand(keys, read, kept=_SOURCES_KEPT)
