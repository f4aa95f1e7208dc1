"""The figures of the benchmarks in; tables in Markdown out, for a terminal and the documentation.

python benchmarks/tables.py benchmarks/figures.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def comparison(told: dict[str, Any]) -> Iterator[str]:
    """Yield paragraphs and tables about each benchmark that there are figures of."""
    for part, about in _PARTS.items():
        if part in told:
            yield from about(told[part]["rows"])
            yield _measured(told[part], part)


def _measured(part: dict[str, Any], name: str) -> str:
    machine = part["machine"]
    load = machine.get("load")
    busy = f", {load:.1f} other processes at work on average as it began" if load else ""
    stopped = "" if part.get("complete", True) else " It was stopped before it had measured all."
    return (
        f"Measured on {machine['date']}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}, PyTorch {machine['torch']}, tracer "
        f"{machine['tracer']}{busy}, with `benchmarks/{name}.py`.{stopped}"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    lines = [
        f"| {' | '.join(columns)} |",
        "|" + "---|" * left + "---:|" * (len(columns) - left),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines)


def _across(rows: list[Row], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


# ---- what watching costs


def _overhead(rows: list[Row]) -> Iterator[str]:
    """A row for each workload, a column for each way of watching."""
    watchers = [one for one in _across(rows, "watcher") if one != "untraced"]
    cells = {(row["workload"], row["watcher"]): row for row in rows}
    yield (
        "## What watching a training step costs\n\nHow many times as long a step takes as an "
        "untraced one: the median over interleaved rounds, with the quartiles, in CPU time of the "
        "whole process on one thread. `control` is untraced again: what differs from 1 there is "
        "noise. Less is better; a dash is what was not measured. What a tool does once the region "
        "ends is not in it: the profiler sorts its events then. torchlens takes no turns: a few of "
        "its steps are compared with untraced ones before them."
    )
    table = [
        [name, *(_ratio(cells.get((name, one))) for one in watchers)]
        for name in _across(rows, "workload")
    ]
    yield _table(["workload", *watchers], table)


def _ratio(row: Row | None) -> str:
    if row is None:
        return "–"
    if row["ratio"] is None:
        return str(row["failure"])
    if row["ratio"] >= 100:
        return f"{row['ratio']:,.0f}"
    if row["lower_quartile"] == row["upper_quartile"]:  # of one round
        return f"{row['ratio']:.2f}"
    return f"{row['ratio']:.2f} ({row['lower_quartile']:.2f}–{row['upper_quartile']:.2f})"


# ---- reading a graph


def _extraction(rows: list[Row]) -> Iterator[str]:
    yield (
        "## What reading a graph costs\n\nMilliseconds of CPU time for the graph behind a loss, "
        "without any layout: `tracer.walk`, which gives plain records with the names of leaves; "
        "`tracer.make_dot`, and torchviz's `make_dot`. A star is a graph so deep that a way ends "
        "in a RecursionError unless Python's limit is lifted, as it was here."
    )
    ways = _across(rows, "way")
    cells = {(row["workload"], row["way"]): row for row in rows}
    nodes = {row["workload"]: row["nodes"] for row in rows}
    table = [
        [
            name,
            f"{count:,}",
            *(
                f"{cells[name, way]['ms']:,.1f}" + "*" * cells[name, way]["recursion"]
                for way in ways
            ),
        ]
        for name, count in nodes.items()
    ]
    named = {"walk": "`tracer.walk`", "make_dot": "`tracer.make_dot`", "torchviz": "torchviz"}
    yield _table(["workload", "nodes", *(named[way] for way in ways)], table)


# ---- writing and reading traces


def _writing(rows: list[Row]) -> Iterator[str]:
    yield (
        "## What a trace takes\n\nEach workload was trained until a million nodes had run, "
        "untraced and recorded with the defaults. A node's bytes are the whole file by the nodes "
        "that ran: forward operations, writes, names and sources are in it. Memory is by how much "
        "more the recorded process grew."
    )
    table = [
        [
            row["workload"], f"{row['nodes']:,}", f"{row['events']:,}",
            f"{row['file_bytes'] / 1e6:,.0f} MB", f"{row['node_bytes']:.0f}",
            f"{row['event_bytes']:.0f}", f"{row['added_us']:.2f} µs", f"{row['events_per_s']:,}",
            f"{row['memory_mb'] - row['untraced_memory_mb']:.0f} MB",
        ]
        for row in rows
    ]  # fmt: skip
    columns = [
        "workload", "nodes run", "events", "file", "bytes a node", "bytes an event",
        "added an event", "events a second added", "memory",
    ]  # fmt: skip
    yield _table(columns, table)


def _kernels(rows: list[Row]) -> Iterator[str]:
    yield (
        "## What reading a large gradient costs\n\nMilliseconds for norm, minimum, maximum, mean "
        "and the numbers of zeros, NaNs and Infs of one contiguous float32 tensor: in one pass by "
        "tracer, and by torch's own operations, on so many threads. The least wall time of 15 "
        "rounds."
    )
    table = [
        [f"{row['megabytes']:,} MB", str(row["threads"]), f"{row['tracer_ms']:.2f}",
         f"{row['torch_ms']:.2f}"]
        for row in rows
    ]  # fmt: skip
    yield _table(["tensor", "threads", "tracer", "torch"], table)


def _reading(rows: list[Row]) -> Iterator[str]:
    traces = {row["shape"]: row for row in rows}
    told = "; ".join(
        f"`{shape}`: {row['events']:,} events in {row['passes']:,} passes"
        for shape, row in traces.items()
    )
    yield (
        "## What reading a trace costs\n\nSeconds of wall and CPU time, and the memory at most, of "
        f"whole commands, the start of Python included. Traces: {told}."
    )
    cells = {(row["shape"], row["command"]): row for row in rows}
    table = [
        [name, *(_took(cells.get((shape, name))) for shape in traces)]
        for name in _across(rows, "command")
    ]
    yield _table(["command", *(f"`{shape}`" for shape in traces)], table)


def _took(row: Row | None) -> str:
    if row is None:
        return "–"
    return f"{row['wall_s']:.2f} s ({row['cpu_s']:.2f} CPU), {row['megabytes']:.0f} MB"


def _draw(rows: list[Row]) -> Iterator[str]:
    yield (
        "## What drawing a large graph costs\n\nThe whole command `tracer draw run.trace -o "
        "picture.svg` beside torchviz's `make_dot` with Graphviz's layout: seconds, and MB of "
        "memory at most. `deep` is torchviz with Python's recursion limit out of its way."
    )
    ways = _across(rows, "way")
    cells = {(row["shape"], row["nodes"], row["way"]): row for row in rows}
    table = [
        [shape, f"{nodes:,}", *(_drawn(cells.get((shape, nodes, way))) for way in ways)]
        for shape, nodes in dict.fromkeys((row["shape"], row["nodes"]) for row in rows)
    ]
    yield _table(["graph", "nodes", *ways], table)


def _drawn(row: Row | None) -> str:
    if row is None:
        return "–"
    return str(row["failure"] or f"{row['seconds']:.1f} s, {row['peak_mib']:.0f} MB")


_PARTS: dict[str, Callable[[list[Row]], Iterator[str]]] = {
    "overhead": _overhead,
    "extraction": _extraction,
    "writing": _writing,
    "kernels": _kernels,
    "reading": _reading,
    "draw": _draw,
}


if __name__ == "__main__":
    text = "\n\n".join(comparison(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    sys.stdout.write(text + "\n")
