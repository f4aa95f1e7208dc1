"""A trace and the number of a pass in, what its picture says out: boxes, arrows, regions, words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tracer.records import words
from tracer.records.collection import no_collection
from tracer.records.diagram import Arrow, Box, Diagram, Role, State, Title
from tracer.records.events import GradRead, HookRemoved
from tracer.records.graph import Graph, Site
from tracer.records.passes import PassView, events_around, main_file, view_pass
from tracer.records.trace import TraceRecord
from tracer.records.view import View
from tracer.transforms.boxes import node_box
from tracer.transforms.chains import Chains, edge_arrow
from tracer.transforms.cuts import CutPicture, draw_cuts
from tracer.transforms.fold import fold
from tracer.transforms.folded import Drawing, draw_folded
from tracer.transforms.leaf_stories import leaf_stories
from tracer.transforms.module_regions import module_regions
from tracer.transforms.parts import part_of
from tracer.transforms.scene import Scene
from tracer.transforms.shading import shade

_MANY = 24  # boxes, or twice as many nodes, from which on a picture is coloured by norm
_FEW = 16  # nodes that are all shown, though they are parts of modules


def diagram(trace: TraceRecord, pass_id: int, wishes: View | None = None) -> Diagram:
    """Say everything that the picture of one pass shows.

    A graph with more nodes than `wishes.budget` is folded, and so is that of any modules but the
    smallest, and where the wishes ask for it. Of a part of the graph only its nodes are shown, and
    no cuts beside it. Raises `NotInTraceError` for a pass or a name that is not there.
    """
    with no_collection():
        return _diagram(trace, pass_id, wishes or View())


def _diagram(trace: TraceRecord, pass_id: int, wishes: View) -> Diagram:
    scene = _scene(trace, pass_id, wishes)
    view = scene.view
    part = part_of(view, wishes)
    if part is not None:
        scene = replace(scene, shares=part.shares, paths_over=part.paths_over)
    cuts = CutPicture()
    if part is not None or _is_to_fold(view.graph, wishes):
        drawing = draw_folded(scene, fold(view.graph, wishes, part))
    else:
        drawing = _draw_nodes(scene)
    if part is None:
        cuts = draw_cuts(trace, view, main_file=scene.main_file)
    boxes, arrows = (*drawing.boxes, *cuts.boxes), (*drawing.arrows, *cuts.arrows)
    notes = [*(part.notes if part is not None else ()), *drawing.notes]
    notes += _notes(boxes, arrows, view, cuts.left_out)
    drawn = Diagram(_title(view), boxes, arrows, (*drawing.regions, *cuts.regions), tuple(notes))
    many = max(len(drawing.boxes), len(view.graph.nodes) // 2) > _MANY
    return shade(drawn, view, wishes.color or ("norm" if many else "none"))


def _is_to_fold(graph: Graph, wishes: View) -> bool:
    asked = wishes.depth is not None or bool(wishes.expand or wishes.show)
    most = _FEW if any(node.module is not None for node in graph.nodes) else wishes.budget
    return wishes.fold and (asked or len(graph.nodes) > min(most, wishes.budget))


def _draw_nodes(scene: Scene) -> Drawing:
    """Draw a box for each node, an arrow for each edge."""
    view = scene.view
    chains = Chains(scene, {node.id: f"n{node.id}" for node in view.graph.nodes})
    boxes = [*chains.seed_boxes, *(node_box(scene, node) for node in view.graph.nodes)]
    arrows = [*chains.arrows, *(edge_arrow(scene, edge, chains) for edge in view.graph.edges)]
    regions = module_regions((node, f"n{node.id}") for node in view.graph.nodes)
    return Drawing((*boxes, *chains.boxes), tuple(arrows), regions)


def _scene(trace: TraceRecord, pass_id: int, wishes: View) -> Scene:
    view = view_pass(trace, pass_id)
    return Scene(
        view, words.Titles(view.graph), main_file(trace), leaf_stories(trace, view),
        _removed(trace), _reads(trace, view), _repeated(view.graph), "saved" in wishes.show,
    )  # fmt: skip


def _repeated(graph: Graph) -> frozenset[int]:
    """The sites whose calls need a number: what ran there more than once in one module."""
    calls = defaultdict[tuple[int, str], set[int]](set)
    for node in graph.nodes:
        if node.site is not None:
            path = node.module.path if node.module is not None else ""
            calls[node.site.id, path].add(node.call)
    return frozenset(site for (site, _), found in calls.items() if len(found) > 1)


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


def _title(view: PassView) -> Title:
    record = view.record
    site = record.site
    names = {"backward": "backward()", "grad": "torch.autograd.grad()", "engine": "the engine"}
    call = site.text if site is not None and site.text else names.get(record.kind, record.kind)
    facts = [words.file_line(site)] if site is not None else []
    facts += [f"pass {record.id}", words.counts(record.node_count, record.leaf_count)]
    facts += ["create_graph"] * record.create_graph
    facts += [f"inside pass {record.parent}"] * (record.parent is not None)
    if record.end_ns is not None and record.end_ns > record.begin_ns:
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
