"""Events in, in order; the lines of a timeline out, each pass under a heading of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tracer.records import words
from tracer.records.events import Event, Forward, Mark, PassBegin, PassEnd
from tracer.records.trace import TraceRecord
from tracer.render.columns import Columns
from tracer.render.running import Running
from tracer.render.sayings import Said, Sayings, call_of

_MERGED = (Forward.kind, "cut")


@dataclass(slots=True)
class _Held:
    """A line held back to see how often it comes in a row."""

    event: Event
    said: Said
    times: int = 1


class Teller:
    """Turns events into lines, knowing which passes are running."""

    def __init__(self, trace: TraceRecord, columns: Columns) -> None:
        self._columns = columns
        self._sayings = Sayings(trace)
        self._running = self._sayings.running
        self._section: object = "nothing"
        self._held: _Held | None = None

    def tell(self, event: Event) -> Sequence[str]:
        """The lines that are complete with this event: equal operations in a row are one line."""
        said = self._sayings.say(event)
        held = self._held
        if held is None and said.counts:  # a step of a pass, as nearly all are
            return self._told(event, said, self._sayings.at)
        lines: list[str] = []
        if held is not None:
            is_same = held.said.where == said.where and held.said == said  # where, most differ
            if is_same and held.event.pass_id == event.pass_id:
                held.times += 1
                return ()
            lines = self.finish()
        if said.event in _MERGED:
            self._held = _Held(event, said)
        elif isinstance(event, PassEnd):
            lines += self._end(event, said)
        elif isinstance(event, Mark):
            lines += self._mark(event)
        elif not isinstance(event, PassBegin):
            lines += self._told(event, said, self._running.get(event.pass_id or 0))
        return lines

    def finish(self) -> list[str]:
        """The lines that were held back."""
        held, self._held = self._held, None
        if held is None:
            return []
        running = self._running.get(held.event.pass_id or 0)
        return self._told(held.event, held.said, running, held.times)

    def _told(
        self, event: Event, said: Said, running: Running | None, times: int = 1
    ) -> list[str]:  # fmt: skip
        return [*self._enter(event, running), self._row(event, said, running, times)]

    # ---- sections

    def _enter(self, event: Event, running: Running | None) -> Sequence[str]:
        """The lines that head those of a pass, or set those between passes apart."""
        section = event.pass_id if running is not None else None
        if section == self._section:
            return ()
        apart = [""] if self._section != "nothing" else []
        self._section = section
        if running is None:
            return apart
        heads = self._head(running)
        running.headed = True
        return [*apart, *heads]

    def _mark(self, mark: Mark) -> Iterator[str]:
        """Set what comes after a mark apart, under a heading."""
        if self._section != "nothing":
            yield ""
        self._section = "nothing"
        place = self._columns.place(mark.site, self._sayings.main_file)
        when = words.duration(mark.t_ns) if self._columns.times else ""
        facts = " · ".join(filter(None, (place, when)))
        yield self._columns.rule(mark.text, facts)

    def _head(self, running: Running) -> Sequence[str]:
        record, columns = running.record, self._columns
        inside = f" (inside pass {record.parent})" if record.parent is not None else ""
        again = " goes on" if running.headed else inside
        facts = [words.file_line(record.site)] if record.site is not None else []
        facts += [f"thread {record.thread}"] if record.thread else []
        if record.end_ns is not None:
            facts.append(words.counts(record.node_count, record.leaf_count))
            took = record.end_ns - record.begin_ns
            facts += [words.duration(took)] * (took > 0)
        call = words.shorten(call_of(record), columns.call)
        heading = columns.heading(f"pass {record.id}{again}  {call}", " · ".join(facts))
        return heading, columns.header()

    def _end(self, event: PassEnd, said: Said) -> Iterator[str]:
        running = self._running.get(event.pass_id or 0)
        if running is None:
            return
        if not running.headed:
            yield from self._enter(event, running)
        if not running.record.outcome.ok:
            yield self._row(event, said, running)
        self._sayings.forget(event.pass_id)

    def _row(self, event: Event, said: Said, running: Running | None, times: int = 1) -> str:
        step = ""
        if running is not None:
            time = _microseconds(event.t_ns - running.record.begin_ns)
            step = str(running.steps) if said.counts else ""
        else:
            time = f"{event.t_ns / 1e6:.3f} ms"
        site = said.site
        place = "" if site is None else self._columns.place(site, self._sayings.main_file)
        text = f"{said.text}  ×{times}" if times > 1 else said.text
        return self._columns.row(step, time, said.event, said.where, place, text, said.tone)


def _microseconds(ns: int) -> str:
    """`3.2`, `12`, `151,983`: tenths only where they say something."""
    return f"{ns / 1e3:,.0f}" if ns >= 1e8 else f"{ns / 1e3:,.1f}".removesuffix(".0")
