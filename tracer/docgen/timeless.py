"""A trace in; the same trace with every time at 0 out, so that a document always reads the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tracer.records import Accumulate, Event, EventLog, NodeRun, Pass, TraceRecord


@dataclass(frozen=True, slots=True)
class TimelessLog:
    """The events of a log, each at 0 and of no duration."""

    log: EventLog

    def __iter__(self) -> Iterator[Event]:
        return self.select()

    def __len__(self) -> int:
        return len(self.log)

    @property
    def last_seq(self) -> int:
        """The greatest `seq` of all events, 0 where there is none."""
        return self.log.last_seq

    def select(
        self, *, pass_id: int | None = None, kinds: Sequence[str] = (), since: int = 0
    ) -> Iterator[Event]:
        """The events of one pass (or of all), of the named kinds (or all), from `since` on."""
        for event in self.log.select(pass_id=pass_id, kinds=kinds, since=since):
            if isinstance(event, (NodeRun, Accumulate)) and event.end_ns is not None:
                yield replace(event, t_ns=0, end_ns=0)
            else:
                yield replace(event, t_ns=0)


def without_times(trace: TraceRecord) -> TraceRecord:
    """Return a trace that says nothing of how long anything took."""
    passes = tuple(_timeless(one) for one in trace.passes)
    return replace(trace, passes=passes, events=TimelessLog(trace.events))


def _timeless(one: Pass) -> Pass:
    return replace(one, begin_ns=0, end_ns=None if one.end_ns is None else 0)
