"""An event in, the plain dictionaries, lists, strings and numbers of its JSON line out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from tracer.records.events import Accumulate, DataWrite, Event, GradWrite, NodeRun
from tracer.records.graph import Site
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def plain_event(event: Event, trace: TraceRecord, graphs: Mapping[int, int]) -> dict[str, Json]:
    """One event as JSON: what it is first, then its fields, those that say nothing left out.

    `graphs` is the graph of each pass. Nodes and leaves are named beside their numbers.
    """
    entry: dict[str, Json] = {"seq": event.seq, "t_ns": event.t_ns, "event": event.kind}
    if event.pass_id is not None:
        entry["pass"] = event.pass_id
    graph_id = graphs.get(event.pass_id or 0)
    if isinstance(event, NodeRun) and graph_id is not None:
        node = trace.graphs[graph_id].unpacked.nodes[event.node]
        entry |= {
            "name": node.name,
            "text": node.site.text if node.site is not None else "",
            "site": plain(node.site),
        }
    if isinstance(event, (Accumulate, GradWrite, DataWrite)) and event.leaf in trace.leaves:
        entry["name"] = trace.leaves[event.leaf].name
    for field in fields(event):
        value = getattr(event, field.name)
        if field.name not in ("seq", "t_ns", "pass_id") and value not in (None, "", ()):
            entry[field.name] = plain(value)
    return {key: value for key, value in entry.items() if value is not None}


def plain(value: object) -> Json:
    """A record, or anything in one, as JSON; what is not finite becomes `"nan"` or `"inf"`."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, Site):
        return {
            "file": value.file, "line": value.line, "function": value.function, "text": value.text
        }  # fmt: skip
    if isinstance(value, Gradient):
        return _plain_gradient(value)
    if is_dataclass(value):
        found = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return {name: item for name, item in found.items() if item not in (None, "", [])}
    return str(value)


def _plain_gradient(seen: Gradient) -> Json:
    entry: dict[str, Json] = {"shape": list(seen.meta.shape), "dtype": seen.meta.dtype}
    if seen.meta.device != "cpu":
        entry["device"] = seen.meta.device
    for name in ("norm", "min", "max", "mean", "zeros", "nans", "infs", "values"):
        value = getattr(seen, name)
        if value is not None:
            entry[name] = plain(value)
    if seen.unread:
        entry["unread"] = seen.unread
    return entry
