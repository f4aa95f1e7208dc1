"""Events in, in order; a line for each that stands for itself, with its pass and moment, out."""

from __future__ import annotations

from tracer.records.events import Event, PassEnd
from tracer.records.trace import TraceRecord
from tracer.render.columns import Columns, Tone
from tracer.render.sayings import Sayings

_COLUMNS = ("pass·#", "t ms", "event", "where", "line", "gradient")


class FlatTeller:
    """Turns events into lines without headings: what is picked from many passes, what happens now.

    A line begins with the number of its pass and, of what the engine ran, its step in it.
    """

    def __init__(self, trace: TraceRecord, columns: Columns) -> None:
        self._columns = columns
        self._sayings = Sayings(trace)

    def header(self) -> str:
        """The names of the columns."""
        return self._columns.row(*_COLUMNS, Tone.FAINT)

    def tell(self, event: Event) -> str:
        """The line of an event. To be asked of all events of a pass whose steps are to be right."""
        said = self._sayings.say(event)
        running = self._sayings.at
        step = "" if event.pass_id is None else str(event.pass_id)
        if running is not None and said.counts:
            step += f"·{running.steps}"
        if isinstance(event, PassEnd):
            self._sayings.forget(event.pass_id)
        place = self._columns.place(said.site, self._sayings.main_file)
        time = f"{event.t_ns / 1e6:.3f}"
        return self._columns.row(step, time, said.event, said.where, place, said.text, said.tone)
