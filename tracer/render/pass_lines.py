"""A trace of many passes in, a line for each out: its call, time, `.grad` and what was written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from tracer.records import words
from tracer.records.events import (
    Accumulate,
    DataWrite,
    Dropped,
    Event,
    HookAdded,
    HookRemoved,
    Mark,
    Pass,
    PassBegin,
)
from tracer.records.passes import find_pass, main_file
from tracer.records.trace import TraceRecord
from tracer.render.columns import Columns, Tone

_FEW_LEAVES = 2
_KINDS = tuple(
    kind.kind for kind in (PassBegin, Accumulate, DataWrite, Mark, HookAdded, HookRemoved, Dropped)
)


@dataclass(slots=True)
class _Pass:
    """What is known of a pass so far: the engine's writes, and each leaf's first and last value."""

    record: Pass
    accumulates: list[Accumulate] = field(default_factory=list)
    writes: dict[int, tuple[DataWrite, DataWrite]] = field(default_factory=dict)


def pass_lines(trace: TraceRecord, *, width: int, color: bool) -> Iterator[str]:
    """Tell each pass in one line, with marks and hooks in between."""
    columns = Columns(width, color)
    graphs = {record.graph for record in trace.passes}
    over = f"{words.count(len(trace.passes), 'pass')} over {words.count(len(graphs), 'graph')}"
    yield columns.dye(f"{over}, a line each: `--pass N` tells one in full", Tone.HEADING)
    digits = len(str(trace.passes[-1].id))
    current: _Pass | None = None
    for event in trace.events.select(kinds=_KINDS):
        if isinstance(event, PassBegin):
            if current is not None:
                yield _line(trace, current, columns, digits)
            current = _Pass(find_pass(trace, event.pass_id or 0))
        elif isinstance(event, Accumulate) and current is not None:
            current.accumulates.append(event)
        elif isinstance(event, DataWrite):
            if current is not None:
                first = current.writes.get(event.leaf, (event, event))[0]
                current.writes[event.leaf] = first, event
        elif not isinstance(event, Accumulate):
            if current is not None:
                yield _line(trace, current, columns, digits)
                current = None
            yield _between(event, columns, digits)
    if current is not None:
        yield _line(trace, current, columns, digits)


def _line(trace: TraceRecord, told: _Pass, columns: Columns, digits: int) -> str:
    record = told.record
    site = record.site
    call = site.text if site is not None and site.text else f"{record.kind}()"
    place = columns.place(site, main_file(trace))
    ms = words.duration(record.end_ns - record.begin_ns) if record.end_ns is not None else "no end"
    grads, values = _grads(trace, told), _values(trace, told)
    parts = [words.padded(grads, 34) if values else grads, values]
    tone = Tone.PLAIN
    if any(words.not_finite(event.after) for event in told.accumulates):
        tone = Tone.WRONG
    if not record.outcome.ok:
        parts.insert(0, f"raised {record.outcome.error}")
        tone = Tone.WRONG
    start = f"{record.id:>{digits}}  {words.padded(words.shorten(call, 26), 26)} {place:<6} {ms:>9}"
    return columns.dye(f"{start}  {'  '.join(part for part in parts if part)}".rstrip(), tone)


def _grads(trace: TraceRecord, told: _Pass) -> str:
    events = told.accumulates
    if len(events) <= _FEW_LEAVES:
        return "   ".join(
            f"{_name(trace, event.leaf)}.grad "
            f"{words.accumulation(event.before, event.incoming, event.after)}"
            for event in events
        )
    norms = [event.incoming.norm for event in events if event.incoming and event.incoming.norm]
    whole = math.sqrt(sum(norm * norm for norm in norms))
    return f"{words.count(len(events), 'leaf')} receive ‖g‖={words.number(whole)} in all"


def _values(trace: TraceRecord, told: _Pass) -> str:
    if not told.writes or len(told.writes) > _FEW_LEAVES:
        return f"{words.count(len(told.writes), 'leaf')} written" if told.writes else ""
    return "   ".join(
        f"{_name(trace, leaf)} {words.change(first.before, last.after, norm='‖x‖')}"
        for leaf, (first, last) in told.writes.items()
    )


def _name(trace: TraceRecord, leaf_id: int) -> str:
    leaf = trace.leaves.get(leaf_id)
    return leaf.name if leaf is not None and leaf.name else "a leaf"


def _between(event: Event, columns: Columns, digits: int) -> str:
    text, tone = "", Tone.PLAIN
    if isinstance(event, Mark):
        text, tone = f"— {event.text} —", Tone.HEADING
    elif isinstance(event, (HookAdded, HookRemoved)):
        done = "added" if isinstance(event, HookAdded) else "removed"
        place = f" ({words.place(event.site, beside='')})" if event.site is not None else ""
        text, tone = f"hook {done}: {event.hook.text} on {event.hook.subject}{place}", Tone.HOOK
    elif isinstance(event, Dropped):
        text, tone = f"not recorded: {event.count:,} {event.reason}", Tone.WRONG
    return columns.dye(f"{' ' * digits}  {words.one_line(text)}", tone)
