"""A trace in, a page for a terminal out: what ran, its passes, leaves, hooks, cuts and gaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import islice

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tracer.records import words
from tracer.records.events import (
    Accumulate,
    DataWrite,
    Forward,
    GradWrite,
    Hook,
    HookAdded,
    HookRemoved,
    HookRun,
    Leaf,
    Pass,
)
from tracer.records.graph import Site
from tracer.records.passes import main_file
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord
from tracer.render.plot import leaf_series, sparkline

_MOST_ROWS = 24
_MOST_EVENTS = 300_000
_PLOTTED_LEAVES = 4
_MANY_PASSES = 12
_KINDS = (
    Accumulate.kind, GradWrite.kind, DataWrite.kind, HookAdded.kind, HookRemoved.kind, HookRun.kind,
    Forward.kind,
)  # fmt: skip

Row = Sequence[str]


def summary(trace: TraceRecord) -> Group:
    """Say what a trace holds, for `rich` to print; long lists say how many more there are."""
    seen = _look_through(trace)
    sections = (
        ("passes", _passes(trace)),
        ("leaves", [_leaf_row(leaf, seen.leaves[leaf.id]) for leaf in trace.leaves.values()]),
        ("over passes", list(_sparks(trace))),
        ("hooks", _hooks(trace, seen)),
        ("cuts", _cuts(trace, seen)),
        ("not recorded", [(reason, f"{count:,}") for reason, count in trace.dropped.items()]),
    )
    parts: list[RenderableType] = [Text(_what_ran(trace), "bold"), *map(Text, _about(trace))]
    for name, rows in sections:
        if rows:
            parts += ["", Text(name, "bold"), *_listed(rows)]
    if seen.cut_short:
        parts += ["", Text(f"leaves, hooks and cuts as of the first {_MOST_EVENTS:,} events")]
    if not trace.complete:
        parts += ["", Text("the recording was cut short: it ends at its last write", "bold red")]
    return Group(*parts)


def _listed(rows: Sequence[Row]) -> Iterator[RenderableType]:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in range(1 + len(rows[0])):
        table.add_column(overflow="fold", no_wrap=column < 2)
    for row in rows[:_MOST_ROWS]:
        table.add_row("", *(Text(words.one_line(cell)) for cell in row))
    yield table
    if len(rows) > _MOST_ROWS:
        yield Text(f"  … and {len(rows) - _MOST_ROWS:,} more")


def _what_ran(trace: TraceRecord) -> str:
    run = trace.run
    command = " ".join(run.argv) or run.script or "a recording"
    rank = f" · rank {run.rank} of {run.world_size}" if run.world_size > 1 else ""
    outcome = "" if run.outcome in ("", "ok") else f" · {run.outcome}"
    return words.one_line(f"{command}{rank}{outcome}")


def _about(trace: TraceRecord) -> Iterator[str]:
    run = trace.run
    versions = [f"{name} {version}" for name, version in run.versions]
    began = ""
    if run.started:
        when = datetime.fromtimestamp(run.started, tz=timezone.utc)
        began = f"{when:%Y-%m-%d %H:%M:%S} UTC"
    yield words.one_line(" · ".join(part for part in (began, run.host, *versions) if part))
    counts = (
        words.count(len(trace.passes), "pass"), words.count(len(trace.graphs), "graph"),
        words.count(len(trace.leaves), "leaf"), words.count(len(trace.events), "event"),
    )  # fmt: skip
    yield " · ".join(counts)
    if run.limits:
        yield words.one_line(f"recorded with {run.limits}")


# ---- passes


def _passes(trace: TraceRecord) -> list[Row]:
    """Runs of passes that have the same graph, call and outcome, a row each."""
    runs: list[list[Pass]] = []
    for record in trace.passes:
        if runs and _alike(runs[-1][-1], record):
            runs[-1].append(record)
        else:
            runs.append([record])
    return [_pass_row(run) for run in runs]


def _alike(one: Pass, other: Pass) -> bool:
    return (one.graph, one.site, one.kind, one.parent, one.outcome) == (
        other.graph, other.site, other.kind, other.parent, other.outcome,
    )  # fmt: skip


def _pass_row(run: Sequence[Pass]) -> Row:
    first, last = run[0], run[-1]
    call = first.site.text if first.site is not None and first.site.text else f"{first.kind}()"
    took = [record.end_ns - record.begin_ns for record in run if record.end_ns is not None]
    time = words.duration(sum(took) // len(took)) if took else "did not end"
    inside = f"inside pass {first.parent}" if first.parent is not None else ""
    failed = "" if first.outcome.ok else f"raised {first.outcome.error}: {first.outcome.message}"
    return (
        f"{first.id}" if len(run) == 1 else f"{first.id}–{last.id}",
        words.shorten(call, 48),
        words.file_line(first.site) if first.site is not None else "",
        f"graph {first.graph}",
        words.counts(first.node_count, first.leaf_count),
        time + (" each" if len(took) > 1 else ""),
        words.shorten(" · ".join(part for part in (inside, failed) if part), 80),
    )


# ---- what the events tell


@dataclass(slots=True)
class _LeafNow:
    """A leaf as the trace leaves it."""

    value: Gradient | None
    grad: Gradient | None
    passes: int = 0
    writes: int = 0


@dataclass(slots=True)
class _HookNow:
    """A hook as the trace leaves it."""

    hook: Hook
    runs: int = 0
    changed: int = 0
    removed: bool = False
    removed_at: Site | None = None


@dataclass(slots=True)
class _Seen:
    """What the events say of leaves, hooks and cuts; `cut_short` where there were too many."""

    leaves: dict[int, _LeafNow]
    hooks: dict[int, _HookNow] = field(default_factory=dict)
    cuts: dict[tuple[str, Site | None], tuple[int, dict[str, None]]] = field(default_factory=dict)
    cut_short: bool = False


def _look_through(trace: TraceRecord) -> _Seen:
    seen = _Seen({leaf.id: _LeafNow(leaf.value, leaf.grad) for leaf in trace.leaves.values()})
    events = trace.events.select(kinds=_KINDS)
    for event in islice(events, _MOST_EVENTS):
        if isinstance(event, (HookAdded, HookRemoved, HookRun)):
            _note_hook(seen, event)
        elif isinstance(event, (Accumulate, GradWrite, DataWrite)):
            leaf = seen.leaves.get(event.leaf)
            if leaf is not None:
                _note_leaf(leaf, event)
        elif isinstance(event, Forward) and event.cut is not None:
            key = event.cut.kind, event.cut.region or event.site
            count, names = seen.cuts.get(key, (0, {}))
            names.update(dict.fromkeys(name for name in event.cut.tensors if name))
            seen.cuts[key] = count + 1, names
    seen.cut_short = next(events, None) is not None
    return seen


def _note_hook(seen: _Seen, event: HookAdded | HookRemoved | HookRun) -> None:
    now = seen.hooks.setdefault(event.hook.id, _HookNow(event.hook))
    if isinstance(event, HookRun):
        now.runs += 1
        now.changed += event.changed
    elif isinstance(event, HookRemoved):
        now.removed, now.removed_at = True, event.site


def _note_leaf(leaf: _LeafNow, event: Accumulate | GradWrite | DataWrite) -> None:
    if isinstance(event, DataWrite):
        leaf.value = event.after
        leaf.writes += 1
        return
    leaf.grad = event.after
    leaf.passes += isinstance(event, Accumulate)


def _leaf_row(leaf: Leaf, now: _LeafNow) -> Row:
    return (
        words.shorten(leaf.name or "(no name)", 48),
        words.meta(leaf.meta),
        f"= {words.tensor(now.value, norm='‖x‖')}" if now.value is not None else "",
        f".grad {words.tensor(now.grad)}",
        f"from {words.count(now.passes, 'pass')}",
        f"written {now.writes:,}×" if now.writes else "",
    )


def _sparks(trace: TraceRecord) -> Iterator[Row]:
    """How a few leaves went over many passes."""
    if len(trace.passes) < _MANY_PASSES or len(trace.leaves) > _PLOTTED_LEAVES:
        return
    for leaf_id in trace.leaves:
        for series in leaf_series(trace, leaf_id):
            first, last = words.number(series.values[0]), words.number(series.values[-1])
            yield series.name, sparkline(series.values), f"{first} → {last}"


def _hooks(trace: TraceRecord, seen: _Seen) -> list[Row]:
    return [_hook_row(now, main_file(trace)) for now in seen.hooks.values()]


def _hook_row(now: _HookNow, script: str) -> Row:
    hook = now.hook
    added = "added before the trace"
    if hook.added is not None:
        added = f"added {words.place(hook.added, beside=script)}"
    removed = f"removed {words.place(now.removed_at, beside=script)}".strip()
    return (
        words.shorten(hook.text, 48),
        f"{hook.kind} on {hook.subject}".removesuffix(" on "),
        f"ran {now.runs:,}×, changed {now.changed:,}",
        added,
        removed if now.removed else "never removed",
    )


def _cuts(trace: TraceRecord, seen: _Seen) -> list[Row]:
    return [
        (
            kind, words.place(site, beside=main_file(trace)), f"{count:,}×",
            words.shorten(f"nothing flows back to {', '.join(names)}", 80) if names else "",
        )
        for (kind, site), (count, names) in seen.cuts.items()
    ]  # fmt: skip
