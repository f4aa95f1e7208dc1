"""A pass and how its graph is folded in; the boxes, arrows and regions of the picture out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tracer.records import words
from tracer.records.diagram import (
    Arrow,
    Box,
    Flow,
    Line,
    LineRole,
    Region,
    RegionRole,
    Role,
    State,
)
from tracer.records.graph import Edge, Node
from tracer.transforms.boxes import NODE_ROLES, Scene, node_box
from tracer.transforms.chains import Chains, edge_arrow
from tracer.transforms.folding import Folding, Group
from tracer.transforms.levels import GroupKind
from tracer.transforms.tallies import Norms, Tally, norms_of, tally

_LONGEST_TITLE = 52
_FRAMED = (GroupKind.FUNCTION, GroupKind.LOOP, GroupKind.ITERATION)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a picture shows of a graph; `notes` say what it left out."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    regions: tuple[Region, ...]
    notes: tuple[str, ...] = ()


def draw_folded(scene: Scene, folding: Folding) -> Drawing:
    """Draw a box for each closed group, a frame around each open one, an arrow for each edge.

    A group of one operation or leaf is drawn as it would be in a small picture, with its hooks.
    """
    names = {group.id: _box_id(group) for group in folding.boxes}
    placed = {node: names[box] for node, box in folding.box_of.items()}
    chains = Chains(scene, placed)
    boxes = [*chains.seed_boxes, *(_group_box(scene, group) for group in folding.boxes)]
    boxes += chains.boxes
    arrows = [*chains.arrows, *_arrows(scene, folding, chains)]
    regions = _regions(folding, names)
    return Drawing(tuple(boxes), tuple(arrows), regions, tuple(_notes(scene, folding)))


def _box_id(group: Group) -> str:
    return f"n{group.main}" if _is_single(group) else f"g{group.id}"


def _is_single(group: Group) -> bool:
    return group.main is not None and len(group.blocks) == 1


# ---- boxes


def _group_box(scene: Scene, group: Group) -> Box:
    found = tally(scene.view, group.members)
    if group.main is None or len(group.blocks) > 1:
        return _joint_box(scene, group, found)
    box = node_box(scene, scene.view.graph.nodes[group.main])
    if not group.cls and len(group.members) == 1:
        return box
    title = f"{group.label} · {box.lines[0].text}" if group.cls else box.lines[0].text
    served = [scene.view.graph.nodes[node] for node in group.blocks[0][1:]]
    tooltip = "\n".join([box.tooltip, *(f"with {node.name}" for node in served)])
    return replace(
        box, lines=(Line(LineRole.TITLE, words.shorten(title, _LONGEST_TITLE)), *box.lines[1:]),
        nodes=group.members, count=len(group.members), tooltip=tooltip,
    )  # fmt: skip


def _joint_box(scene: Scene, group: Group, found: Tally) -> Box:
    main = None if group.main is None else scene.view.graph.nodes[group.main]
    title = words.shorten(_title(scene, group, main), _LONGEST_TITLE)
    lines = [Line(LineRole.TITLE, title), Line(LineRole.DETAIL, _detail(scene, group, main, found))]
    alarms = _alarms(scene, found)
    if found.received.text:
        role = LineRole.ALARM if found.received.wrong else LineRole.GRAD
        lines.append(Line(role, found.received.text))
    lines += _doings(found)
    return Box(
        _box_id(group), _role(main), (*lines, *alarms),
        nodes=group.members, tooltip=_tooltip(scene, group, found), link=_link(scene, group),
        state=_state(found), magnitude=found.received.most, count=len(group.members),
        repeat=group.repeat,
    )  # fmt: skip


def _role(main: Node | None) -> Role:
    return Role.FOLDED if main is None else NODE_ROLES[main.kind]


def _title(scene: Scene, group: Group, main: Node | None) -> str:
    if main is None or main.is_leaf or group.cls:
        return group.label
    return scene.titles[main.id]


def _detail(scene: Scene, group: Group, main: Node | None, found: Tally) -> str:
    if main is None:
        counted = words.counts(found.nodes, found.leaves)
        return " · ".join(filter(None, (words.shorten(group.cls, 40), counted)))
    shape = words.meta(main.outputs[0]) if main.outputs else ""
    if main.is_leaf:
        return f"{words.count(len(group.blocks), 'leaf')} · {shape}"
    times = f"{len(group.blocks):,} times" if group.repeat == 1 else ""
    name = words.shorten(main.name, 40)
    return " · ".join(filter(None, (group.cls, name, shape, scene.place(main.site), times)))


def _doings(found: Tally) -> list[Line]:
    lines = []
    if found.hooks:
        lines.append(Line(LineRole.HOOK, f"{words.count(found.hooks, 'hook')} ran inside"))
    if found.ran < found.nodes:
        ran = f"{found.nodes - found.ran:,} of {found.nodes:,} not run" if found.ran else "not run"
        lines.append(Line(LineRole.NOTE, f"{ran} in this pass"))
    return lines


def _alarms(scene: Scene, found: Tally) -> list[Line]:
    if found.broke is None:
        return []
    name = words.shorten(scene.titles[found.broke], 40)
    outcome = scene.view.record.outcome
    text = f"raised {outcome.error} at {name}" if found.raised else f"begins at {name}"
    return [Line(LineRole.ALARM, text)]


def _state(found: Tally) -> State:
    if found.received.wrong or found.broke is not None:
        return State.WRONG
    if not found.ran:
        return State.IDLE
    everything = found.received.count
    return State.ZERO if everything and found.received.zeros == everything else State.NORMAL


def _tooltip(scene: Scene, group: Group, found: Tally) -> str:
    lines = [" ".join(filter(None, (group.name or group.label, group.cls)))]
    repeat = f", {words.count(len(group.blocks), 'block')} alike" if len(group.blocks) > 1 else ""
    lines.append(f"{words.counts(found.nodes, found.leaves)}{repeat}")
    lines.append(f"received {found.received.sentence}")
    lines += [f"ran {words.duration(found.ns)} in all"] * (found.ns > 0)
    lines += [f"at {_link(scene, group)}"] * bool(_link(scene, group))
    return "\n".join(map(words.one_line, lines))


def _link(scene: Scene, group: Group) -> str:
    """Where the first of its operations, in forward order, stands in source."""
    for node in reversed(group.blocks[-1]):
        site = scene.view.graph.nodes[node].site
        if site is not None and not scene.view.graph.nodes[node].is_leaf:
            return f"{site.file}:{site.line}"
    return ""


# ---- arrows


def _arrows(scene: Scene, folding: Folding, chains: Chains) -> list[Arrow]:
    arrows = []
    for joined in folding.edges:
        single = all(_is_single(folding.groups[end]) for end in (joined.source, joined.target))
        if single and not joined.carried:
            arrows += [edge_arrow(scene.view, edge, chains) for edge in joined.members]
            continue
        doors: dict[tuple[str, str], list[Edge]] = defaultdict(list)
        for edge in joined.members:
            ends = chains.out_of(edge.source), chains.into(edge.target, edge.input_nr)
            doors[ends].append(edge)
        for ends, edges in doors.items():
            arrows.append(_joint_arrow(scene, ends, edges, carried=joined.carried))
    return arrows


def _joint_arrow(
    scene: Scene, ends: tuple[str, str], edges: Sequence[Edge], *, carried: bool
) -> Arrow:
    flowed = [scene.view.contribution(edge) for edge in edges]
    norms = norms_of(flowed)
    where = f"over {words.count(len(edges), 'edge')}"
    where += ", from one repetition to the next" * carried
    if not norms.count:
        text = f"no gradient flowed {where}"
        return Arrow(*ends, "", Flow.PART, text, State.IDLE, count=len(edges))
    (only,) = flowed if len(flowed) == 1 else (None,)
    return Arrow(
        *ends, words.tensor(only) if only is not None else norms.text,
        Flow.CARRIED if carried else Flow.FLOWS,
        f"{words.statistics(only) if only is not None else norms.sentence}\n{where}",
        _arrow_state(norms), norms.most, len(edges),
    )  # fmt: skip


def _arrow_state(norms: Norms) -> State:
    if norms.wrong:
        return State.WRONG
    return State.ZERO if norms.zeros == norms.count else State.NORMAL


# ---- regions


def _regions(folding: Folding, names: dict[int, str]) -> tuple[Region, ...]:
    """Frame the open groups, innermost first; what has no frame stands in the one around it."""
    framed: dict[int, tuple[tuple[str, ...], tuple[Region, ...]]] = {}
    for group in reversed(folding.groups):
        framed[group.id] = _framed(folding, group, framed, names)
    outermost = (framed[group.id][1] for group in folding.groups if group.parent is None)
    return tuple(region for regions in outermost for region in regions)


def _framed(
    folding: Folding,
    group: Group,
    framed: dict[int, tuple[tuple[str, ...], tuple[Region, ...]]],
    names: dict[int, str],
) -> tuple[tuple[str, ...], tuple[Region, ...]]:
    if group.is_box:
        return (names[group.id],), ()
    boxes = tuple(box for child in group.children for box in framed[child][0])
    regions = tuple(region for child in group.children for region in framed[child][1])
    if not _has_frame(folding, group):
        return boxes, regions
    role = RegionRole.MODULE if group.kind is GroupKind.MODULE else RegionRole.GROUP
    about = f"{group.name or group.label} {group.cls}".rstrip()
    tooltip = f"{about}\n{words.count(len(group.members), 'node')}"
    region = Region(
        f"g{group.id}", role, group.label, group.cls, boxes, regions, tooltip, group.repeat
    )
    return (), (region,)


def _has_frame(folding: Folding, group: Group) -> bool:
    """Tell whether to frame an open group: a list of modules that repeats nothing says nothing."""
    if group.repeat > 1 or group.kind in _FRAMED:
        return True
    if group.kind is not GroupKind.MODULE:
        return False
    return bool(group.cls) or any(folding.groups[child].is_box for child in group.children)


def _notes(scene: Scene, folding: Folding) -> list[str]:
    total = len(scene.view.graph.nodes)
    drawn = len(folding.box_of)
    notes = []
    if drawn < total:
        notes.append(f"{total - drawn:,} of {words.count(total, 'node')} not drawn")
    if len(folding.boxes) < drawn:
        boxes = "1 box" if len(folding.boxes) == 1 else f"{len(folding.boxes):,} boxes"
        repeats = [group.repeat for group in folding.groups if group.repeat > 1]
        alike = f"; ×{repeats[0]:,} stands for {repeats[0]:,} alike" if repeats else ""
        notes.append(f"{words.count(drawn, 'node')} folded into {boxes}{alike}")
    if any(edge.carried for edge in folding.edges):
        notes.append("dashed back: what one repetition hands to the next")
    return notes
