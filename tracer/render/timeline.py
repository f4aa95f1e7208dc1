"""A trace in, its story in words out: one line an event, aligned, in the order things happened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tracer.records.events import Accumulate, HookRun, NodeRun, PassBegin, PassEnd
from tracer.records.gaps import gaps_of
from tracer.records.listening import tell
from tracer.records.picking import EVERYTHING, Region, Selection, Sieve, stored_kinds
from tracer.records.trace import TraceRecord
from tracer.render.columns import Columns
from tracer.render.flat_teller import FlatTeller
from tracer.render.pass_lines import pass_lines
from tracer.render.teller import Teller

MANY_PASSES = 12
"""From more passes than this on, a timeline that asks for nothing in particular has a line each."""

MANY_EVENTS = 2_000
"""So has one of several passes that would be longer than this."""

_STEPS = (NodeRun.kind, HookRun.kind, Accumulate.kind)
"""What must be read together: each counts as a step, and says what arrives at later ones."""


def timeline_text(
    trace: TraceRecord,
    *,
    selection: Selection | None = None,
    width: int | None = None,
    color: bool = False,
    wrap: bool = False,
    times: bool = True,
) -> Iterator[str]:
    """Tell a trace, or what is selected of it, a line at a time.

    A long trace is told pass by pass unless something is selected. `width` is in columns of a
    terminal (110 for a file); what flowed stands last and is never cut: it goes on behind the
    width, or with `wrap` on lines of its own. `color` adds ANSI colours, `times` a column that says
    when. Raises `NotInTraceError`.
    """
    width = width or 110
    if selection is None and _is_long(trace):
        yield from pass_lines(trace, width=width, color=color, wrap=wrap)
        yield from _gaps(trace)
        return
    selection, files = selection or EVERYTHING, len(trace.sources)
    if selection.is_particular:
        steps = len(str(trace.passes[-1].id)) + 5 if trace.passes else 5
        yield from _picked(
            trace, selection, Columns(width, color, files=files, steps=steps, wrap=wrap)
        )
    else:
        columns = Columns(width, color, files=files, wrap=wrap, times=times)
        yield from _story(trace, selection, columns)


def _is_long(trace: TraceRecord) -> bool:
    passes = len(trace.passes)
    return passes > MANY_PASSES or (passes > 1 and len(trace.events) > MANY_EVENTS)


def _story(trace: TraceRecord, selection: Selection, columns: Columns) -> Iterator[str]:
    teller, region = Teller(trace, columns), Region(trace, selection)
    for _ in tell(trace.events, teller, since=region.since, until=region.until):
        yield from teller.take()
    teller.finish()
    yield from teller.take()
    yield from _gaps(trace)


def _gaps(trace: TraceRecord) -> Iterator[str]:
    """What no line can tell of, as it was not recorded."""
    yield from (f"not recorded: {gap.text}" for gap in gaps_of(trace.dropped))


def _picked(trace: TraceRecord, selection: Selection, columns: Columns) -> Iterator[str]:
    """Tell the events that are asked for; the others of their passes count their steps."""
    sieve, teller = Sieve(trace, selection), FlatTeller(trace, columns)
    header: str | None = teller.header()
    for event in Region(trace, selection).events(_kinds_to_read(selection.kinds)):
        line = teller.tell(event)
        if sieve.lets_through(event):
            if header is not None:
                yield header
                header = None
            yield line


def _kinds_to_read(kinds: Sequence[str]) -> tuple[str, ...]:
    if not kinds:
        return ()
    steps = _STEPS if {*_STEPS} & {*kinds} else ()
    return tuple(dict.fromkeys((*stored_kinds(kinds), PassBegin.kind, PassEnd.kind, *steps)))
