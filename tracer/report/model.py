"""A trace in; all that a page shows about it, as plain data, out."""

from __future__ import annotations

from dataclasses import dataclass

from tracer.records import Pass, TraceRecord, words
from tracer.report.figures import MOST_GRAPHS, Figure, draw_figures, group_by_graph
from tracer.report.ledger import MOST_LEAVES, LeafLedger, read_ledgers
from tracer.report.plots import Plot, plot_leaves
from tracer.report.sources import Listing, list_sources
from tracer.report.story import Chapter, tell_story

MOST_PASSES = 20


@dataclass(frozen=True, slots=True)
class PassRow:
    """One pass in a table: what was called where, what ran, how long, and how it failed."""

    pass_id: int
    call: str
    place: str
    graph: int
    counts: str
    time: str
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What the page of one trace shows.

    `facts` are short phrases below the title, `warnings` what was left out or went wrong;
    `graphs_skipped`, `passes_skipped` and `leaves_skipped` count what did not fit.
    """

    title: str
    facts: tuple[str, ...]
    warnings: tuple[str, ...]
    figures: tuple[Figure, ...]
    graphs_skipped: int
    passes: tuple[PassRow, ...]
    passes_skipped: int
    plots: tuple[Plot, ...]
    ledgers: tuple[LeafLedger, ...]
    leaves_skipped: int
    story: tuple[Chapter, ...]
    sources: tuple[Listing, ...]


def read_report(trace: TraceRecord) -> Report:
    """Read from a trace all that its page shows."""
    graphs = group_by_graph(trace.passes)
    return Report(
        title=words.one_line(trace.run.script) or "Trace",
        facts=_facts(trace, len(graphs)),
        warnings=tuple(_warnings(trace)),
        figures=draw_figures(trace, trace.passes),
        graphs_skipped=max(len(graphs) - MOST_GRAPHS, 0),
        passes=tuple(_row(one) for one in _ends(trace)),
        passes_skipped=max(len(trace.passes) - MOST_PASSES, 0),
        plots=plot_leaves(trace),
        ledgers=read_ledgers(trace),
        leaves_skipped=max(len(trace.leaves) - MOST_LEAVES, 0),
        story=tell_story(trace),
        sources=list_sources(trace),
    )


def _facts(trace: TraceRecord, graphs: int) -> tuple[str, ...]:
    counts = [
        words.count(len(trace.passes), "pass"),
        words.count(graphs, "graph"),
        words.count(len(trace.leaves), "leaf"),
        words.count(len(trace.events), "event"),
    ]
    return (*counts, *(f"{name} {version}" for name, version in trace.run.versions))


def _warnings(trace: TraceRecord) -> list[str]:
    found = [f"Left out {number:,}: {reason}." for reason, number in trace.dropped.items()]
    if not trace.complete:
        found.append("The recording was cut off: it ends where the process last wrote to its file.")
    if trace.run.outcome not in ("", "ok"):
        found.append(f"The program ended with {words.one_line(trace.run.outcome)}.")
    return found


def _ends(trace: TraceRecord) -> list[Pass]:
    """Return all passes, or the first and the last where there are more than `MOST_PASSES`."""
    if len(trace.passes) <= MOST_PASSES:
        return list(trace.passes)
    half = MOST_PASSES // 2
    return [*trace.passes[:half], *trace.passes[len(trace.passes) - half :]]


def _row(one: Pass) -> PassRow:
    operations = one.node_count - one.leaf_count
    outcome = one.outcome
    return PassRow(
        pass_id=one.id,
        call=words.shorten(one.site.text, 80) if one.site else one.kind,
        place=words.file_line(one.site) if one.site else "",
        graph=one.graph,
        counts=f"{words.count(operations, 'node')}, {words.count(one.leaf_count, 'leaf')}",
        time=words.duration(one.end_ns - one.begin_ns) if one.end_ns is not None else "never ended",
        failure="" if outcome.ok else words.shorten(f"{outcome.error}: {outcome.message}", 120),
    )
