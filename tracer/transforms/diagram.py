"""A trace and the number of a pass in, what its picture says out: boxes, arrows, regions, words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tracer.records import words
from tracer.records.diagram import Arrow, Box, Diagram, Flow, Role, State, Title
from tracer.records.events import GradRead, HookRemoved, HookRun
from tracer.records.graph import Edge, Graph, Site
from tracer.records.passes import PassView, events_around, main_file, view_pass
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord
from tracer.transforms.boxes import (
    Scene,
    hook_box,
    input_hooks,
    node_box,
    posthooks,
    prehooks,
    seed_box,
)
from tracer.transforms.cuts import draw_cuts
from tracer.transforms.leaf_stories import leaf_stories
from tracer.transforms.module_regions import module_regions


def diagram(trace: TraceRecord, pass_id: int) -> Diagram:
    """Say everything that the picture of one pass shows; raises `NotInTraceError`."""
    scene = _scene(trace, pass_id)
    view = scene.view
    chains = _Chains(scene)
    boxes = [*chains.seed_boxes, *(node_box(scene, node) for node in view.graph.nodes)]
    boxes += chains.boxes
    arrows = [*chains.arrows, *_edges(view, chains)]
    cuts = draw_cuts(trace, view, main_file=scene.main_file)
    regions = module_regions((node, f"n{node.id}") for node in view.graph.nodes)
    boxes += cuts.boxes
    arrows += cuts.arrows
    return Diagram(
        _title(view), tuple(boxes), tuple(arrows), (*regions, *cuts.regions),
        tuple(_notes(boxes, arrows, view, cuts.left_out)),
    )  # fmt: skip


def _scene(trace: TraceRecord, pass_id: int) -> Scene:
    view = view_pass(trace, pass_id)
    sites = [node.site.id for node in view.graph.nodes if node.site is not None and node.call > 1]
    return Scene(
        view, words.titles(view.graph), main_file(trace), leaf_stories(trace, view),
        _removed(trace), _reads(trace, view), frozenset(sites),
    )  # fmt: skip


def _removed(trace: TraceRecord) -> dict[int, Site | None]:
    removals = trace.events.select(kinds=(HookRemoved.kind,))
    return {event.hook.id: event.site for event in removals if isinstance(event, HookRemoved)}


def _reads(trace: TraceRecord, view: PassView) -> dict[int, GradRead]:
    """Reads of `.grad` that gave None, by the node of the tensor that was read."""
    reads = [e for e in events_around(trace, view, (GradRead.kind,)) if isinstance(e, GradRead)]
    if not reads:
        return {}
    numbers = {node.sequence_nr: node.id for node in view.graph.nodes if not node.is_leaf}
    names = {name: node.id for node in view.graph.nodes for name in node.variables}
    found = {}
    for read in reads:
        node = names.get(read.tensor)
        if node is None and read.sequence_nr is not None:
            node = numbers.get(read.sequence_nr)
        if node is not None:
            found[node] = read
    return found


class _Chains:
    """Seeds and hooks: the boxes a gradient goes through on its way into and out of a node."""

    def __init__(self, scene: Scene) -> None:
        self.boxes: list[Box] = []
        self.arrows: list[Arrow] = []
        self.seed_boxes: list[Box] = []
        self._doors: dict[tuple[int, int], str] = {}
        self._exits: dict[int, str] = {}
        for node in scene.view.hooks:
            self._chain_hooks(scene, node)
        self._seed(scene.view)

    def into(self, node: int, input_nr: int) -> str:
        """The box that what goes to an input of a node meets first."""
        return self._doors.get((node, input_nr), self._doors.get((node, -1), f"n{node}"))

    def out_of(self, node: int) -> str:
        """The box that what leaves a node comes from."""
        return self._exits.get(node, f"n{node}")

    def _chain_hooks(self, scene: Scene, node: int) -> None:
        view = scene.view
        before = prehooks(view, node)
        if before:
            self._doors[node, -1] = self._link(scene, before, f"n{node}")
        on_inputs = input_hooks(view, node)
        for input_nr in dict.fromkeys(run.input_nr or 0 for run in on_inputs):
            runs = [run for run in on_inputs if (run.input_nr or 0) == input_nr]
            end = self._doors.get((node, -1), f"n{node}")
            self._doors[node, input_nr] = self._link(scene, runs, end)
        self._chain_after(scene, node)

    def _link(self, scene: Scene, runs: Sequence[HookRun], end: str) -> str:
        """Chain hooks one after another and on to `end`; the first box's id."""
        targets = [*(f"h{run.seq}" for run in runs[1:]), end]
        for place, (run, target) in enumerate(zip(runs, targets, strict=True)):
            node = scene.view.graph.nodes[run.node or 0]
            self.boxes.append(hook_box(scene, run, node, first=place == 0))
            self.arrows.append(_arrow(f"h{run.seq}", target, run.after[0] if run.after else None))
        return f"h{runs[0].seq}"

    def _chain_after(self, scene: Scene, node: int) -> None:
        last = f"n{node}"
        for run in posthooks(scene.view, node):
            self.boxes.append(hook_box(scene, run, scene.view.graph.nodes[node], first=False))
            self.arrows.append(Arrow(last, f"h{run.seq}", tooltip="what the node left"))
            last = f"h{run.seq}"
        self._exits[node] = last

    def _seed(self, view: PassView) -> None:
        record = view.record
        for number, root in enumerate(record.roots):
            given = record.seeds[number] if number < len(record.seeds) else None
            self.seed_boxes.append(seed_box(number, given, given=given is not None))
            arrow = _arrow(f"s{number}", self.into(root.node, root.input_nr), given, text="")
            self.arrows.append(arrow)


def _edges(view: PassView, chains: _Chains) -> Iterator[Arrow]:
    for edge in view.graph.edges:
        source, target = chains.out_of(edge.source), chains.into(edge.target, edge.input_nr)
        gradient = view.contribution(edge)
        if gradient is None:
            run = view.runs.get(edge.source)
            text = "None" if run is not None and run.end_ns is not None else ""
            yield Arrow(
                source, target, text, Flow.PART,
                tooltip=f"no gradient flowed here\n{_ends(view.graph, edge)}", state=State.IDLE,
            )  # fmt: skip
        else:
            yield _arrow(source, target, gradient, where=_ends(view.graph, edge))


def _ends(graph: Graph, edge: Edge) -> str:
    source, target = graph.nodes[edge.source], graph.nodes[edge.target]
    return f"from {source.name} (output {edge.slot}) to {target.name} (input {edge.input_nr})"


def _arrow(
    source: str,
    target: str,
    gradient: Gradient | None,
    *,
    text: str | None = None,
    where: str = "",
) -> Arrow:
    shown = words.tensor(gradient) if text is None and gradient is not None else text or ""
    state = State.ZERO if words.is_zero(gradient) else State.NORMAL
    return Arrow(
        source, target, shown, tooltip="\n".join(filter(None, (words.statistics(gradient), where))),
        state=State.WRONG if words.not_finite(gradient) else state,
        magnitude=gradient.norm if gradient is not None else None,
    )  # fmt: skip


def _title(view: PassView) -> Title:
    record = view.record
    site = record.site
    names = {"backward": "backward()", "grad": "torch.autograd.grad()", "engine": "the engine"}
    call = site.text if site is not None and site.text else names.get(record.kind, record.kind)
    facts = [words.file_line(site)] if site is not None else []
    facts += [f"pass {record.id}", words.counts(record.node_count, record.leaf_count)]
    facts += ["create_graph"] * record.create_graph
    facts += [f"inside pass {record.parent}"] * (record.parent is not None)
    if record.end_ns is not None:
        facts.append(words.duration(record.end_ns - record.begin_ns))
    failure = ""
    if not record.outcome.ok:
        failure = words.shorten(f"raised {record.outcome.error}: {record.outcome.message}", 100)
    elif record.end_ns is None:
        failure = "this pass never ended: the recording stops in it"
    return Title(words.shorten(call, 72), tuple(facts), failure)


def _notes(
    boxes: Sequence[Box], arrows: Sequence[Arrow], view: PassView, cuts_left_out: int
) -> Iterator[str]:
    """Say what the marks mean that need saying, and what is not in the picture."""
    if any(arrow.state is State.ZERO for arrow in arrows):
        yield "grey and dashed: a gradient that is exactly zero"
    idle = sum(box.state is State.IDLE for box in boxes if box.role is not Role.CUT)
    if idle:
        yield f"faint and dotted: not run in this pass ({words.count(idle, 'node')})"
    if cuts_left_out:
        yield f"{words.count(cuts_left_out, 'more cut')} not drawn: the timeline has them all"
    yield from view.graph.notes
