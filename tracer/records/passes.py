"""A trace and the number of a pass in, that pass's events by the node they happened at out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tracer.errors import NotInTraceError
from tracer.records.events import Accumulate, Event, HookRun, NodeRun, Pass, PassBegin, PassEnd
from tracer.records.graph import Edge, Graph
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord

_END_OF_TIME = 2**63


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one edge, or a backward call's seed (no edge), brought to an input of a node."""

    gradient: Gradient | None
    edge: Edge | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """The events that belong with a pass: from the end of the one before to the begin of the next.

    `since` and `until` are the first `seq` inside and the first behind; `begin` and `end` are the
    pass's own.
    """

    since: int
    begin: int
    end: int
    until: int


@dataclass(frozen=True, slots=True)
class PassView:
    """One pass and what happened in it. `steps` numbers, from 1, the `seq` of every execution of a
    node, hook and accumulation, in the engine's order."""

    record: Pass
    graph: Graph
    window: Window
    runs: Mapping[int, NodeRun]
    accumulates: Mapping[int, Accumulate]
    hooks: Mapping[int, Sequence[HookRun]]
    steps: Mapping[int, int]
    _arriving: Mapping[tuple[int, int], Sequence[Contribution]]

    def arriving(self, node: int, input_nr: int = 0) -> Sequence[Contribution]:
        """What the edges and seeds brought to one input of a node: it adds up to what arrived there
        before tensor hooks."""
        return self._arriving.get((node, input_nr), ())

    def contribution(self, edge: Edge) -> Gradient | None:
        """What flowed over an edge."""
        run = self.runs.get(edge.source)
        return run.returned[edge.slot] if run and edge.slot < len(run.returned) else None

    def ran(self, node: int) -> bool:
        """Whether the engine executed the node in this pass."""
        return node in self.runs or node in self.accumulates

    def arrived(self, node: int, input_nr: int = 0) -> Gradient | None:
        """What arrived at an input of a node, before tensor hooks: the contributions' sum."""
        for hook in self.hooks.get(node, ()):
            if hook.input_nr == input_nr and hook.before:
                return hook.before[0]
            if hook.hook.kind == "prehook" and input_nr < len(hook.before):
                return hook.before[input_nr]
        parts = self.arriving(node, input_nr)
        if len(parts) == 1:
            return parts[0].gradient
        return self.received(node, input_nr)

    def received(self, node: int, input_nr: int = 0) -> Gradient | None:
        """What the node itself was given there, after hooks."""
        run, accumulate = self.runs.get(node), self.accumulates.get(node)
        if accumulate is not None:
            return accumulate.incoming
        return run.received[input_nr] if run and input_nr < len(run.received) else None


@dataclass(frozen=True, slots=True)
class PassSort:
    """Passes that have the same graph, call, kind and outcome, and all or none of which are inside
    others, were given `inputs=`, and ended: the first and the last of them, how many they are, and
    what they took on average."""

    first: Pass
    last: Pass
    count: int
    mean_ns: int | None


@runtime_checkable
class SortedPasses(Protocol):
    """Passes that know their own sorts without one being made of each."""

    def sorts(self) -> list[PassSort]:
        """The sorts of passes there are, in the order of their firsts."""
        ...


def main_file(trace: TraceRecord) -> str:
    """The file that needs no naming: the script, else the one that calls backward first."""
    site = trace.passes[0].site if trace.passes else None
    script = trace.run.script
    return script if site is None or script in trace.sources else site.file


def find_pass(trace: TraceRecord, pass_id: int) -> Pass:
    """Find a pass by its number; raises `NotInTraceError` that says which there are."""
    passes = trace.passes
    position = position_of(passes, pass_id)
    if position is not None:
        return passes[position]
    if not passes:
        raise NotInTraceError("there is no pass in this trace: nothing called backward() in it")
    first, last = passes[0].id, passes[-1].id
    there = f"passes {first} to {last}" if len(passes) > 1 else f"pass {first} only"
    if first < pass_id < last:
        there = f"{len(passes):,} {there}, without this one"
    raise NotInTraceError(f"there is no pass {pass_id} in this trace: it has {there}")


def position_of(passes: Sequence[Pass], pass_id: int) -> int | None:
    """Where a pass stands among passes in order of their ids; None where it does not."""
    position = pass_id - 1
    if not (0 <= position < len(passes) and passes[position].id == pass_id):
        position = bisect_left(passes, pass_id, key=_id)
    found = position < len(passes) and passes[position].id == pass_id
    return position if found else None


def _id(record: Pass) -> int:
    return record.id


def sorts_of(passes: Sequence[Pass]) -> list[PassSort]:
    """The sorts of passes there are, in the order of their firsts."""
    if isinstance(passes, SortedPasses):
        return passes.sorts()
    alike: dict[tuple[object, ...], list[Pass]] = {}
    for record in passes:
        alike.setdefault(_what_sorts_share(record), []).append(record)
    return [one_sort(records) for records in alike.values()]


def _what_sorts_share(record: Pass) -> tuple[object, ...]:
    site = 0 if record.site is None else record.site.id
    outcome, ended = record.outcome, record.end_ns is not None
    inside, whole = record.parent is not None, record.inputs is None
    return record.graph, site, record.kind, inside, whole, outcome.error, outcome.node, ended


def one_sort(records: Sequence[Pass]) -> PassSort:
    """Passes in order, taken for alike, as one sort."""
    took = [record.end_ns - record.begin_ns for record in records if record.end_ns is not None]
    mean_ns = sum(took) // len(took) if took else None
    return PassSort(records[0], records[-1], len(records), mean_ns)


def view_pass(trace: TraceRecord, pass_id: int) -> PassView:
    """Read one pass's events; raises `NotInTraceError`."""
    record = find_pass(trace, pass_id)
    graph = trace.graphs[record.graph].unpacked
    runs: dict[int, NodeRun] = {}
    accumulates: dict[int, Accumulate] = {}
    hooks: dict[int, list[HookRun]] = {}
    steps: dict[int, int] = {}
    for event in trace.events.select(pass_id=pass_id, kinds=("node", "accumulate", "hook")):
        steps[event.seq] = len(steps) + 1
        if isinstance(event, NodeRun):
            runs[event.node] = event
        elif isinstance(event, Accumulate):
            accumulates[event.node] = event
        elif isinstance(event, HookRun) and event.node is not None:
            hooks.setdefault(event.node, []).append(event)
    arriving = _contributions(record, graph, runs)
    return PassView(
        record, graph, window_of(trace, record), runs, accumulates, hooks, steps, arriving
    )


def _contributions(
    record: Pass, graph: Graph, runs: Mapping[int, NodeRun]
) -> dict[tuple[int, int], list[Contribution]]:
    arriving: dict[tuple[int, int], list[Contribution]] = {}
    for number, root in enumerate(record.roots):
        seed = record.seeds[number] if number < len(record.seeds) else None
        if seed is None and root.node in runs and len(runs[root.node].received) > root.input_nr:
            seed = runs[root.node].received[root.input_nr]
        arriving.setdefault((root.node, root.input_nr), []).append(Contribution(seed))
    for edge in graph.edges:
        run = runs.get(edge.source)
        gradient = run.returned[edge.slot] if run and edge.slot < len(run.returned) else None
        if gradient is not None:
            key = edge.target, edge.input_nr
            arriving.setdefault(key, []).append(Contribution(gradient, edge))
    return arriving


def window_of(trace: TraceRecord, record: Pass) -> Window:
    """Where a pass's own story begins and ends among all events."""
    return Window(
        since=since_of(trace, record),
        begin=_seq(trace, record, PassBegin.kind, 0),
        end=_seq(trace, record, PassEnd.kind, _END_OF_TIME),
        until=until_of(trace, record),
    )


def since_of(trace: TraceRecord, record: Pass) -> int:
    """Where a pass's own story begins: the first `seq` in it."""
    before, _after = _neighbours(trace, record)
    return _seq(trace, before, PassEnd.kind, 0) if before else 0


def until_of(trace: TraceRecord, record: Pass) -> int:
    """Where a pass's own story ends: the first `seq` behind it."""
    _before, after = _neighbours(trace, record)
    return _seq(trace, after, PassBegin.kind, _END_OF_TIME) if after else _END_OF_TIME


def _neighbours(trace: TraceRecord, record: Pass) -> tuple[Pass | None, Pass | None]:
    passes = trace.passes
    position = position_of(passes, record.id) or 0
    earlier = (passes[i] for i in range(position - 1, -1, -1))
    later = (passes[i] for i in range(position + 1, len(passes)))
    same = record.parent
    return (
        next((other for other in earlier if other.parent == same), None),
        next((other for other in later if other.parent == same), None),
    )


def _seq(trace: TraceRecord, record: Pass, kind: str, default: int) -> int:
    events = trace.events.select(pass_id=record.id, kinds=(kind,))
    return next((event.seq for event in events), default)


def events_around(trace: TraceRecord, view: PassView, kinds: Sequence[str]) -> Iterator[Event]:
    """The events of some kinds in a pass's window that belong to it or to no pass."""
    own = (None, view.record.id, view.record.parent)
    for event in trace.events.select(kinds=kinds, since=view.window.since):
        if event.seq >= view.window.until:
            return
        if event.pass_id in own:
            yield event
