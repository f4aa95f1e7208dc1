"""A trace in, a page for a terminal out: what ran, its passes, leaves, hooks, cuts and gaps."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.text import Text

from tracer.records import words
from tracer.records.events import Leaf, Pass, SavedWrite
from tracer.records.gaps import gaps_of
from tracer.records.passes import PassSort, main_file, one_sort, sorts_of
from tracer.records.trace import TraceRecord
from tracer.render.fitted_rows import Column, Row, fitted_rows
from tracer.render.left_at_the_end import (
    FIRST_EVENTS,
    LAST_EVENTS,
    HookNow,
    Seen,
    look_through,
)
from tracer.render.plot import leaf_series, sparkline
from tracer.render.stretches import fold_run, likeness, places_in
from tracer.render.why_none import why_none

_MOST_ROWS = 24
_MOST_LEAVES = 2_000
_MOST_FAILURES = 3
_PLOTTED_LEAVES = 4
_MANY_PASSES = 12
_MOST_PLOTTED = 100_000
_MOST_FOLDED = 2_000

_FIXED = Column()
_PASSES = (_FIXED, Column(12), Column(10, leave=1), Column(leave=4), Column(leave=3),
           Column(leave=2), Column(16, leave=5))  # fmt: skip
_LEAVES = (Column(28), Column(leave=2), Column(10, leave=4), Column(12), Column(leave=1),
           Column(leave=3), Column(leave=5))  # fmt: skip
_SPARKS = (Column(10), Column(12), Column(8, leave=1))
_NONE = (Column(12), Column(20), Column(10, leave=1))
_HOOKS = (Column(12), Column(14), _FIXED, Column(leave=2), Column(leave=1))
_CUTS = (_FIXED, Column(8), _FIXED, Column(16))
_GAPS = (Column(24), _FIXED, Column(12, leave=1))
_PAUSES = (Column(8), _FIXED, _FIXED)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a trace holds, for `rich` to print as wide as there is room."""

    trace: TraceRecord

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _page(self.trace, options.max_width)


def summary(trace: TraceRecord) -> Summary:
    """Say what a trace holds, for `rich` to print; long lists say how many more there are."""
    return Summary(trace)


def _page(trace: TraceRecord, width: int) -> Iterator[RenderableType]:
    seen = look_through(trace)
    yield from _what_ran(trace)
    yield from _failures(trace)
    alike = _leaves_alike(trace)[:_MOST_ROWS]
    leaves = [_leaf_row(leaves, seen) for leaves in alike]
    more = len(trace.leaves) - sum(map(len, alike))
    sections = (
        ("passes", list(_passes(trace)), _PASSES, ""),
        ("leaves", leaves, _LEAVES, ""),
        ("over passes", list(_sparks(trace)), _SPARKS, ""),
        ("no gradient", list(why_none(trace, seen)), _NONE, ""),
        ("hooks", list(_hooks(trace, seen)), _HOOKS, ""),
        ("cuts", list(_cuts(trace, seen)), _CUTS, ""),
        ("paused", list(_pauses(trace, seen)), _PAUSES, "red"),
        ("not recorded", list(_gaps(trace)), _GAPS, "red"),
    )
    for name, rows, columns, style in sections:
        if rows:
            left_out = more if name == "leaves" else len(rows) - _MOST_ROWS
            yield from _section(name, rows[:_MOST_ROWS], columns, style, width)
            if left_out > 0:
                yield Text(f"  … and {left_out:,} more", "dim")
    if seen.cut_short:
        read = f"the first {FIRST_EVENTS:,} and the last {LAST_EVENTS:,} events"
        yield from ("", Text(f"of leaves, hooks and cuts, what {read} say: ≥ there may be more"))
    if not trace.complete:
        yield from (
            "", Text("the recording was cut short: it ends at its last write", "bold red")
        )  # fmt: skip


def _section(
    name: str, rows: Sequence[Row], columns: Sequence[Column], style: str, width: int
) -> Iterator[RenderableType]:
    yield from ("", Text(name, "bold"))
    for line in fitted_rows(rows, columns, width=width):
        yield Text(line, style, no_wrap=True, overflow="crop")


# ---- what ran, and how it went


def _what_ran(trace: TraceRecord) -> Iterator[RenderableType]:
    run = trace.run
    command = " ".join(run.argv) or run.script or "a recording"
    rank = f" · rank {run.rank} of {run.world_size}" if run.world_size > 1 else ""
    yield Text(words.one_line(f"{command}{rank}"), "bold")
    if run.outcome not in ("", "ok"):
        yield Text(words.shorten(f"ended with {_ending(trace)}", 200), "bold red")
    versions = [f"{name} {version}" for name, version in run.versions]
    began = ""
    if run.started:
        when = datetime.fromtimestamp(run.started, tz=timezone.utc)
        began = f"{when:%Y-%m-%d %H:%M:%S} UTC"
    about = words.one_line(" · ".join(part for part in (began, run.host, *versions) if part))
    yield Text(about, "dim")
    counts = (
        words.count(len(trace.passes), "pass"), words.count(len(trace.graphs), "graph"),
        words.count(len(trace.leaves), "leaf"), words.count(len(trace.events), "event"),
    )  # fmt: skip
    yield Text(" · ".join(counts))
    if run.limits:
        yield Text(words.one_line(f"recorded with {run.limits}"))


def _ending(trace: TraceRecord) -> str:
    """The exception that ended the run: only its type where a pass that raised it is told of."""
    error, _, message = trace.run.outcome.partition(": ")
    ends = [end for one in _failed(trace) for end in (one.first, one.last)]
    told = any(record.outcome.message == message for record in ends if message)
    return error if told else trace.run.outcome


def _failures(trace: TraceRecord) -> Iterator[RenderableType]:
    """Passes that raised: at which node, from which line, with the message in full."""
    failed = _failed(trace)
    firsts = [one.first for one in failed[:_MOST_FAILURES]]
    for record in firsts:
        node = record.outcome.node
        at = ""
        if node is not None:
            graph = trace.graphs[record.graph]
            site = graph.nodes[node].site
            place = f" ({words.file_line(site)})" if site is not None else ""
            at = f" at {words.Titles(graph)[node]}{place}"
        yield from ("", Text(words.one_line(f"pass {record.id} failed{at}"), "bold red"))
        message = words.one_line(f"{record.outcome.error}: {record.outcome.message}")
        yield Padding(Text(message, "red"), (0, 0, 0, 2))
        for line in _who_wrote(trace, record):
            yield Padding(Text(line, "bold"), (0, 0, 0, 2))
    more = sum(one.count for one in failed) - len(firsts)
    if more:
        yield Text(f"… and {words.count(more, 'more pass')} failed", "red")


def _who_wrote(trace: TraceRecord, record: Pass) -> Iterator[str]:
    """The lines that wrote to what the nodes of a pass had kept, where that is why it raised."""
    titles = words.Titles(trace.graphs[record.graph])
    for event in trace.events.select(pass_id=record.id, kinds=(SavedWrite.kind,)):
        if isinstance(event, SavedWrite) and event.version is not None:
            wrote, place = event.how, ""
            if event.site is not None:
                wrote = event.site.statement or event.site.text or event.how
                place = f" ({words.file_line(event.site)})"
            yield words.one_line(
                f"{wrote}{place} wrote to what {titles[event.node]} had kept for backward"
            )


def _failed(trace: TraceRecord) -> list[PassSort]:
    """The sorts of passes that raised, each at a node of its own."""
    return [one for one in sorts_of(trace.passes) if not one.first.outcome.ok]


# ---- passes


def _passes(trace: TraceRecord) -> Iterator[Row]:
    """Passes in order; of what repeats, a row for each sort of pass in it."""
    several = len(trace.graphs) > 1
    if len(trace.passes) > _MOST_FOLDED:
        for one in sorts_of(trace.passes):
            yield _pass_row(one, several_graphs=several)
        return
    place = 0
    for part in fold_run(trace.passes):
        records = trace.passes[place : place + sum(1 for _ in places_in([part]))]
        place += len(records)
        alike: dict[Hashable, list[Pass]] = {}
        for record in records:
            alike.setdefault(likeness(record), []).append(record)
        for run in alike.values():
            yield _pass_row(one_sort(run), several_graphs=several)


def _pass_row(run: PassSort, *, several_graphs: bool) -> Row:
    first, last = run.first, run.last
    call = first.site.text if first.site is not None and first.site.text else f"{first.kind}()"
    time = "did not end" if run.mean_ns is None else words.duration(run.mean_ns)
    apart = last.id - first.id + 1 > run.count
    notes = [f"inside pass {first.parent}"] if first.parent is not None else []
    notes += [f"raised {first.outcome.error}"] if not first.outcome.ok else []
    return (
        f"{first.id}" if run.count == 1 else f"{first.id}–{last.id}" + f" ({run.count:,})" * apart,
        call,
        words.file_line(first.site) if first.site is not None else "",
        f"graph {first.graph}" if several_graphs else "",
        words.counts(first.node_count, first.leaf_count),
        time + (" each" if run.count > 1 and run.mean_ns is not None else ""),
        " · ".join(notes),
    )


# ---- what the events leave


def _times(seen: Seen, count: int) -> str:
    """A count of what was read of the events: at least so many, where that was not all."""
    return f"{'≥' * seen.cut_short}{count:,}×"


def _leaves_alike(trace: TraceRecord) -> list[list[Leaf]]:
    """Leaves, those together that a program makes anew under one name and shape."""
    alike: dict[Hashable, list[Leaf]] = {}
    for leaf in islice(trace.leaves.values(), _MOST_LEAVES):
        alike.setdefault((leaf.name or leaf.id, leaf.meta), []).append(leaf)
    return list(alike.values())


def _leaf_row(leaves: Sequence[Leaf], seen: Seen) -> Row:
    """What leaves of one name went through in all, and what the last of them holds."""
    every, leaf = [seen.of(leaf) for leaf in leaves], leaves[-1]
    now, passes = every[-1], sum(one.passes for one in every)
    said = {
        "cleared": sum(one.cleared for one in every),
        "changed": sum(one.grad_writes for one in every),
        "written": sum(one.writes for one in every),
    }
    told = {what: f"{what} {_times(seen, count)}" for what, count in said.items() if count}
    ledger = [told[what] for what in ("cleared", "changed") if what in told]
    name = leaf.name or "(no name)"
    if seen.cut_short and leaf.id not in seen.leaves:
        return name, words.meta(leaf.meta), "", ".grad not among what was read", "", "", ""
    return (
        f"{name} ×{len(leaves):,}" if len(leaves) > 1 else name,
        words.meta(leaf.meta),
        f"= {words.tensor(now.value, norm='‖x‖')}" if now.value is not None else "",
        f".grad {words.tensor(now.grad)}",
        f"from {'≥' * seen.cut_short}{words.count(passes, 'pass')}",
        ", ".join(ledger),
        told.get("written", ""),
    )


def _sparks(trace: TraceRecord) -> Iterator[Row]:
    """How a few leaves went over many passes."""
    too_much = len(trace.leaves) > _PLOTTED_LEAVES or len(trace.events) > _MOST_PLOTTED
    if len(trace.passes) < _MANY_PASSES or too_much:
        return
    for leaf_id in trace.leaves:
        for series in leaf_series(trace, leaf_id):
            first, last = words.number(series.values[0]), words.number(series.values[-1])
            yield series.name, sparkline(series.values), f"{first} → {last}"


def _hooks(trace: TraceRecord, seen: Seen) -> Iterator[Row]:
    script = main_file(trace)
    for now in seen.hooks.values():
        yield _hook_row(now, script, _times(seen, now.runs))


def _hook_row(now: HookNow, script: str, runs: str) -> Row:
    hook = now.hook
    added = "added before the trace"
    if hook.added is not None:
        added = f"added {words.place(hook.added, beside=script)}"
    removed = f"removed {words.place(now.removed_at, beside=script)}".strip()
    ran = f"ran {runs}, changed {now.changed:,}"
    return (
        hook.text,
        f"{hook.kind} on {hook.subject}".removesuffix(" on "),
        f"{ran}, raised {now.raised:,}" if now.raised else ran,
        added,
        removed if now.removed else "never removed",
    )


def _cuts(trace: TraceRecord, seen: Seen) -> Iterator[Row]:
    for cut in seen.cuts.values():
        names = ", ".join(cut.names)
        yield (
            cut.kind, words.place(cut.site, beside=main_file(trace)), _times(seen, cut.count),
            f"nothing flows back to {names}" if names else "",
        )  # fmt: skip


def _pauses(trace: TraceRecord, seen: Seen) -> Iterator[Row]:
    for pause in seen.pauses.values():
        place = words.place(pause.site, beside=main_file(trace)) or "somewhere"
        yield place, f"{pause.count:,}×", f"{words.duration(pause.ns)} in all"


def _gaps(trace: TraceRecord) -> Iterator[Row]:
    for gap in gaps_of(trace.dropped):
        yield gap.reason, f"{gap.count:,}", gap.advice
