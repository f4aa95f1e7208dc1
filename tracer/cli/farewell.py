"""A trace in; the lines that `tracer run` ends with out."""

from __future__ import annotations

import shlex
from pathlib import Path

from tracer.records import TraceRecord
from tracer.records.words import count


def describe_trace(path: str, record: TraceRecord) -> str:
    """Return what the trace holds, what it left out, and the next commands, a line each."""
    lines = [
        f"tracer: {path}: {count_all(record)}",
        *(f"  left out: {number:,} × {reason}" for reason, number in record.dropped.items()),
        *next_commands(path),
    ]
    return "".join(f"{line}\n" for line in lines)


def describe_nothing(script: str, path: str) -> str:
    """Return what to say where there was nothing to record."""
    return f"tracer: {script} did not import torch: nothing to record, {path} not written\n"


def count_all(record: TraceRecord) -> str:
    """Return `200 passes over 1 graph: 5 nodes, 2 leaves`, the nodes and leaves of the graphs."""
    if not record.passes:
        return "no backward pass ran"
    graphs = record.graphs.values()
    passes, structures = count(len(record.passes), "pass"), count(len(graphs), "graph")
    nodes = count(sum(len(graph.nodes) for graph in graphs), "node")
    leaves = count(sum(len(graph.leaves) for graph in graphs), "leaf")
    return f"{passes} over {structures}: {nodes}, {leaves}"


def next_commands(path: str) -> list[str]:
    """Return the commands that show the trace."""
    trace = shlex.quote(path)
    picture = shlex.quote(Path(path).with_suffix(".svg").name)
    return [
        f"  tracer show {trace}",
        f"  tracer draw {trace} -o {picture}",
        f"  tracer timeline {trace}",
    ]
