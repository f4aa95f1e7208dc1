"""The chunks of a trace in, its events out in order of `seq`; a pass's worth is in memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from tracer.records.events import Accumulate, Event, NodeRun
from tracer.records.graph import Graph
from tracer.records.listening import Listener
from tracer.store.archive import NONSENSE, Archive
from tracer.store.decoding import decode_event
from tracer.store.files import damaged
from tracer.store.flows import Flows, Wirings
from tracer.store.frames import (
    CODE_OF_KIND,
    KIND_CODES,
    NODE_CODE,
    PASS_END_CODE,
    Frame,
    scan_frames,
)
from tracer.store.telling import FrameTeller

_ALL_KINDS = -1
_FEW = 64
"""How many events are told before what was said of them can be shown."""
_seq = itemgetter(0)
_REFERRING = 1 << NODE_CODE | 1 << KIND_CODES[Accumulate]
_CONTEXT = 1 << NODE_CODE | 1 << PASS_END_CODE
_END_OF_TIME = 1 << 64
_NO_PASS = 1 << 32
"""A number that no pass has: they are of four bytes."""
_MOST_BYTES = 1 << 28
"""No chunk that the writer makes comes near this; a stranger's could."""


class _Chunk(NamedTuple):
    """A row of the chunk index."""

    id: int
    first_seq: int
    last_seq: int
    first_pass: int
    last_pass: int
    kinds: int


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which events to yield; `kinds` has a bit `1 << code` for each."""

    pass_id: int | None
    kinds: int
    since: int
    until: int = _END_OF_TIME

    def may_be_in(self, chunk: _Chunk) -> bool:
        return bool(chunk.kinds & self.kinds) and chunk.last_seq >= self.since

    @property
    def needs_context(self) -> bool:
        """Whether these events can refer to node frames that are not wanted themselves."""
        return bool(self.kinds & _REFERRING)


class ChunkLog:
    """The events of a trace, decoded as they are asked for."""

    def __init__(self, archive: Archive, graphs: Mapping[int, Graph]) -> None:
        self._archive = archive
        self._wirings = Wirings(archive, graphs)

    def __len__(self) -> int:
        total = self._archive.rows("SELECT CAST(TOTAL(count) AS INTEGER) FROM chunk")[0][0]
        return max(int(total), 0)

    @property
    def last_seq(self) -> int:
        """The greatest `seq` of all events, 0 where there is none."""
        return int(
            self._archive.rows("SELECT IFNULL(MAX(CAST(last_seq AS INTEGER)), 0) FROM chunk")[0][0]
        )

    def __iter__(self) -> Iterator[Event]:
        return self.select()

    def select(
        self, *, pass_id: int | None = None, kinds: Sequence[str] = (), since: int = 0
    ) -> Iterator[Event]:
        """The events of one pass (or of all), of the named kinds (or all), from `seq` `since` on.

        Raises TraceFileError, while iterating, where the file is damaged.
        """
        mask = sum(1 << CODE_OF_KIND[kind] for kind in set(kinds) if kind in CODE_OF_KIND)
        return self._events(_Wanted(pass_id, mask if kinds else _ALL_KINDS, since))

    def tell(self, listener: Listener, *, since: int, until: int) -> Iterator[None]:
        """Tell a listener of the events from `seq` `since` on, up to `until`, a few at a time.

        Raises TraceFileError, while iterating, where the file is damaged.
        """
        teller = FrameTeller(self._archive, self._wirings, listener)
        for frames in self._in_order(_Wanted(None, _ALL_KINDS, since, until), teller.flows):
            for start in range(0, len(frames), _FEW):
                teller.tell(frames[start : start + _FEW])
                yield

    def _events(self, wanted: _Wanted) -> Iterator[Event]:
        archive = self._archive
        flows = Flows(archive, self._wirings)
        for ready in self._in_order(wanted, flows):
            for _, kind, pass_id, frames, offset, is_wanted in ready:
                if is_wanted:
                    flow = flows[pass_id]
                    try:
                        event = decode_event(frames, offset, archive, flow)
                    except NONSENSE as error:
                        raise damaged(archive.label, error) from error
                    if type(event) is NodeRun:
                        flow.ran(event.node, event.returned)
                    yield event
                if kind == PASS_END_CODE:
                    flows.pop(pass_id, None)

    def _in_order(self, wanted: _Wanted, flows: Flows) -> Iterator[list[Frame]]:
        """The wanted frames by seq, and the ends of passes; some at a time.

        A frame can lie chunks after others that began later: what is at hand is handed on up to the
        least seq that any chunk still to come holds.
        """
        waiting: list[Frame] = []
        chunks, first_pass = self._chunks(wanted)
        for chunk, floor in zip(chunks, _floors(chunks), strict=True):
            waiting += self._frames(chunk, wanted, flows, first_pass)
            waiting.sort(key=_seq)
            ready = bisect_left(waiting, floor, key=_seq) if floor is not None else len(waiting)
            yield waiting[:ready]
            del waiting[:ready]

    def _chunks(self, wanted: _Wanted) -> tuple[list[_Chunk], int]:
        """The chunks to read, those with wanted events and those that these can refer to; and the
        first pass of which they can refer to frames that are not wanted."""
        index = [one for one in self._index(wanted.pass_id) if one.first_seq < wanted.until]
        found = [chunk for chunk in index if wanted.may_be_in(chunk)]
        if not wanted.needs_context:
            return found, _NO_PASS
        passes = filter(None, (self._first_pass(one, wanted) for one in found))
        first_pass = min(passes, default=_NO_PASS)
        needed = [
            chunk
            for chunk in index
            if wanted.may_be_in(chunk) or (chunk.kinds & _CONTEXT and chunk.last_pass >= first_pass)
        ]
        return needed, first_pass

    def _first_pass(self, chunk: _Chunk, wanted: _Wanted) -> int:
        """The least pass of which wanted events in a chunk can refer to others, 0 for none.

        Where only a part of the chunk is wanted, that is looked up in it: what is left of the pass
        before would have all of that one read.
        """
        if chunk.first_seq >= wanted.since or not chunk.first_pass:
            return chunk.first_pass
        with self._archive.reading():
            passes = [
                pass_id
                for _, kind, pass_id, seq in scan_frames(self._read(chunk))
                if pass_id and seq >= wanted.since and _REFERRING >> kind & 1
            ]
        return min(passes, default=0)

    def _index(self, pass_id: int | None) -> list[_Chunk]:
        columns = ", ".join(f"CAST({name} AS INTEGER)" for name in _Chunk._fields)
        sql = f"SELECT {columns} FROM chunk"
        if pass_id is None:
            rows = self._archive.rows(f"{sql} ORDER BY id")
        else:
            sql += " WHERE first_pass <= ? AND last_pass >= ? ORDER BY id"
            rows = self._archive.rows(sql, pass_id, pass_id)
        with self._archive.reading():
            return [_Chunk(*map(int, row)) for row in rows]

    def _frames(self, chunk: _Chunk, wanted: _Wanted, flows: Flows, first_pass: int) -> list[Frame]:
        """The frames of a chunk that are wanted or end a pass; other nodes' go to their flow."""
        frames = self._read(chunk)
        found: list[Frame] = []
        only, kinds, since, until = wanted.pass_id, wanted.kinds, wanted.since, wanted.until
        with self._archive.reading():
            for offset, kind, pass_id, seq in scan_frames(frames):
                if seq >= until or (only is not None and pass_id != only):
                    continue
                if seq >= since and kinds >> kind & 1:
                    found.append((seq, kind, pass_id, frames, offset, True))
                elif kind == PASS_END_CODE:
                    found.append((seq, kind, pass_id, frames, offset, False))
                elif pass_id >= first_pass and kind == NODE_CODE:
                    flows[pass_id].ran_packed(frames, offset)
        return found

    def _read(self, chunk: _Chunk) -> bytes:
        sound = "CASE WHEN length(frames) <= ? THEN CAST(frames AS BLOB) END"
        rows = self._archive.rows(f"SELECT {sound} FROM chunk WHERE id = ?", _MOST_BYTES, chunk.id)
        if not rows:  # deleted since the index was read, to keep within the limits of a recording
            return b""
        if rows[0][0] is None:
            raise damaged(self._archive.label, f"chunk {chunk.id} has no sound length")
        frames: bytes = rows[0][0]
        return frames


def _floors(chunks: Sequence[_Chunk]) -> list[int | None]:
    """For each chunk, the least seq in any later one; None after the last."""
    floors: list[int | None] = []
    least: int | None = None
    for chunk in reversed(chunks):
        floors.append(least)
        least = chunk.first_seq if least is None else min(least, chunk.first_seq)
    return floors[::-1]
