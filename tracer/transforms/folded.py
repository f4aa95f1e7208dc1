"""A pass and how its graph is folded in; the boxes, arrows and regions of the picture out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tracer.records import words
from tracer.records.diagram import (
    Arrow,
    Box,
    Line,
    LineRole,
    Region,
    RegionRole,
    Role,
    State,
)
from tracer.records.graph import Node
from tracer.transforms.boxes import (
    NODE_ROLES,
    grad_change,
    node_box,
    node_tooltip,
    not_zeroed,
)
from tracer.transforms.carries import Carries
from tracer.transforms.chains import Chains, edge_arrow
from tracer.transforms.folding import Folding, Group
from tracer.transforms.joint_arrows import joint_arrow
from tracer.transforms.levels import GroupKind
from tracer.transforms.scene import Scene
from tracer.transforms.tallies import Norms, Tally, tally

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
    carries = Carries(scene, folding, chains)
    arrows = [*chains.arrows, *_arrows(scene, folding, chains), *carries.arrows]
    groups = [_group_box(scene, group, carries) for group in folding.boxes]
    boxes = [*chains.seed_boxes, *_without_echoes(groups, arrows), *carries.boxes, *chains.boxes]
    regions = _regions(folding, names, carries)
    return Drawing(tuple(boxes), tuple(arrows), regions, tuple(_notes(scene, folding)))


def _box_id(group: Group) -> str:
    return f"n{group.main}" if _is_single(group) else f"g{group.id}"


def _is_single(group: Group) -> bool:
    return group.main is not None and len(group.blocks) == 1


# ---- boxes


def _group_box(scene: Scene, group: Group, carries: Carries) -> Box:
    found = tally(scene.view, group.members)
    joint = group.main is None or len(group.blocks) > 1
    box = _joint_box(scene, group, found) if joint else _single_box(scene, group, found)
    return replace(box, lines=(*box.lines, *carries.lines_of(group.id)))


def _single_box(scene: Scene, group: Group, found: Tally) -> Box:
    """Draw one operation, named after the module that it makes up, with that one's parameters."""
    assert group.main is not None
    box = node_box(scene, scene.view.graph.nodes[group.main])
    if not group.cls and len(group.members) == 1:
        return box
    title = f"{group.label} · {group.cls}" if group.cls else box.lines[0].text
    lines = [Line(LineRole.TITLE, words.shorten(title, _LONGEST_TITLE)), *box.lines[1:]]
    served = [scene.view.graph.nodes[node] for node in group.blocks[0] if node != group.main]
    lines += _parameter_lines(scene, group)
    if found.hooks > len(scene.view.hooks.get(group.main, ())):
        lines.append(Line(LineRole.HOOK, "a hook ran on a parameter"))
    tooltips = [box.tooltip]
    tooltips += [f"with {node.name}" for node in served if not node.is_leaf]
    tooltips += [node_tooltip(scene, node) for node in served if node.is_leaf]
    return replace(
        box, lines=tuple(lines), nodes=group.members, count=len(group.members),
        tooltip="\n".join(tooltips),
    )  # fmt: skip


def _joint_box(scene: Scene, group: Group, found: Tally) -> Box:
    main = None if group.main is None else scene.view.graph.nodes[group.main]
    title = words.shorten(_title(scene, group, main), _LONGEST_TITLE)
    lines = [Line(LineRole.TITLE, title), Line(LineRole.DETAIL, _detail(scene, group, main, found))]
    received = found.received if main is None else _received_by_main(scene, group, main)
    if received.text:
        role = LineRole.ALARM if received.wrong else LineRole.GRAD
        lines.append(Line(role, received.text))
    lines += _parameter_lines(scene, group)
    lines += [*_kept_lines(scene, group), *_doings(found), *_alarms(scene, found)]
    return Box(
        _box_id(group), _role(main), tuple(lines),
        nodes=group.members, tooltip=_tooltip(scene, group, found), link=_link(scene, group),
        state=_state(found), magnitude=received.most, count=len(group.members),
        repeat=group.repeat,
    )  # fmt: skip


def _received_by_main(scene: Scene, group: Group, main: Node) -> Norms:
    place = group.blocks[0].index(main.id)
    return tally(scene.view, [block[place] for block in group.blocks]).received


def _parameter_lines(scene: Scene, group: Group) -> list[Line]:
    """Say of each parameter in the box what became of its `.grad`, or how large its gradients were
    where it stands for several."""
    if group.main is None or scene.view.graph.nodes[group.main].is_leaf:
        return []
    return [
        Line(LineRole.LEAF, _parameter(scene, group, place))
        for place, node in enumerate(group.blocks[0])
        if scene.view.graph.nodes[node].is_leaf
    ]


def _parameter(scene: Scene, group: Group, place: int) -> str:
    leaf = scene.view.graph.nodes[group.blocks[0][place]]
    shape = words.meta(leaf.outputs[0]) if leaf.outputs else ""
    called = leaf.variables[0].rpartition(".")[2] if leaf.variables else "parameter"
    name = f"{called} {shape}".rstrip()
    if len(group.blocks) == 1:
        return f"{name}  {grad_change(scene.view, leaf)}{_kept_since(scene, leaf)}"
    return f"{name}  {tally(scene.view, [block[place] for block in group.blocks]).received.text}"


def _kept_since(scene: Scene, leaf: Node) -> str:
    story = scene.stories.get(leaf.id)
    return f" · {not_zeroed(scene, story)}" if story is not None and story.kept else ""


def _without_echoes(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> list[Box]:
    """Leave out of boxes that stand for several nodes what their only arrow says already."""
    arriving: dict[str, list[str]] = defaultdict(list)
    for arrow in arrows:
        arriving[arrow.target].append(arrow.text)
    return [
        box if box.step is not None else replace(
            box, lines=tuple(
                line for line in box.lines
                if line.role is not LineRole.GRAD or arriving[box.id] != [line.text]
            )
        )
        for box in boxes
    ]  # fmt: skip


def _role(main: Node | None) -> Role:
    return Role.FOLDED if main is None else NODE_ROLES[main.kind]


def _title(scene: Scene, group: Group, main: Node | None) -> str:
    if main is not None and group.cls:
        return f"{group.label} · {group.cls}"
    if main is None or main.is_leaf:
        return group.label
    place = group.blocks[0].index(main.id)
    return scene.titles.shared([block[place] for block in group.blocks])


def _detail(scene: Scene, group: Group, main: Node | None, found: Tally) -> str:
    if main is None:
        counted = words.counts(found.nodes, found.leaves)
        return " · ".join(filter(None, (words.shorten(group.cls, 40), counted)))
    shape = words.meta(main.outputs[0]) if main.outputs else ""
    if main.is_leaf:
        return f"{words.count(len(group.blocks), 'leaf')} · {shape}"
    name = words.shorten(main.name, 40)
    return " · ".join(filter(None, (name, shape, scene.place(main.site))))


def _kept_lines(scene: Scene, group: Group) -> list[Line]:
    """Say how much the box's nodes keep for backward, where that is wished for."""
    kept = [kept for node in group.members for kept in scene.view.graph.nodes[node].saved]
    if not (scene.with_saved and kept):
        return []
    size = words.nbytes(sum(one.nbytes or 0 for one in kept))
    return [Line(LineRole.NOTE, f"keeps {words.count(len(kept), 'tensor')}, {size}")]


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
        if joined.carried:
            continue
        if all(_is_single(folding.groups[end]) for end in (joined.source, joined.target)):
            arrows += [edge_arrow(scene, edge, chains) for edge in joined.members]
            continue
        for ends, edges in chains.by_doors(joined.members).items():
            arrows.append(joint_arrow(scene, ends, edges))
    return arrows


# ---- regions


def _regions(folding: Folding, names: dict[int, str], carries: Carries) -> tuple[Region, ...]:
    """Frame the open groups, innermost first; what has no frame stands in the one around it."""
    framed: dict[int, tuple[tuple[str, ...], tuple[Region, ...]]] = {}
    for group in reversed(folding.groups):
        framed[group.id] = _framed(folding, group, framed, names, carries.inside[group.id])
    outermost = (framed[group.id][1] for group in folding.groups if group.parent is None)
    return tuple(region for regions in outermost for region in regions)


def _framed(
    folding: Folding,
    group: Group,
    framed: dict[int, tuple[tuple[str, ...], tuple[Region, ...]]],
    names: dict[int, str],
    carries: Sequence[str],
) -> tuple[tuple[str, ...], tuple[Region, ...]]:
    if group.is_box:
        return (names[group.id],), ()
    boxes = (*(box for child in group.children for box in framed[child][0]), *carries)
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
    """Tell whether to frame an open group: a list around one thing says nothing."""
    if group.repeat > 1 or group.kind in _FRAMED:
        return True
    if group.kind is not GroupKind.MODULE:
        return False
    return bool(group.cls) or len(group.children) > 1 or folding.groups[group.children[0]].is_box


def _notes(scene: Scene, folding: Folding) -> list[str]:
    total = len(scene.view.graph.nodes)
    drawn = len(folding.box_of)
    notes = []
    if drawn < total:
        notes.append(f"{total - drawn:,} of {words.count(total, 'node')} not drawn")
    if len(folding.boxes) < drawn:
        boxes = words.count(len(folding.boxes), "box")
        repeats = [group.repeat for group in folding.groups if group.repeat > 1]
        alike = f"; ×{repeats[0]:,} stands for {repeats[0]:,} alike" if repeats else ""
        notes.append(f"{words.count(drawn, 'node')} folded into {boxes}{alike}")
    if any(edge.carried for edge in folding.edges):
        notes.append("↻ what one repetition hands to the next, in the order that gradients flow")
    return notes
