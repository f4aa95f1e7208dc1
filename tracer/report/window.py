"""A trace in; the part of it between two moments, or its parts pass by pass, out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tracer.records import Event, EventLog, TraceRecord


@dataclass(frozen=True, slots=True)
class EventWindow:
    """The events of a log whose `seq` is greater than `after` and at most `until`."""

    log: EventLog
    after: int = 0
    until: int = sys.maxsize

    def __iter__(self) -> Iterator[Event]:
        return self.select()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def last_seq(self) -> int:
        """The greatest `seq` of all events, 0 where there is none."""
        return max((event.seq for event in self), default=0)

    def select(
        self, *, pass_id: int | None = None, kinds: Sequence[str] = (), since: int = 0
    ) -> Iterator[Event]:
        """The events of one pass (or of all), of the named kinds (or all), from `since` on."""
        since = max(since, self.after + 1)
        for event in self.log.select(pass_id=pass_id, kinds=kinds, since=since):
            if event.seq > self.until:
                return
            yield event


def look_at(trace: TraceRecord, after: int, until: int) -> TraceRecord:
    """Return the trace with the events in (after, until] and the passes that began there."""
    events = EventWindow(trace.events, after, until)
    began = {event.pass_id for event in events.select(kinds=("pass_begin",))}
    passes = tuple(one for one in trace.passes if one.id in began)
    return replace(trace, events=events, passes=passes)


@dataclass(frozen=True, slots=True)
class Episode:
    """What led to a pass and the pass itself: the events in (after, until].

    `passes` are their numbers: several where passes ran at once or inside one another, none for
    what came after the last.
    """

    after: int
    until: int
    passes: tuple[int, ...] = ()


def cut_into_episodes(trace: TraceRecord) -> list[Episode]:
    """Cut a trace's events behind each pass, wherever no other pass still runs."""
    episodes: list[Episode] = []
    after, running, passes = _before_first(trace), set[int](), list[int]()
    for event in trace.events.select(kinds=("pass_begin", "pass_end")):
        number = event.pass_id or 0
        if event.kind == "pass_begin":
            running.add(number)
            passes.append(number)
            continue
        running.discard(number)
        if not running and passes:
            episodes.append(Episode(after, event.seq, tuple(passes)))
            after, passes = event.seq, []
    last = max((event.seq for event in trace.events.select(since=after + 1)), default=after)
    if last > after:
        episodes.append(Episode(after, last, tuple(passes)))
    return episodes


def _before_first(trace: TraceRecord) -> int:
    first = next(iter(trace.events), None)
    return first.seq - 1 if first is not None else 0
