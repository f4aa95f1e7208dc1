"""A trace in; its events in the Trace Event Format, which Perfetto and chrome://tracing open, out.

One process with a track for what runs forward and one for what runs backward in each thread, one
for hooks and one for the ledger; an arrow from each forward operation to the runs of its nodes; and
the norms of gradients as counters. The format: "Trace Event Format", Chromium's document on
https://perfetto.dev/docs/getting-started/other-formats; `ts` and `dur` are in µs.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterator
from itertools import count

from tracer.records import words
from tracer.records.events import (
    Accumulate,
    DataWrite,
    Event,
    Forward,
    GradWrite,
    HookAdded,
    HookRemoved,
    HookRun,
    Mark,
    NodeRun,
    OptimizerStep,
    PassBegin,
    PassEnd,
)
from tracer.records.passes import find_pass
from tracer.records.picking import EVERYTHING, Region, Selection, Sieve
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord
from tracer.render.origins import Origins
from tracer.render.plain import Json
from tracer.render.sayings import Said, Sayings, call_of

Entry = dict[str, Json]

PID = 1
MARKS = 2
_FORWARD, _BACKWARD = 10, 11
"""A thread's tracks are ten times its number further."""
HOOKS, LEDGER = 1_000_001, 1_000_002
"""Perfetto 52 shows tracks in the order of their numbers, chrome://tracing by their sort index."""

_LEDGER = (Accumulate, GradWrite, DataWrite, OptimizerStep)
_HOOKS = (HookAdded, HookRemoved, HookRun)
_WAITING = 4096
"""Entries that wait to be put in order of time: what ends late is written late."""

_FORWARD_NS = 1000
_MOST_ARROWS = 255
_MOST_COUNTED = 24
"""Leaves with a counter each; of more, only the norm of all together is counted."""


def timeline_chrome(trace: TraceRecord, *, selection: Selection | None = None) -> Iterator[str]:
    """Tell a trace, or what is selected of it, as one JSON object, a line at a time.

    Entries are ordered by time. Of a forward operation only the begin is recorded: it is drawn
    1 µs wide, or up to the next. Raises `NotInTraceError`.
    """
    selection = selection or EVERYTHING
    arrows = _count_arrows(trace, selection)
    yield '{"displayTimeUnit": "ns", "traceEvents": ['
    yield _written({"name": "process_name", "ph": "M", "pid": PID, "args": {"name": _name(trace)}})
    for entry in _nested(_in_order(_Tracks(trace, selection, arrows).entries())):
        yield f",{_written(entry)}"
    about: Entry = dict(trace.run.versions)
    yield f'], "otherData": {_written(about)}}}'


def _written(entry: Entry) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False)


def _name(trace: TraceRecord) -> str:
    return words.one_line(" ".join(trace.run.argv) or trace.run.script or "a recording")


def _count_arrows(trace: TraceRecord, selection: Selection) -> bytearray:
    """How many arrows leave each forward operation, by its `seq`: a byte for each event.

    An arrow begins where the operation stands, long before it is known whether it ends.
    """
    arrows, shown = bytearray(), bytearray()
    origins, sieve = Origins(trace), Sieve(trace, selection)
    kinds = (Forward.kind, PassBegin.kind, PassEnd.kind, NodeRun.kind)
    for event in Region(trace, selection).events(kinds):
        origin = origins.note(event)
        if not sieve.lets_through(event):
            continue
        if isinstance(event, Forward):
            shown += bytes(max(event.seq + 1 - len(shown), 0))
            shown[event.seq] = 1
        elif origin is not None and origin < len(shown) and shown[origin]:
            arrows += bytes(max(origin + 1 - len(arrows), 0))
            arrows[origin] = min(arrows[origin] + 1, _MOST_ARROWS)
    return arrows


# ---- order


def _in_order(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Names of tracks first, all else by `ts`; of what begins at once, the longest first."""
    waiting: list[tuple[float, float, int, Entry]] = []
    numbers = count()
    for entry in entries:
        if entry["ph"] == "M":
            yield entry
            continue
        heapq.heappush(waiting, (_us(entry, "ts"), -_us(entry, "dur"), next(numbers), entry))
        if len(waiting) > _WAITING:
            yield heapq.heappop(waiting)[-1]
    while waiting:
        yield heapq.heappop(waiting)[-1]


def _nested(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Slices that end no later than the one around them on their track, as the format asks."""
    ends: dict[Json, list[float]] = {}
    for entry in entries:
        if entry["ph"] == "X":
            around, begin = ends.setdefault(entry["tid"], []), _us(entry, "ts")
            while around and around[-1] <= begin:
                around.pop()
            end = min([begin + _us(entry, "dur"), *around[-1:]])
            entry["dur"] = round(end - begin, 3)
            around.append(end)
        yield entry


def _us(entry: Entry, key: str) -> float:
    value = entry.get(key)
    return value if isinstance(value, float) else 0.0


# ---- entries


class _Tracks:
    """Turns events into entries, each on its track."""

    def __init__(self, trace: TraceRecord, selection: Selection, arrows: bytearray) -> None:
        self._trace = trace
        self._region = Region(trace, selection)
        self._sieve = Sieve(trace, selection)
        self._sayings = Sayings(trace)
        self._origins = Origins(trace)
        self._begun, self._ended = arrows, bytearray(len(arrows))
        self._named: set[int] = set()
        self._squares: dict[int, float] = {}

    def entries(self) -> Iterator[Entry]:
        """The entries of all selected events, names of tracks where one is first used."""
        for event in self._region.events():
            said, origin = self._sayings.say(event), self._origins.note(event)
            if self._sieve.lets_through(event):
                yield from self._entry(event, said, origin)
            if isinstance(event, PassEnd):
                self._sayings.forget(event.pass_id)

    def _entry(self, event: Event, said: Said, origin: int | None) -> Iterator[Entry]:
        if isinstance(event, PassBegin):
            yield from self._pass(event, said)
        elif isinstance(event, PassEnd):
            norm = math.sqrt(self._squares.pop(event.pass_id or 0, 0.0))
            yield from _counter(event, "‖g‖ that leaves received in a pass", norm)
        elif isinstance(event, NodeRun):
            yield from self._node(event, said, origin)
        elif isinstance(event, Forward):
            yield from self._forward(event, said)
        elif isinstance(event, _HOOKS):
            yield from self._moment(event, said, HOOKS, "hooks")
        elif isinstance(event, _LEDGER):
            yield from self._moment(event, said, LEDGER, "ledger")
            if isinstance(event, Accumulate):
                yield from self._accumulated(event)
        elif isinstance(event, Mark):
            yield from self._moment(event, said, MARKS, "marks", name=event.text)
        else:
            yield from self._moment(event, said, *self._forward_track(event))

    def _forward_track(self, event: Event) -> tuple[int, str]:
        return _FORWARD + 10 * event.thread, _of_thread("forward", event.thread)

    def _backward_track(self, event: Event) -> tuple[int, str]:
        return _BACKWARD + 10 * event.thread, _of_thread("backward", event.thread)

    def _pass(self, event: PassBegin, said: Said) -> Iterator[Entry]:
        record = find_pass(self._trace, event.pass_id or 0)
        name = f"pass {record.id}: {call_of(record)}"
        end = record.end_ns
        yield from self._slice(event, said, self._backward_track(event), name=name, end_ns=end)

    def _node(self, event: NodeRun, said: Said, origin: int | None) -> Iterator[Entry]:
        track = self._backward_track(event)
        end = event.end_ns
        if end is None:
            end = find_pass(self._trace, event.pass_id or 0).end_ns
        yield from self._slice(event, said, track, name=said.event, end_ns=end)
        if origin is not None and origin < len(self._begun):
            number = self._ended[origin]
            if number < self._begun[origin]:
                self._ended[origin] = number + 1
                yield _arrow("f", origin, number, event.t_ns, track[0])
        for seen in event.received[:1]:
            yield from _counter(event, "‖g‖ that the node received", _norm(seen))

    def _forward(self, event: Forward, said: Said) -> Iterator[Entry]:
        track = self._forward_track(event)
        name = f"{event.cut.kind}: {event.op}" if event.cut is not None else event.op
        end = event.t_ns + _FORWARD_NS
        yield from self._slice(event, said, track, name=name, end_ns=end)
        if event.seq < len(self._begun):
            for number in range(self._begun[event.seq]):
                yield _arrow("s", event.seq, number, event.t_ns, track[0])

    def _accumulated(self, event: Accumulate) -> Iterator[Entry]:
        squares = self._squares.get(event.pass_id or 0, 0.0)
        self._squares[event.pass_id or 0] = squares + (_norm(event.incoming) or 0.0) ** 2
        leaf = self._trace.leaves.get(event.leaf)
        if leaf is not None and len(self._trace.leaves) <= _MOST_COUNTED:
            name = words.one_line(leaf.name or f"leaf {leaf.id}")
            yield from _counter(event, f"‖{name}.grad‖", _norm(event.after))

    # ---- forms of entries

    def _slice(
        self, event: Event, said: Said, track: tuple[int, str], *, name: str, end_ns: int | None
    ) -> Iterator[Entry]:
        """A slice; where the end is not known, the begin of one that does not end."""
        yield from self._track(*track)
        entry: Entry = {"name": words.one_line(name), "cat": event.kind, "ph": "B"}
        entry |= {"ts": _ts(event.t_ns), "pid": PID, "tid": track[0], "args": _args(event, said)}
        if end_ns is not None:
            entry |= {"ph": "X", "dur": _ts(max(end_ns - event.t_ns, 0))}
        yield entry

    def _moment(
        self, event: Event, said: Said, tid: int, track: str, *, name: str = ""
    ) -> Iterator[Entry]:
        yield from self._track(tid, track)
        name = words.one_line(name or f"{said.event} {said.where}".strip())
        entry: Entry = {"name": name, "cat": event.kind, "ph": "i", "s": "t", "pid": PID}
        yield entry | {"ts": _ts(event.t_ns), "tid": tid, "args": _args(event, said)}

    def _track(self, tid: int, name: str) -> Iterator[Entry]:
        """The name of a track and its place among the others, the first time it is used."""
        if tid not in self._named:
            self._named.add(tid)
            of_track: Entry = {"ph": "M", "pid": PID, "tid": tid}
            yield of_track | {"name": "thread_name", "args": {"name": name}}
            yield of_track | {"name": "thread_sort_index", "args": {"sort_index": tid}}


def _of_thread(what: str, thread: int) -> str:
    return what if thread == 0 else f"{what}, thread {thread}"


def _ts(ns: int) -> float:
    return ns / 1000


def _arrow(ph: str, origin: int, number: int, t_ns: int, tid: int) -> Entry:
    entry: Entry = {"name": "backward of", "cat": "flow", "ph": ph, "id": origin * 256 + number}
    entry |= {"ts": _ts(t_ns), "pid": PID, "tid": tid}
    return entry | {"bp": "e"} if ph == "f" else entry


def _counter(event: Event, name: str, norm: float | None) -> Iterator[Entry]:
    """A norm at a moment; one that is no number leaves no point."""
    if norm is not None and math.isfinite(norm):
        yield {"name": name, "ph": "C", "ts": _ts(event.t_ns), "pid": PID, "args": {"norm": norm}}


def _norm(seen: Gradient | None) -> float | None:
    return None if seen is None else seen.norm


def _args(event: Event, said: Said) -> Entry:
    args: Entry = {"seq": event.seq}
    if event.pass_id is not None:
        args["pass"] = event.pass_id
    if said.where:
        args["where"] = words.one_line(said.where)
    if said.site is not None:
        args["line"] = f"{said.site.file}:{said.site.line}"
    if said.text:
        args["gradient"] = words.one_line(said.text)
    return args
