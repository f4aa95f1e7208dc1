"""Records and packed frames in as a run goes, a trace file out that is whole after every flush."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from tracer.records.events import Event, Hook, Leaf, Pass
from tracer.records.graph import Graph, ModuleRef, Root, Site
from tracer.records.limits import ALL_THERE_IS, Limits
from tracer.records.packed import pack
from tracer.records.tensors import TensorMeta
from tracer.records.trace import Run
from tracer.store import rows
from tracer.store.budget import Budget
from tracer.store.chunks import ChunkBuffer, Span
from tracer.store.columns import Row, plain, strings_text
from tracer.store.commits import Commits
from tracer.store.entries import Packed
from tracer.store.files import (
    cannot_write,
    close_file,
    create_file,
    create_temporary,
    is_locked,
)
from tracer.store.frames import encode_event
from tracer.store.graphs import graph_row, roots_text
from tracer.store.ring import Cut, Ring
from tracer.store.schema import RAN, insert_into

_ROW_BYTES = 100
"""About what a row takes, to know when what waits is worth a flush."""
_MOST_WAITING = 16 << 20
"""Bytes of events that wait while the file can't be written for the moment."""
_MOST_RECORDS_WAITING = 16 << 20
"""About how many bytes of what they refer to wait."""
_MOST_KNOWN = 1 << 17
"""Strings and metadata whose number is known: those forgotten are stored again when they come."""
_PATIENCE_S = 5.0
_MOST_PASSES_WAITING = 10_000
HELD_UP = "that came while the file could not be written: another program had locked it"
TOO_FAST = "that came faster than the disk could take them"
FULL = "events for which max_bytes left no room"

Stored = Site | ModuleRef | Hook | Leaf | Graph | Pass


class TraceWriter:
    """Writes one trace. Usable from any thread, one at a time: the caller holds a lock.

    `path` None keeps the trace in a private temporary database that `reader.read_writer` reads.
    Nothing is written before `flush`; `due` tells when it is worth it: when `flush_bytes` are
    waiting, or something has been for `flush_ns`. What was flushed survives the process. While the
    disk is behind, or another program has locked the file, what waits is kept for later, as far as
    a bounded number of bytes go. Passes and bytes over `limits` leave the file as it goes. Whatever
    is left out is counted among what was dropped.
    After a failure to write (TraceFileError from `flush` or `close`) the file stays readable up to
    the last flush, and the writer takes no more.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        run: Run,
        *,
        limits: Limits = ALL_THERE_IS,
        flush_bytes: int = 262_144,
        flush_ns: int = 500_000_000,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Start a trace. Raises TraceFileError where it can't be written, or would replace a file
        that is not a trace."""
        self.path = None if path is None else Path(os.path.realpath(path))
        self.closed = False
        self._run = run
        self._pid = os.getpid()
        self._max_bytes = limits.max_bytes
        if limits.max_bytes:
            flush_bytes = min(flush_bytes, limits.max_bytes // 16)
        self.flush_bytes, self._flush_ns = flush_bytes, flush_ns
        self._clock = clock
        self._flushed_ns = clock()
        self._strings: dict[str, int] = {"": 0}
        self._metas: dict[TensorMeta, int] = {}
        self._last_string = self._last_meta = 0
        self._sites: dict[int, Site] = {}
        self._dropped: dict[str, int] = {}
        self._chunks = ChunkBuffer(flush_bytes)
        self._ring = Ring(limits)
        self._graphs: set[int] = set()
        self._newest = 0
        self._new_passes: dict[int, Pass] = {}
        self._new_ran: list[tuple[Any, ...]] = []
        self._forget_pending()
        row = rows.run_row(run, "", complete=False)
        shrinks = bool(limits.max_bytes)
        self.connection = (
            create_file(self.path, row, shrinks=shrinks)
            if self.path
            else create_temporary(row, shrinks=shrinks)
        )
        self._commits = Commits(self.connection)
        self._budget = Budget(
            self.connection, self.path, most=limits.max_bytes, flush_bytes=flush_bytes
        )

    def _forget_pending(self) -> None:
        self._newest = max(self._new_passes, default=self._newest)
        if self._new_ran:
            self._newest = max(self._newest, self._new_ran[-1][0])
        self._rows = 0
        self._ended: list[Row] = []
        self._new_strings: list[Row] = []
        self._new_metas: list[Row] = []
        self._new_sites: dict[int, Site] = {}
        self._new_modules: dict[int, ModuleRef] = {}
        self._new_hooks: dict[int, Hook] = {}
        self._new_leaves: dict[int, Leaf] = {}
        self._new_graphs: dict[int, Graph] = {}
        self._new_passes, self._new_ran = {}, []
        self._new_sources: dict[str, str] = {}
        self._new_dropped: dict[str, int] = {}
        self._chunks.clear()

    # ---- what is stored once

    def put(self, record: Stored) -> None:
        """Store a record, in place of an earlier one with its id, with all that it refers to."""
        self._rows += 1
        if isinstance(record, Pass):
            self._new_passes[record.id] = record
            self._ring.saw(record)
        elif isinstance(record, Site):
            self._sites[record.id] = self._new_sites[record.id] = record
        elif isinstance(record, Leaf):
            self._new_leaves[record.id] = record
        elif isinstance(record, Hook):
            self._new_hooks[record.id] = record
        elif isinstance(record, ModuleRef):
            self._new_modules.pop(record.id, None)
            self.module(record)
        else:
            nodes, edges = pack(record)
            self._graphs.add(record.id)
            self._new_graphs[record.id] = replace(record, nodes=nodes, edges=edges)
            self._rows += _rows_of(record)

    def ran(self, passes: Sequence[tuple[Any, ...]], graphs: Iterable[Graph]) -> None:
        """Store passes that have ended, each as `Ran` has it, and the graphs that they had."""
        self._new_ran.extend(passes)
        self._rows += 2 * len(passes)
        for graph in graphs:
            self.graph(graph)

    @staticmethod
    def roots_text(roots: Iterable[Root]) -> str:
        """What `Ran` has of a graph's roots."""
        return roots_text(roots)

    @staticmethod
    def inputs_text(inputs: tuple[str, ...]) -> str:
        """What `Ran` has of the names given as `inputs=`."""
        return strings_text(inputs)

    def graph(self, graph: Graph) -> None:
        """Store a graph, unless it is there: the last pass that had it may have left the file."""
        if graph.id not in self._graphs:
            self.put(graph)

    def lost_graph(self, graph: int) -> None:
        """Say that no pass to come has this graph."""
        self._graphs.discard(graph)

    def lost_leaf(self, leaf: int) -> None:
        """Say that a leaf is no more: it goes with the last pass that can have named it."""
        self._ring.lost_leaf(leaf)

    def source(self, file: str, text: str) -> None:
        """Store the text of a user's file."""
        self._new_sources[plain(file)] = plain(text)
        self._rows += 1 + len(text) // _ROW_BYTES

    def string(self, text: str) -> int:
        """The id of a text, 0 for the empty one."""
        number = self._strings.get(text)
        if number is None:
            if len(self._strings) > _MOST_KNOWN:
                self._strings = {"": 0}
            self._last_string += 1
            number = self._strings[text] = self._last_string
            self._new_strings.append((number, plain(text)))
        return number

    def meta(self, meta: TensorMeta) -> int:
        """The id of a tensor's metadata, from 1."""
        number = self._metas.get(meta)
        if number is None:
            if len(self._metas) > _MOST_KNOWN:
                self._metas.clear()
            self._last_meta += 1
            number = self._metas[meta] = self._last_meta
            self._new_metas.append(rows.meta_row(number, meta))
        return number

    def site(self, site: Site | None) -> int:
        """The id of a site, stored on first sight; 0 for none."""
        if site is None:
            return 0
        if self._sites.get(site.id) is not site:
            _check_number(site)
            self._sites[site.id] = self._new_sites[site.id] = site
        return site.id

    def module(self, module: ModuleRef | None) -> int:
        """The id of a module call, stored with those it was made in; 0 for none."""
        number = 0 if module is None else module.id
        while module is not None and module.id not in self._new_modules:
            _check_number(module)
            self._new_modules[module.id] = module
            module = module.parent
        return number

    def hook(self, hook: Hook) -> int:
        """The id of a hook, which is stored."""
        self._new_hooks[hook.id] = hook
        self._ring.saw_hook(hook.id)
        return hook.id

    # ---- events

    def event(self, event: Event) -> None:
        """Encode and append an event; its tensors may be entries that the recorder has packed."""
        self._chunks.add(self.frame(event))

    def frame(self, event: Event) -> bytes:
        """Encode an event, to be appended with others in its place."""
        return encode_event(event, self)

    def append(
        self, frames: Packed, span: tuple[int, int, int, int, int, int] | None = None
    ) -> None:
        """Append whole frames packed elsewhere; `span`, as `Span` has it, where it is known."""
        self._chunks.add(frames, None if span is None else Span(*span))

    def dropped(self, reason: str, count: int = 1) -> None:
        """Count what was left out, if anything was."""
        if not count:
            return
        total = self._dropped.get(reason, 0) + count
        self._rows += reason not in self._new_dropped
        self._dropped[reason] = self._new_dropped[plain(reason)] = total

    # ---- writing

    def due(self) -> bool:
        """Whether a flush is worth it now."""
        waiting = self._waiting
        if waiting >= self.flush_bytes:
            return True
        return waiting > 0 and self._clock() - self._flushed_ns >= self._flush_ns

    def flush(self) -> None:
        """Write all that is waiting, so that it survives the process.

        Raises TraceFileError where the file can't be written (a full disk); the writer is then
        closed. Interrupted by any other exception it can be called again.
        """
        self._flush(wait=True)

    def flush_soon(self) -> None:
        """Have all that is waiting written as soon as the disk takes it.

        Where the disk is behind, this does not wait for it. Raises TraceFileError as `flush` does,
        also for what was handed on before.
        """
        if self._commits.under_way:
            self._bound_what_waits(TOO_FAST)
        else:
            self._flush(wait=self.path is None)

    def _flush(self, *, wait: bool) -> None:
        self._flushed_ns = self._clock()
        if self.closed or os.getpid() != self._pid or self._try_writing(wait=wait):
            self._forget_pending()
        else:
            self._bound_what_waits(HELD_UP)

    def _bound_what_waits(self, why: str) -> None:
        """Drop what there is no room for until it can be written.

        What events and passes refer to is not dropped: if that alone takes too much, the disk is
        waited for, and a file that another program has locked is given up.
        """
        too_many = len(self._new_passes) + len(self._new_ran) > _MOST_PASSES_WAITING
        too_many |= self._records_bytes > _MOST_RECORDS_WAITING
        if too_many or self._chunks.waiting > _MOST_WAITING:
            self.dropped(f"events {why}", self._chunks.discard())
        if too_many:
            self._drop_passes(f"passes {why}")
        if self._records_bytes > _MOST_RECORDS_WAITING:
            if why is HELD_UP:
                self._fail(sqlite3.OperationalError("another program locked it for too long"))
            self._flush(wait=True)

    def _drop_passes(self, reason: str) -> None:
        """Drop passes that have ended, unless their begin is written, and graphs that only they
        have."""
        runs = self._new_passes.values()
        ended = [run.id for run in runs if run.end_ns is not None and run.id > self._newest]
        for number in ended:
            del self._new_passes[number]
        kept = {run.graph for run in runs}
        for number in [number for number in self._new_graphs if number not in kept]:
            self._rows -= _rows_of(self._new_graphs.pop(number))
            self._graphs.discard(number)
        count = len(ended) + len(self._new_ran)
        self._new_ran = []
        self._rows -= 2 * count  # each was put as it began, and as it ended
        self.dropped(reason, count)

    @property
    def _waiting(self) -> int:
        return self._chunks.waiting + self._records_bytes

    @property
    def _records_bytes(self) -> int:
        return self._rows * _ROW_BYTES

    def _try_writing(self, *, wait: bool = True) -> bool:
        """Write all that is waiting; whether that could be done now, or is being done."""
        connection = self.connection
        try:
            self._commits.finish()
            if self._max_bytes and not self._make_room(self._waiting):
                if self._budget.log_is_held:
                    return False
                if self._chunks.waiting:
                    self.dropped(FULL, self._chunks.discard())
                if not self._make_room(self._waiting):
                    raise sqlite3.OperationalError(f"max_bytes={self._max_bytes} is too little")
            with self._transaction(wait=wait):
                self._insert(self._pending())
                self._count_cut(self._ring.cut_old(connection), "last")
                self._insert([("dropped", list(self._new_dropped.items()))])
        except sqlite3.Error as error:
            if is_locked(error):
                return False
            self._fail(error)
        return True

    def _fail(self, error: Exception) -> NoReturn:
        self._release()
        raise cannot_write(self.path, error) from error

    def _make_room(self, coming: int) -> bool:
        """Take the oldest passes out until so many bytes fit; whether they do now."""
        budget = self._budget
        budget.empty_log()
        shortage = budget.shortage(coming)
        if shortage <= 0:
            return True
        if budget.log_is_held or 2 * coming > self._max_bytes:
            return False
        with self._transaction():
            wanted = shortage + self._max_bytes // 16
            self._count_cut(self._ring.cut_bytes(self.connection, wanted), "max_bytes")
            self._insert([("dropped", list(self._new_dropped.items()))])
        budget.empty_log()
        budget.shrink(budget.shortage(coming))
        return budget.shortage(coming) <= 0

    def _count_cut(self, cut: Cut, limit: str) -> None:
        self._graphs.difference_update(cut.graphs)
        if cut.passes:
            self.dropped(f"older passes, deleted to keep to {limit}", cut.passes)
        if cut.events:
            self.dropped(f"older events outside passes, deleted to keep to {limit}", cut.events)

    def _pending(self) -> Iterator[tuple[str, list[Row] | Iterator[Row]]]:
        """What waits, by table: first those whose rows bring new sites, strings and metadata."""
        yield "graph", [graph_row(graph, self) for graph in self._new_graphs.values()]
        yield "pass", [rows.pass_row(run, self) for run in self._new_passes.values()]
        yield RAN, self._new_ran
        yield "leaf", [rows.leaf_row(leaf, self) for leaf in self._new_leaves.values()]
        yield "hook", [rows.hook_row(hook, self) for hook in self._new_hooks.values()]
        yield "module", [rows.module_row(module) for module in self._new_modules.values()]
        yield "site", [rows.site_row(site) for site in self._new_sites.values()]
        yield "source", list(self._new_sources.items())
        yield "meta", self._new_metas
        yield "string", self._new_strings
        yield "chunk", self._chunks.rows()
        yield "trace", self._ended

    @contextmanager
    def _transaction(self, *, wait: bool = True) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._commits.commit(wait=wait)
        except BaseException:
            self._commits.wait()
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def _insert(self, tables: Iterable[tuple[str, Iterable[Row]]]) -> None:
        for table, rows_of_table in tables:
            if rows_of_table:
                self.connection.executemany(insert_into(table), rows_of_table)

    def close(self, outcome: str = "") -> None:
        """Write what is waiting and end the trace, as one file with no other beside it.

        A trace with no path stays readable through `reader.read_writer`. Closing again does
        nothing. Raises TraceFileError where the file can't be written.
        """
        if self.closed or os.getpid() != self._pid:
            return
        self._ended = [rows.run_row(self._run, outcome, complete=True)]
        until = time.monotonic() + _PATIENCE_S
        while not self._try_writing():
            if time.monotonic() > until:
                self._fail(sqlite3.OperationalError("another program locked it"))
            time.sleep(0.05)
        self._forget_pending()
        self._release()

    def _release(self) -> None:
        self.closed = True
        if self.path is not None:
            close_file(self.connection)
        elif self.connection.in_transaction:
            self.connection.execute("ROLLBACK")


def _rows_of(graph: Graph) -> int:
    """How many ordinary rows that of a graph is about as large as: 20 to 40 bytes for a node."""
    return 5 + len(graph.nodes) // 2


def _check_number(record: Site | ModuleRef) -> None:
    if record.id < 1:
        raise ValueError(f"ids of sites and modules count from 1: {record}")
