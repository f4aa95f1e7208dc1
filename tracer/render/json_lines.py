"""A trace in, its events as JSON, complete, an object a line, out."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tracer.records.picking import EVERYTHING, Selection, select_events
from tracer.records.trace import TraceRecord
from tracer.render.plain import plain_event


def timeline_jsonl(trace: TraceRecord, *, selection: Selection | None = None) -> Iterator[str]:
    """Tell a trace, or what is selected of it, as JSON lines; raises `NotInTraceError`."""
    graphs = {record.id: record.graph for record in trace.passes}
    for event in select_events(trace, selection or EVERYTHING):
        yield json.dumps(plain_event(event, trace, graphs), ensure_ascii=False, allow_nan=False)
