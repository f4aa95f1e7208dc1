"""An event in, what its line in a timeline says out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tracer.records import words
from tracer.records.events import (
    UNSEEN,
    Accumulate,
    Cut,
    DataWrite,
    Dropped,
    Event,
    Forward,
    GradMode,
    GradRead,
    GradWrite,
    Hook,
    HookAdded,
    HookRemoved,
    HookRun,
    Mark,
    NodeRun,
    OptimizerStep,
    Pass,
    PassBegin,
    PassEnd,
    Pause,
    Recompute,
    SavedWrite,
)
from tracer.records.graph import Graph, Site
from tracer.records.passes import find_pass, main_file
from tracer.records.quick import maker
from tracer.records.told import DATA, GRAD, NOTHING, Told, told
from tracer.records.trace import TraceRecord, names_of_leaves
from tracer.render.columns import Tone
from tracer.render.graph_words import GraphWords
from tracer.render.running import Running

_MOST_GRAPHS = 8
"""Graphs whose words are kept: a program may make a new one in each pass."""


@dataclass(frozen=True, slots=True)
class Said:
    """What an event's line says; `counts` says that it is a step of its pass."""

    event: str
    where: str = ""
    site: Site | None = None
    text: str = ""
    tone: Tone = Tone.PLAIN
    counts: bool = False


UNKNOWN_NODE = Said("node", counts=True)
"""Of a node in a pass whose begin was not told, or that is not in its graph."""
_said = maker(Said)
_PLAIN, _FAINT, _GRAD, _WRONG = Tone.PLAIN, Tone.FAINT, Tone.GRAD, Tone.WRONG


class Sayings:
    """Says what each kind of event means, knowing which passes are running."""

    def __init__(self, trace: TraceRecord) -> None:
        self._trace = trace
        self._name_of = names_of_leaves(trace.leaves)
        self.running: dict[int, Running] = {}
        self.at: Running | None = None
        """The pass of the event that was told last, where that ran."""
        self.main_file = main_file(trace)
        self._words: dict[int, GraphWords] = {}
        self._paused_ns = 0
        self._sayers: dict[type[Event], Callable[[Any], Said]] = {
            PassBegin: self._pass_begin,
            PassEnd: self._pass_end,
            Mark: self._mark,
            Forward: self._forward,
            GradMode: self._grad_mode,
            HookAdded: self._hook_added,
            HookRemoved: self._hook_removed,
            HookRun: self._hook_run,
            NodeRun: self._node_run,
            Accumulate: self._accumulate,
            GradWrite: self._write,
            DataWrite: self._write,
            GradRead: self._grad_read,
            OptimizerStep: self._optimizer_step,
            SavedWrite: self._saved_write,
            Recompute: self._recompute,
            Pause: self._pause,
            Dropped: self._dropped,
        }

    def forget(self, pass_id: int | None) -> None:
        """Let go of a pass that has ended and been told."""
        self.running.pop(pass_id or 0, None)

    def say(self, event: Event) -> Said:
        """What the line of an event says.

        To be asked of every event of a pass, in order: what arrives at a node, and the number of
        its step, follow from those before it.
        """
        self.at = running = self.running.get(event.pass_id or 0)
        sayer = self._sayers.get(type(event))
        said = sayer(event) if sayer is not None else Said(event.kind)
        if running is not None and said.counts:
            running.steps += 1
        return said

    def _words_of(self, graph: Graph) -> GraphWords:
        if graph.id not in self._words:
            if len(self._words) >= _MOST_GRAPHS:
                self._words.clear()
            self._words[graph.id] = GraphWords(graph)
        return self._words[graph.id]

    def _pass_begin(self, event: PassBegin) -> Said:
        record = find_pass(self._trace, event.pass_id or 0)
        graph = self._trace.graphs[record.graph]
        running = self.running[record.id] = Running(record, self._words_of(graph))
        for number, root in enumerate(record.roots):
            seed = record.seeds[number] if number < len(record.seeds) else None
            if seed is not None:
                running.seed(root.node, root.input_nr, seed)
        asked = [f"thread {record.thread}"] if record.thread else []
        asked += [f"inside pass {record.parent}"] if record.parent is not None else []
        asked += [name for name in ("retain_graph", "create_graph") if getattr(record, name)]
        asked += [f"inputs={', '.join(record.inputs)}"] if record.inputs is not None else []
        return Said("pass begins", call_of(record), record.site, ", ".join(asked), Tone.HEADING)

    def _pass_end(self, event: PassEnd) -> Said:
        record = find_pass(self._trace, event.pass_id or 0)
        running, outcome = self.running.get(record.id), record.outcome
        if outcome.ok:
            took = words.duration(event.t_ns - record.begin_ns)
            text = f"{words.counts(record.node_count, record.leaf_count)} · {took}"
            return Said("pass ends", call_of(record), record.site, text, Tone.HEADING)
        text = words.shorten(f"{outcome.error}: {outcome.message}", 200)
        where, site = "", None
        if running is not None and outcome.node is not None:
            where, site = running.said.titles[outcome.node], running.said.site(outcome.node)
        return Said("pass raised", where, site, text, Tone.WRONG)

    def _mark(self, event: Mark) -> Said:
        return Said("mark", event.text, event.site, tone=Tone.HEADING)

    def _forward(self, event: Forward) -> Said:
        if event.cut is not None:
            return self._cut(event, event.cut)
        nodes = event.sequence_nrs[1] - event.sequence_nrs[0]
        made_nodes = words.count(nodes, "node") if nodes else "no node"
        mode = f", {event.grad_mode}" if event.grad_mode != "grad" else ""
        text = f"{_shape_of(event)}  {made_nodes}{mode}".strip()
        return _said("forward", _where(event, event.module), event.site, text, _FAINT, False)

    def _cut(self, event: Forward, cut: Cut) -> Said:
        at = words.place(cut.region, beside=self.main_file)
        region = f" ({at})" if at else ""
        names = ", ".join(name for name in cut.tensors if name) or "its input"
        why = "zeros" if cut.kind == "zero gradient" else "no history, nothing"
        verb = "flow" if why == "zeros" else "flows"
        text = f"{_shape_of(event)}  {cut.kind}{region}: {why} {verb} back to {names}"
        return Said("cut", _where(event, event.module), event.site, text.strip(), Tone.CUT)

    def _grad_mode(self, event: GradMode) -> Said:
        text = "history is kept again" if event.mode == "grad" else "no history from here"
        where = event.site.text if event.site is not None else ""
        return Said(event.mode, where, event.site, text, Tone.CUT)

    def _hook_added(self, event: HookAdded) -> Said:
        hook = event.hook
        where = event.site.text if event.site is not None else ""
        text = f"{_hook_on(hook)}: {hook.text}"
        return Said("hook added", where, event.site, text, Tone.HOOK)

    def _hook_removed(self, event: HookRemoved) -> Said:
        hook = event.hook
        where = event.site.text if event.site is not None else ""
        text = f"{_hook_on(hook)}: {hook.text}"
        return Said("hook removed", where, event.site, text, Tone.HOOK)

    def _hook_run(self, event: HookRun) -> Said:
        hook, running = event.hook, self.at
        if running is not None and event.node is not None:
            running.hook_ran(event.node, event.input_nr or 0)
        where = f"{hook.text} on {hook.subject}" if hook.subject else hook.text
        if event.raised:
            return Said(
                hook.kind, where, hook.defined, f"raised {event.raised}", Tone.WRONG, counts=True
            )
        text = words.hook_effect(event.before, event.after, changed=event.changed)
        if event.removed:
            text += "   runs though it was removed"
        return Said(hook.kind, where, hook.defined or hook.added, text, Tone.HOOK, counts=True)

    def _node_run(self, event: NodeRun) -> Said:
        running = self.at
        if running is None or not running.has(event.node):
            return UNKNOWN_NODE
        said, node, tell = running.said, event.node, running.tell
        received, returned = [*map(tell, event.received)], [*map(tell, event.returned)]
        text, wrong = running.node_words(node, event.end_ns is not None, received, returned)
        tone = _WRONG if wrong else _PLAIN
        return _said(said.kind(node), said.where(node), said.site(node), text, tone, True)

    def _accumulate(self, event: Accumulate) -> Said:
        entries = event.before, event.incoming, event.after
        if self.at is None:
            text = words.accumulation(*entries)
        else:
            text = self.at.accumulate_words(event.node, *map(self.at.tell, entries))
        tone = _WRONG if words.not_finite(event.after) else _GRAD
        return _said("accumulate", f"{self.leaf_name(event.leaf)}.grad", None, text, tone, True)

    def leaf_name(self, number: int) -> str:
        """The name of a leaf."""
        return self._name_of(number) or "a leaf"

    def _write(self, event: GradWrite | DataWrite) -> Said:
        of_grad = isinstance(event, GradWrite)
        entries = [
            None if one is None else told(one, GRAD if of_grad else DATA)
            for one in (event.before, event.after)
        ]
        return self.write(of_grad, event.leaf, event.how, event.site, entries)

    def write(
        self,
        of_grad: bool,
        leaf: int,
        how: str,
        site: Site | None,
        entries: Sequence[Told | None],
    ) -> Said:
        """What the line of a write says that user code did to a leaf or its `.grad`."""
        name = self.leaf_name(leaf)
        if of_grad:
            name = f"{name}.grad"
        before, after = entries
        change = f"{(before or NOTHING)[0]} → {(after or NOTHING)[0]}"
        text = f"{name}  {change}  ({how})"
        if how == UNSEEN:
            return Said("balance error", name, None, text, Tone.WRONG)
        where = (site.statement or site.text) if site is not None else name
        return _said("grad write" if of_grad else "data write", where, site, text, _GRAD, False)

    def _grad_read(self, event: GradRead) -> Said:
        where = event.site.text if event.site is not None else ""
        name = event.tensor or "a tensor"
        return Said("grad read", where, event.site, f"{name}.grad → None: {name} is not a leaf")

    def _optimizer_step(self, event: OptimizerStep) -> Said:
        where = event.site.text if event.site is not None else ""
        text = f"{event.optimizer} holds {words.count(len(event.leaves), 'leaf')}"
        return Said("optimizer step", where, event.site, text)

    def _saved_write(self, event: SavedWrite) -> Said:
        where = (event.site.statement or event.site.text) if event.site is not None else event.how
        running = self.running.get(event.pass_id or 0)
        title = "a node"
        if running is not None and running.has(event.node):
            title = running.said.titles[event.node]
        kept = f"{event.attribute} of {title}"
        if event.version is None:
            text = f"{event.how} wrote to {kept} through .data: no error, another gradient"
        else:
            text = f"{event.how} wrote to {kept}: that made it version {event.version}"
        return Said("saved write", where, event.site, text, Tone.WRONG)

    def _recompute(self, event: Recompute) -> Said:
        where = event.site.text if event.site is not None else ""
        text = "a checkpointed region runs again"
        if event.forward is not None:
            text += f", first run from event {event.forward} on"
        return Said("recompute", where, event.site, text)

    def _pause(self, event: Pause) -> Said:
        where = event.site.text if event.site is not None else ""
        if not event.resumed:
            self._paused_ns = event.t_ns
            return Said("paused", where, event.site, "nothing is recorded from here", Tone.WRONG)
        lasted = words.duration(event.t_ns - self._paused_ns)
        return Said("resumed", where, event.site, f"recorded again after {lasted}", Tone.WRONG)

    def _dropped(self, event: Dropped) -> Said:
        return Said("not recorded", event.reason, text=f"{event.count:,}", tone=Tone.WRONG)


def ran_in(module: str, like: Forward, said: Said) -> Said:
    """What is said of an operation that ran in this module, given what is said of one like it."""
    where = _where(like, module)
    if where == said.where:
        return said
    return _said(said.event, where, said.site, said.text, said.tone, False)


def _shape_of(event: Forward) -> str:
    made = event.outputs[0].meta if event.outputs else None
    return words.meta(made) if made is not None else ""


def _where(event: Forward, module: str) -> str:
    site = event.site
    if module and site is not None and not site.function.endswith("forward"):
        return module  # a line outside of any module, which led to all in this one
    return site.text if site is not None and site.text else event.op


def call_of(record: Pass) -> str:
    """The source of the call that a pass is, or its kind."""
    return record.site.text if record.site is not None and record.site.text else f"{record.kind}()"


def _hook_on(hook: Hook) -> str:
    """The kind of a hook, and what it is on where that has a name."""
    return f"{hook.kind} on {hook.subject}" if hook.subject else hook.kind
