"""Events in as they happen; a line of each that is wanted out, at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from tracer.records.events import Event, Mark
from tracer.records.picking import Selection, Sieve
from tracer.records.trace import TraceRecord
from tracer.render.columns import Columns
from tracer.render.flat_teller import FlatTeller

_STEPS = 7
"""Columns for the number of a pass and a step in it; longer ones push the line to the right."""


class Follower:
    """Writes a line for each event of a trace that grows; `write` is given whole lines."""

    def __init__(
        self,
        trace: TraceRecord,
        selection: Selection,
        write: Callable[[str], object],
        *,
        width: int,
        color: bool,
    ) -> None:
        self._selection = selection
        self._write = write
        run = replace(trace.run, script=os.path.abspath(trace.run.script))
        trace = replace(trace, run=run)
        self._sieve = Sieve(trace, selection)
        self._teller = FlatTeller(trace, Columns(width, color, files=2, steps=_STEPS))
        self._waits_for_mark = bool(selection.since)
        self._begun = False

    def tell(self, event: Event) -> None:
        """Write the event's line, if it is wanted."""
        line = self._teller.tell(event)
        if self._is_wanted(event):
            if not self._begun:
                self._write(f"{self._teller.header()}\n")
                self._begun = True
            self._write(f"{line}\n")

    def _is_wanted(self, event: Event) -> bool:
        if self._waits_for_mark:
            if not (isinstance(event, Mark) and self._selection.since in event.text):
                return False
            self._waits_for_mark = False
        passes = self._selection.range
        if passes is not None and not passes[0] <= (event.pass_id or 0) <= passes[1]:
            return False
        return self._sieve.lets_through(event)
