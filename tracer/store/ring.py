"""Limits and a growing trace in; what is oldest leaves the file and is counted."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tracer.records.events import Pass
from tracer.records.limits import Limits
from tracer.store.chunks import span_of
from tracer.store.frames import PASS_END_CODE, frames_between, scan_frames

_ALL = 1 << 62
_MOST_GONE = 1 << 16


@dataclass(slots=True)
class Cut:
    """What a cut took out: passes, or events where there was no pass, and graphs by number."""

    passes: int = 0
    events: int = 0
    graphs: tuple[int, ...] = ()


class _Chunk(NamedTuple):
    """What decides whether a chunk may go."""

    id: int
    size: int
    first_pass: int
    last_pass: int
    events: int


class Ring:
    """Knows which passes are the last, and takes those before them out of the file.

    A pass goes with all that led to it, never in part; those that are running stay.
    """

    def __init__(self, limits: Limits) -> None:
        self._last = limits.last
        self._bounded = bool(limits.last or limits.max_bytes)
        self._recent: deque[int] = deque()
        self._running: set[int] = set()
        self.newest = 0
        self._gone: deque[tuple[int, int]] = deque(maxlen=_MOST_GONE)
        self._hooks: dict[int, int] = {}

    def saw(self, run: Pass) -> None:
        """A pass has begun, or ended."""
        if not self._bounded:
            return
        if run.id > self.newest:
            self.newest = run.id
            self._running.add(run.id)
            if self._last and run.parent is None:
                self._recent.append(run.id)
        if run.end_ns is not None:
            self._running.discard(run.id)

    def saw_hook(self, hook: int) -> None:
        """A hook was named by an event."""
        if self._bounded:
            self._hooks[hook] = self.newest

    def lost_leaf(self, leaf: int) -> None:
        """A leaf is no more: no later pass will name it."""
        if self._bounded:
            self._gone.append((self.newest, leaf))

    def cut_old(self, connection: sqlite3.Connection) -> Cut:
        """Take out all before the last passes that are to be kept."""
        floor = 0
        while self._last and len(self._recent) > self._last:
            if self._recent[0] in self._running:
                break
            self._recent.popleft()
            floor = self._recent[0]
        return self._cut(connection, floor, 0) if floor else Cut()

    def cut_bytes(self, connection: sqlite3.Connection, wanted: int) -> Cut:
        """Take out the oldest passes, until so many bytes are free or nothing is left that may."""
        freed = floor = cut = 0
        running = min(self._running, default=_ALL)
        for chunk in _chunks(connection):
            if freed >= wanted or chunk.last_pass >= running:
                break
            freed += chunk.size
            floor = max(floor, chunk.last_pass + 1 if chunk.last_pass else 0)
            cut = chunk.id + 1
        return self._cut(connection, min(floor, running), cut) if cut else Cut()

    def _cut(self, connection: sqlite3.Connection, floor: int, cut: int) -> Cut:
        """Delete passes under `floor` and chunks under `cut`, and what only they refer to."""
        floor = _with_those_inside(connection, floor, min(self._running, default=_ALL))
        while self._recent and self._recent[0] < floor:
            self._recent.popleft()
        done = Cut()
        self._delete_chunks(connection, floor, cut, done)
        graphs = connection.execute("SELECT DISTINCT graph FROM pass WHERE id < ?", (floor,))
        candidates = [number for (number,) in graphs]
        done.passes = connection.execute("DELETE FROM pass WHERE id < ?", (floor,)).rowcount
        done.graphs = tuple(_delete_unused(connection, candidates))
        if done.passes:  # events outside of them were what led to them
            done.events = 0
        self._delete_named(connection, floor)
        return done

    def _delete_chunks(
        self, connection: sqlite3.Connection, floor: int, cut: int, done: Cut
    ) -> None:
        chunks = list(_chunks(connection))
        older = [c.id for c in chunks if 0 < c.first_pass < floor]
        newer = [c.id for c in chunks if c.last_pass >= floor]
        if older:
            cut = max(cut, min([max(older), *newer[:1]]))
        for chunk in chunks:
            if chunk.id < cut:
                connection.execute("DELETE FROM chunk WHERE id = ?", (chunk.id,))
                done.events += 0 if chunk.last_pass else chunk.events
            elif 0 < chunk.first_pass < floor:
                _trim(connection, chunk.id, floor)

    def _delete_named(self, connection: sqlite3.Connection, floor: int) -> None:
        """Delete leaves and hooks that nothing names any more."""
        while self._gone and self._gone[0][0] < floor:
            connection.execute("DELETE FROM leaf WHERE id = ?", (self._gone.popleft()[1],))
        for hook in [hook for hook, used in self._hooks.items() if used < floor]:
            del self._hooks[hook]
            connection.execute("DELETE FROM hook WHERE id = ?", (hook,))


def _chunks(connection: sqlite3.Connection) -> Iterator[_Chunk]:
    columns = "id, length(frames), first_pass, last_pass, count"
    rows = connection.execute(f"SELECT {columns} FROM chunk ORDER BY id").fetchall()
    return (_Chunk(*row) for row in rows)


def _with_those_inside(connection: sqlite3.Connection, floor: int, running: int) -> int:
    """The floor raised until no pass stays whose outer one goes."""
    while True:
        sql = "SELECT MAX(id) FROM pass WHERE parent < ? AND id >= ?"
        (inside,) = connection.execute(sql, (floor, floor)).fetchone()
        if inside is None or inside + 1 > running:
            return floor
        floor = inside + 1


def _trim(connection: sqlite3.Connection, number: int, floor: int) -> None:
    """Take out of a chunk what belongs to passes under `floor`, or came before they ended."""
    sql = "SELECT frames FROM chunk WHERE id = ?"
    frames: bytes = connection.execute(sql, (number,)).fetchone()[0]
    found = list(scan_frames(frames))
    ends = [seq for _, kind, run, seq in found if kind == PASS_END_CODE and run < floor]
    until = max(ends, default=0)
    kept = b"".join(
        frame
        for (_, _, run, seq), frame in zip(found, frames_between(frames, found), strict=True)
        if (run >= floor if run else seq > until)
    )
    if kept:
        columns = "first_seq, last_seq, first_pass, last_pass, count, kinds, frames"
        sql = f"UPDATE chunk SET ({columns}) = (?, ?, ?, ?, ?, ?, ?) WHERE id = ?"
        connection.execute(sql, (*span_of(kept), kept, number))
    else:
        connection.execute("DELETE FROM chunk WHERE id = ?", (number,))


def _delete_unused(connection: sqlite3.Connection, graphs: list[int]) -> Iterator[int]:
    """Delete those graphs that no pass has any more."""
    for graph in graphs:
        if connection.execute("SELECT 1 FROM pass WHERE graph = ?", (graph,)).fetchone() is None:
            connection.execute("DELETE FROM graph WHERE id = ?", (graph,))
            yield graph
