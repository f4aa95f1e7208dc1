"""A trace in, its story in words out: one line an event, aligned, in the order things happened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import singledispatchmethod

from tracer.records import words
from tracer.records.events import (
    Accumulate,
    DataWrite,
    Dropped,
    Event,
    Forward,
    GradMode,
    GradRead,
    GradWrite,
    HookAdded,
    HookRemoved,
    HookRun,
    Mark,
    NodeRun,
    OptimizerStep,
    Pass,
    PassBegin,
    PassEnd,
    Recompute,
)
from tracer.records.graph import Graph, Node, Site
from tracer.records.passes import find_pass, main_file, window_of
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord
from tracer.render.columns import Columns, Tone
from tracer.render.pass_lines import pass_lines
from tracer.render.plain import plain_event

_MERGED = (Forward.kind, "cut")

MANY_PASSES = 12
"""From this many passes on, a timeline of all of them tells each in one line."""


def timeline_text(
    trace: TraceRecord, *, pass_id: int | None = None, width: int | None = None, color: bool = False
) -> Iterator[str]:
    """Tell a trace, or one pass and what happened around it, a line at a time.

    `width` is in columns of a terminal (110 for a file); what flowed stands last and is never cut.
    `color` adds ANSI colours. Raises `NotInTraceError`.
    """
    width = width or 110
    since, until = 0, None
    if pass_id is not None:
        window = window_of(trace, find_pass(trace, pass_id))
        since, until = window.since, window.until
    elif len(trace.passes) > MANY_PASSES:
        yield from pass_lines(trace, width=width, color=color)
        return
    teller = _Teller(trace, Columns(width, color, files=len(trace.sources)))
    for event in trace.events.select(since=since):
        if until is not None and event.seq >= until:
            break
        yield from teller.tell(event)
    yield from teller.finish()


def timeline_jsonl(trace: TraceRecord, *, pass_id: int | None = None) -> Iterator[str]:
    """Tell a trace, or one pass, as one JSON object a line, complete; raises `NotInTraceError`."""
    if pass_id is not None:
        find_pass(trace, pass_id)
    graphs = {record.id: record.graph for record in trace.passes}
    for event in trace.events.select(pass_id=pass_id):
        yield json.dumps(plain_event(event, trace, graphs), ensure_ascii=False, allow_nan=False)


@dataclass(slots=True)
class _Running:
    """A pass while it is told: its graph and what has arrived at each input so far."""

    record: Pass
    graph: Graph
    titles: tuple[str, ...]
    steps: int = 0
    arriving: dict[tuple[int, int], list[Gradient | None]] = field(default_factory=dict)
    hooked: set[tuple[int, int]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Said:
    """What an event's line says; `counts` says that it is a step of its pass."""

    event: str
    where: str = ""
    site: Site | None = None
    text: str = ""
    tone: Tone = Tone.PLAIN
    counts: bool = False


@dataclass(slots=True)
class _Held:
    """A line held back to see how often it comes in a row."""

    event: Event
    said: _Said
    times: int = 1


class _Teller:
    """Turns events into lines, knowing which passes are running."""

    def __init__(self, trace: TraceRecord, columns: Columns) -> None:
        self._trace = trace
        self._columns = columns
        self._running: dict[int, _Running] = {}
        self._section: object = "nothing"
        self._main_file = main_file(trace)
        self._titles: dict[int, tuple[str, ...]] = {}
        self._held: _Held | None = None

    def tell(self, event: Event) -> Iterator[str]:
        """The lines that are complete with this event: equal operations in a row are one line."""
        if isinstance(event, PassBegin):
            yield from self.finish()
            self._begin(event)
        elif isinstance(event, PassEnd):
            yield from self.finish()
            yield from self._end(event)
        else:
            said = self._say(event)
            held = self._held
            if held is not None and (held.said, held.event.pass_id) == (said, event.pass_id):
                held.times += 1
                return
            yield from self.finish()
            self._held = _Held(event, said)
            if said.event not in _MERGED:
                yield from self.finish()

    def finish(self) -> Iterator[str]:
        """The lines that were held back."""
        held, self._held = self._held, None
        if held is not None:
            yield from self._enter(held.event)
            yield self._row(held.event, held.said, held.times)

    # ---- sections

    def _begin(self, event: PassBegin) -> None:
        record = find_pass(self._trace, event.pass_id or 0)
        graph = self._trace.graphs[record.graph]
        if graph.id not in self._titles:
            self._titles[graph.id] = words.titles(graph)
        running = self._running[record.id] = _Running(record, graph, self._titles[graph.id])
        for number, root in enumerate(record.roots):
            seed = record.seeds[number] if number < len(record.seeds) else None
            if seed is not None:
                running.arriving.setdefault((root.node, root.input_nr), []).append(seed)

    def _enter(self, event: Event) -> Iterator[str]:
        """Head the lines of a pass, or set those between passes apart."""
        running = self._running.get(event.pass_id or 0)
        section = event.pass_id if running is not None else None
        if section == self._section:
            return
        if self._section != "nothing":
            yield ""
        self._section = section
        if running is not None:
            yield from self._head(running)

    def _head(self, running: _Running) -> Iterator[str]:
        record, columns = running.record, self._columns
        call = record.site.text if record.site is not None else ""
        inside = f" (inside pass {record.parent})" if record.parent is not None else ""
        again = " goes on" if running.steps else inside
        facts = [words.file_line(record.site)] if record.site is not None else []
        facts.append(words.counts(record.node_count, record.leaf_count))
        if record.end_ns is not None:
            facts.append(words.duration(record.end_ns - record.begin_ns))
        call = words.shorten(call or f"{record.kind}()", columns.call)
        yield columns.heading(f"pass {record.id}{again}  {call}", " · ".join(facts))
        yield columns.header()

    def _end(self, event: PassEnd) -> Iterator[str]:
        running = self._running.get(event.pass_id or 0)
        if running is None:
            return
        if not running.steps:
            yield from self._enter(event)
        outcome = running.record.outcome
        if not outcome.ok:
            text = words.shorten(f"{outcome.error}: {outcome.message}", 200)
            where = running.titles[outcome.node] if outcome.node is not None else ""
            said = _Said("pass raised", where, None, text, Tone.WRONG)
            yield self._row(event, said)
        del self._running[running.record.id]

    def _row(self, event: Event, said: _Said, times: int = 1) -> str:
        running = self._running.get(event.pass_id or 0)
        step = ""
        if running is not None:
            time = words.number(round((event.t_ns - running.record.begin_ns) / 1e3, 1))
            if said.counts:
                running.steps += 1
                step = str(running.steps)
        else:
            time = f"{event.t_ns / 1e6:.3f} ms"
        place = self._columns.place(said.site, self._main_file)
        text = f"{said.text}  ×{times}" if times > 1 else said.text
        return self._columns.row((step, time, said.event, said.where, place, text), said.tone)

    # ---- what each kind of event says

    @singledispatchmethod
    def _say(self, event: Event) -> _Said:
        return _Said(event.kind)

    @_say.register
    def _(self, event: Forward) -> _Said:
        site = event.site
        where = site.text if site is not None and site.text else event.op
        made = event.outputs[0].meta if event.outputs else None
        shape = words.meta(made) if made is not None else ""
        if event.cut is not None:
            at = words.place(event.cut.region, beside=self._main_file)
            region = f" ({at})" if at else ""
            names = ", ".join(name for name in event.cut.tensors if name) or "its input"
            text = f"{shape}  {event.cut.kind}{region}: no history, nothing flows back to {names}"
            return _Said("cut", where, site, text.strip(), Tone.CUT)
        nodes = event.sequence_nrs[1] - event.sequence_nrs[0]
        made_nodes = words.count(nodes, "node") if nodes else "no node"
        mode = f", {event.grad_mode}" if event.grad_mode != "grad" else ""
        return _Said("forward", where, site, f"{shape}  {made_nodes}{mode}".strip(), Tone.FAINT)

    @_say.register
    def _(self, event: GradMode) -> _Said:
        text = "history is kept again" if event.mode == "grad" else "no history from here"
        where = event.site.text if event.site is not None else ""
        return _Said(event.mode, where, event.site, text, Tone.CUT)

    @_say.register
    def _(self, event: HookAdded) -> _Said:
        hook = event.hook
        where = event.site.text if event.site is not None else ""
        text = f"{hook.kind} on {hook.subject}: {hook.text}"
        return _Said("hook added", where, event.site, text, Tone.HOOK)

    @_say.register
    def _(self, event: HookRemoved) -> _Said:
        hook = event.hook
        where = event.site.text if event.site is not None else ""
        text = f"{hook.kind} on {hook.subject}: {hook.text}"
        return _Said("hook removed", where, event.site, text, Tone.HOOK)

    @_say.register
    def _(self, event: HookRun) -> _Said:
        hook, running = event.hook, self._running.get(event.pass_id or 0)
        if running is not None and event.node is not None:
            running.hooked.add((event.node, event.input_nr or 0))
        where = f"{hook.text} on {hook.subject}" if hook.subject else hook.text
        if event.raised:
            return _Said(
                hook.kind, where, hook.defined, f"raised {event.raised}", Tone.WRONG, counts=True
            )
        text = words.hook_effect(event.before, event.after, changed=event.changed)
        return _Said(hook.kind, where, hook.defined or hook.added, text, Tone.HOOK, counts=True)

    @_say.register
    def _(self, event: NodeRun) -> _Said:
        running = self._running.get(event.pass_id or 0)
        if running is None:
            return _Said("node", counts=True)
        node = running.graph.nodes[event.node]
        received = words.padded(_received(running, event), 16)
        returned = () if event.end_ns is None else _returned(running, event)
        text = "   ".join((received, *returned)).rstrip()
        wrong = any(map(words.not_finite, (*event.received, *event.returned)))
        if event.end_ns is None:
            text, wrong = f"{text}   raised", True
        tone = Tone.WRONG if wrong else Tone.PLAIN
        where = running.titles[node.id].removeprefix(f"{words.op_name(node)} · ")
        return _Said(node.name, where, node.site, text, tone, counts=True)

    @_say.register
    def _(self, event: Accumulate) -> _Said:
        leaf = self._trace.leaves.get(event.leaf)
        name = leaf.name if leaf is not None else ""
        text = words.accumulation(event.before, event.incoming, event.after)
        running = self._running.get(event.pass_id or 0)
        parts = running.arriving.get((event.node, 0), []) if running is not None else []
        if len(parts) > 1:
            text += f"   receives {words.total(parts, event.incoming)}"
        tone = Tone.WRONG if words.not_finite(event.after) else Tone.GRAD
        return _Said("accumulate", f"{name or 'a leaf'}.grad", None, text, tone, counts=True)

    @_say.register
    def _(self, event: GradWrite) -> _Said:
        return self._write("grad write", event, ".grad")

    @_say.register
    def _(self, event: DataWrite) -> _Said:
        return self._write("data write", event, "")

    def _write(self, kind: str, event: GradWrite | DataWrite, what: str) -> _Said:
        leaf = self._trace.leaves.get(event.leaf)
        name = f"{leaf.name if leaf is not None and leaf.name else 'a leaf'}{what}"
        where = (event.site.statement or event.site.text) if event.site is not None else name
        norm = "‖g‖" if what else "‖x‖"
        text = f"{name}  {words.change(event.before, event.after, norm=norm)}  ({event.how})"
        return _Said(kind, where, event.site, text, Tone.GRAD)

    @_say.register
    def _(self, event: GradRead) -> _Said:
        where = event.site.text if event.site is not None else ""
        name = event.tensor or "a tensor"
        return _Said("grad read", where, event.site, f"{name}.grad → None: {name} is not a leaf")

    @_say.register
    def _(self, event: OptimizerStep) -> _Said:
        where = event.site.text if event.site is not None else ""
        text = f"{event.optimizer} holds {words.count(len(event.leaves), 'leaf')}"
        return _Said("optimizer step", where, event.site, text)

    @_say.register
    def _(self, event: Recompute) -> _Said:
        where = event.site.text if event.site is not None else ""
        text = "a checkpointed region runs again"
        if event.forward is not None:
            text += f", first run as event {event.forward}"
        return _Said("recompute", where, event.site, text)

    @_say.register
    def _(self, event: Mark) -> _Said:
        return _Said("mark", event.text, event.site, tone=Tone.HEADING)

    @_say.register
    def _(self, event: Dropped) -> _Said:
        return _Said("not recorded", event.reason, text=f"{event.count:,}", tone=Tone.WRONG)


def _received(running: _Running, event: NodeRun) -> str:
    """`in 5 = 1 + 4`, `in 1`; of several inputs those that something arrived at."""
    texts = []
    several = len(event.received) > 1
    for input_nr, gradient in enumerate(event.received):
        if several and gradient is None:
            continue
        key = event.node, input_nr
        number = f"[{input_nr}]" if several else ""
        text = f"in{number} {words.tensor(gradient)}"
        parts = running.arriving.get(key, ())
        if key in running.hooked:
            text += " after hooks"
        elif len(parts) > 1:
            text += words.of_parts(parts)
        texts.append(text)
    return "  ".join(texts) or "in None"


def _returned(running: _Running, event: NodeRun) -> Sequence[str]:
    """`→ x1 1` for each edge; also notes what arrives where it leads."""
    texts = []
    for edge in running.graph.edges_from[event.node]:
        gradient = event.returned[edge.slot] if edge.slot < len(event.returned) else None
        if gradient is not None:
            running.arriving.setdefault((edge.target, edge.input_nr), []).append(gradient)
        name = _short_name(running.graph.nodes[event.node], running.graph.nodes[edge.target])
        texts.append(f"→ {name} {words.tensor(gradient)}")
    return texts


def _short_name(source: Node, target: Node) -> str:
    """What to call the node an edge leads to: of the same expression's nodes, what they do."""
    name = ", ".join(target.variables)
    if not name and target.site is not None and target.site != source.site:
        name = target.site.expression
    return words.shorten(name or words.op_name(target), 24)
