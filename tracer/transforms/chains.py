"""The seeds and hooks of a pass in; the boxes and arrows that gradients go through there out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tracer.records import words
from tracer.records.diagram import Arrow, Box, Flow, State
from tracer.records.events import HookRun
from tracer.records.graph import Edge
from tracer.records.passes import PassView
from tracer.records.tensors import Gradient
from tracer.transforms.boxes import hook_box, input_hooks, posthooks, prehooks, seed_box
from tracer.transforms.paths import counted
from tracer.transforms.scene import Scene


class Chains:
    """Seeds and hooks: the boxes a gradient goes through on its way into and out of a node.

    `boxes` says which box each node that is drawn is in. Only hooks of nodes that have a box of
    their own, named `n` and the node's id, are drawn.
    """

    def __init__(self, scene: Scene, boxes: Mapping[int, str]) -> None:
        self.boxes: list[Box] = []
        self.arrows: list[Arrow] = []
        self.seed_boxes: list[Box] = []
        self._boxes = boxes
        self._doors: dict[tuple[int, int], str] = {}
        self._exits: dict[int, str] = {}
        for node in scene.view.hooks:
            if boxes.get(node) == f"n{node}":
                self._chain_hooks(scene, node)
        self._seed(scene.view)

    def into(self, node: int, input_nr: int) -> str:
        """The box that what goes to an input of a node meets first."""
        door = self._doors.get((node, input_nr)) or self._doors.get((node, -1))
        return door or self._boxes[node]

    def out_of(self, node: int) -> str:
        """The box that what leaves a node comes from."""
        return self._exits.get(node) or self._boxes[node]

    def by_doors(self, edges: Iterable[Edge]) -> dict[tuple[str, str], list[Edge]]:
        """Gather edges by the boxes that they come from and that they meet first."""
        found: dict[tuple[str, str], list[Edge]] = defaultdict(list)
        for edge in edges:
            ends = self.out_of(edge.source), self.into(edge.target, edge.input_nr)
            found[ends].append(edge)
        return found

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
            after = run.after[0] if run.after else None
            self.arrows.append(gradient_arrow(f"h{run.seq}", target, after))
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
            if root.node in self._boxes:
                given = record.seeds[number] if number < len(record.seeds) else None
                self.seed_boxes.append(seed_box(number, given, given=given is not None))
                target = self.into(root.node, root.input_nr)
                self.arrows.append(gradient_arrow(f"s{number}", target, given, text=""))


def edge_arrow(scene: Scene, edge: Edge, chains: Chains) -> Arrow:
    """Draw what flowed over one edge, or that nothing did."""
    source, target = chains.out_of(edge.source), chains.into(edge.target, edge.input_nr)
    gradient = scene.flowed(edge)
    if gradient is not None:
        mixed = f"{words.tensor(gradient)} *" if scene.is_mixed(edge) else None
        return gradient_arrow(source, target, gradient, text=mixed, where=_where(scene, edge))
    run = scene.view.runs.get(edge.source)
    return Arrow(
        source, target, "None" if run is not None and run.end_ns is not None else "", Flow.PART,
        tooltip=f"no gradient flowed here\n{_where(scene, edge)}", state=State.IDLE,
    )  # fmt: skip


def gradient_arrow(
    source: str,
    target: str,
    gradient: Gradient | None,
    *,
    text: str | None = None,
    where: str = "",
) -> Arrow:
    """Draw one gradient that flowed; `text` None writes the gradient itself."""
    shown = words.tensor(gradient) if text is None and gradient is not None else text or ""
    state = State.ZERO if words.is_zero(gradient) else State.NORMAL
    return Arrow(
        source, target, shown, tooltip="\n".join(filter(None, (words.statistics(gradient), where))),
        state=State.WRONG if words.not_finite(gradient) else state,
        magnitude=gradient.norm if gradient is not None else None,
    )  # fmt: skip


def _where(scene: Scene, edge: Edge) -> str:
    nodes = scene.view.graph.nodes
    source, target = nodes[edge.source], nodes[edge.target]
    ends = f"from {source.name} (output {edge.slot}) to {target.name} (input {edge.input_nr})"
    paths = scene.paths_over.get(edge, 0)
    return f"{ends}\non {counted(paths)} of those asked for" if paths else ends
