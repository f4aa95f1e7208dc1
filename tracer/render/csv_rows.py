"""A trace in, a row of comma-separated values for each tensor of each event out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping

from tracer.records import words
from tracer.records.picking import EVERYTHING, Selection, select_events
from tracer.records.trace import TraceRecord
from tracer.render.plain import Json, plain_event

HEADER = (
    "seq", "t_ns", "end_ns", "thread", "pass", "event", "name", "text", "file", "line", "function",
    "role", "slot", "shape", "dtype", "norm", "min", "max", "mean", "zeros", "nans", "infs",
    "values", "unread",
)  # fmt: skip
"""The columns. `role` is the field of the event that a tensor is (`received`, `before`, …), and
`slot` its place there; these and what follows are empty for an event without a tensor."""

_PLACE = ("file", "line", "function")
_NAMES = ("name", "op", "tensor", "optimizer", "mode", "reason")
_FORMULA = tuple("=+-@\t\r")


def timeline_csv(trace: TraceRecord, *, selection: Selection | None = None) -> Iterator[str]:
    """Tell a trace, or what is selected of it, as a table for spreadsheets and data frames.

    Text that a spreadsheet would take for a formula has an apostrophe in front. Raises
    `NotInTraceError`.
    """
    yield ",".join(HEADER)
    graphs = {record.id: record.graph for record in trace.passes}
    for event in select_events(trace, selection or EVERYTHING):
        entry = plain_event(event, trace, graphs)
        about = _about(entry)
        for tensor in list(_tensors(entry)) or [{}]:
            row = about | tensor
            yield _line([row.get(column) for column in HEADER])


def _about(entry: Mapping[str, Json]) -> dict[str, Json]:
    """What an event's rows have in common."""
    about = {column: entry.get(column) for column in HEADER[:6]}
    hook, site = entry.get("hook"), entry.get("site")
    about["name"] = next((entry[key] for key in _NAMES if entry.get(key)), None)
    about["text"] = entry.get("text") or entry.get("how")
    if isinstance(hook, dict):
        about |= {"name": hook.get("subject"), "text": hook.get("text")}
        site = site or hook.get("defined")
    if isinstance(site, dict):
        about |= {column: site.get(column) for column in _PLACE}
        about["text"] = about["text"] or site.get("text")
    return about


def _tensors(entry: Mapping[str, Json]) -> Iterator[dict[str, Json]]:
    """The tensors of an event, each with the field it is in and its place there."""
    for role, value in entry.items():
        for slot, tensor in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(tensor, dict) and "dtype" in tensor:
                yield tensor | {"role": role, "slot": slot}


def _line(row: list[Json]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: Json) -> object:
    if isinstance(value, list):
        return json.dumps(value)
    if not isinstance(value, str):
        return value
    text = words.one_line(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
