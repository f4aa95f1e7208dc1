"""A trace in; the lines that `tracer run` ends with out."""

from __future__ import annotations

import shlex
from pathlib import Path

from tracer.records import TraceRecord
from tracer.records.gaps import gaps_of
from tracer.records.words import count, counts

_MOST_GRAPHS = 16
"""To be read for their sizes before the process may end."""


def describe_trace(path: str, record: TraceRecord) -> str:
    """Return what the trace holds, what it left out, and the next commands, a line each."""
    lines = [
        f"tracer: {path}: {count_all(record)}",
        *(f"  left out: {gap.text}" for gap in gaps_of(record.dropped)),
        *next_commands(path),
    ]
    return "".join(f"{line}\n" for line in lines)


def describe_nothing(script: str, path: str) -> str:
    """Return what to say where there was nothing to record."""
    return f"tracer: {script} did not import torch: nothing to record, {path} not written\n"


def count_all(record: TraceRecord) -> str:
    """Return `200 passes over 1 graph: 3 nodes, 1 leaf`: nodes of all graphs, each leaf once."""
    if not record.passes:
        return "no backward pass ran"
    over = f"{count(len(record.passes), 'pass')} over {count(len(record.graphs), 'graph')}"
    if len(record.graphs) > _MOST_GRAPHS:
        return over
    graphs = list(record.graphs.values())
    operations = sum(len(graph.nodes) - len(graph.leaves) for graph in graphs)
    return f"{over}: {counts(operations + len(record.leaves), len(record.leaves))}"


def next_commands(path: str) -> list[str]:
    """Return the commands that show the trace."""
    trace = shlex.quote(path)
    picture = shlex.quote(Path(path).with_suffix(".svg").name)
    return [
        f"  tracer show {trace}",
        f"  tracer draw {trace} -o {picture}",
        f"  tracer timeline {trace}",
    ]
