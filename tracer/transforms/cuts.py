"""A pass in, the operations out that took its tensors and kept no history: regions beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tracer.records import words
from tracer.records.diagram import Arrow, Box, Flow, Line, LineRole, Region, RegionRole, Role
from tracer.records.events import Event, Forward, GradMode, TensorRef
from tracer.records.graph import Site
from tracer.records.passes import PassView, events_around
from tracer.records.trace import TraceRecord

MOST_REGIONS = 4
MOST_BOXES = 5


@dataclass(slots=True)
class _Group:
    """Operations that ran behind one cut: those of a `no_grad` region, or a single one."""

    kind: str
    site: Site | None
    operations: list[Forward] = field(default_factory=list)
    before: int = 0
    after: int = 0

    @property
    def times(self) -> int:
        """How often it ran around the pass; a loop's body is met once before and once behind it."""
        return max(self.before, self.after)


@dataclass(slots=True)
class _Statement:
    """The operations of one line of source in a group, the last of which is the whole of it."""

    operations: list[Forward]
    times: int = 1

    @property
    def last(self) -> Forward:
        return self.operations[-1]


@dataclass(frozen=True, slots=True)
class CutPicture:
    """Boxes, arrows and regions to put beside a graph, and how many regions did not fit."""

    boxes: tuple[Box, ...] = ()
    arrows: tuple[Arrow, ...] = ()
    regions: tuple[Region, ...] = ()
    left_out: int = 0


def draw_cuts(trace: TraceRecord, view: PassView, *, main_file: str) -> CutPicture:
    """Draw the cuts around a pass that took history from its tensors, each once."""
    index = _Index(trace, view)
    groups = [group for group in _merged(index, view) if _is_worth_drawing(group, index)]
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    regions: list[Region] = []
    for number, group in enumerate(groups[:MOST_REGIONS]):
        drawn = _draw_group(group, index, number, main_file)
        boxes += drawn.boxes
        arrows += drawn.arrows
        regions += drawn.regions
    return CutPicture(
        tuple(boxes), tuple(arrows), tuple(regions), max(len(groups) - MOST_REGIONS, 0)
    )


def _is_worth_drawing(group: _Group, index: _Index) -> bool:
    """Whether it takes tensors of this pass; without a place it is inside a custom Function, whose
    own node stands for it."""
    return group.site is not None and index.touches(group.operations)


class _Index:
    """Which node of the graph a tensor that an operation took belongs to."""

    def __init__(self, trace: TraceRecord, view: PassView) -> None:
        kinds = (Forward.kind, GradMode.kind)
        self.call = view.record.site
        self.events: list[Event] = list(events_around(trace, view, kinds))
        self._made = {event.seq: event for event in self.events if isinstance(event, Forward)}
        self._leaves = {event.leaf: node for node, event in view.accumulates.items()}
        self._names: dict[str, int] = {}
        self._sites: dict[int, int] = {}
        for node in view.graph.nodes:
            self._names.update(dict.fromkeys(node.variables, node.id))
            if node.site is not None:
                self._sites.setdefault(node.site.id, node.id)

    def node(self, ref: TensorRef) -> int | None:
        """The node of a tensor in the graph of the pass, as far as it can be known."""
        if ref.leaf is not None:
            return self._leaves.get(ref.leaf, self._names.get(ref.name))
        made = self._made.get(ref.made_by) if ref.made_by is not None else None
        if made is not None and made.site is not None and made.site.id in self._sites:
            has_history = made.sequence_nrs[0] < made.sequence_nrs[1]
            return self._sites[made.site.id] if has_history else None
        return self._names.get(ref.name) if made is None else None

    def touches(self, operations: Sequence[Forward]) -> bool:
        """Whether any of the operations took history from a tensor made or held in this pass."""
        return any(
            self.node(ref) is not None or self._has_history(ref)
            for operation in operations
            if operation.cut is not None
            for ref in operation.inputs
        )

    def _has_history(self, ref: TensorRef) -> bool:
        made = self._made.get(ref.made_by) if ref.made_by is not None else None
        return made is not None and made.sequence_nrs[0] < made.sequence_nrs[1]


def _merged(index: _Index, view: PassView) -> list[_Group]:
    """The groups in the order they first ran, equal ones counted instead of repeated."""
    merged: dict[object, _Group] = {}
    for group in _groups(index.events):
        key = (group.kind, group.site, tuple(operation.site for operation in group.operations))
        known = merged.setdefault(key, group)
        if group.operations[0].seq < view.window.begin:
            known.before += 1
        else:
            known.after += 1
    return list(merged.values())


def _groups(events: Sequence[Event]) -> Iterator[_Group]:
    entered: Site | None = None
    running: _Group | None = None
    for event in events:
        if isinstance(event, GradMode):
            if running is not None:
                yield running
            running, entered = None, event.site
        elif isinstance(event, Forward) and event.grad_mode != "grad":
            if running is None:
                region = event.cut.region if event.cut is not None else None
                running = _Group(event.grad_mode, region or entered)
            running.operations.append(event)
        elif isinstance(event, Forward) and event.cut is not None:
            yield _Group(event.cut.kind, event.site, [event])
    if running is not None:
        yield running


def _draw_group(group: _Group, index: _Index, number: int, main_file: str) -> CutPicture:
    statements = _statements(group.operations)
    shown = statements[: MOST_BOXES - 1] + statements[-1:] if len(statements) > MOST_BOXES else statements  # fmt: skip # noqa: E501
    names = {id(statement): f"c{number}_{place}" for place, statement in enumerate(shown)}
    maker = {
        operation.seq: names[id(statement)]
        for statement in shown
        for operation in statement.operations
    }
    boxes = tuple(
        _box(statement, names[id(statement)], main_file, index.call) for statement in shown
    )
    arrows = _arrows(shown, maker, index)
    hidden = len(statements) - len(shown)
    title = f"{group.kind} · {words.place(group.site, beside=main_file)}".removesuffix(" · ")
    detail = "outside the graph" + (
        f", {words.count(hidden, 'more line')} not drawn" if hidden else ""
    )
    region = Region(
        f"cut{number}", RegionRole.CUT, title, detail, tuple(box.id for box in boxes),
        tooltip=f"{title}\nkeeps no history, so no gradient comes back from here",
        repeat=group.times,
    )  # fmt: skip
    return CutPicture(boxes, arrows, (region,))


def _statements(operations: Sequence[Forward]) -> list[_Statement]:
    """The operations by line of source, in the order in which the lines first ran."""
    found: dict[object, _Statement] = {}
    previous: object = None
    for operation in operations:
        site = operation.site
        key = (site.file, site.line) if site is not None else operation.seq
        if key not in found:
            found[key] = _Statement([])
        elif key != previous:
            found[key].times += 1
        found[key].operations.append(operation)
        previous = key
    return list(found.values())


def _box(statement: _Statement, name: str, main_file: str, beside: Site | None) -> Box:
    last = statement.last
    site = last.site
    title = (site.text if site is not None else "") or last.op
    made = last.outputs[0].meta if last.outputs else None
    in_function = words.function(site, beside=beside) if site is not None else ""
    words_of_it = [
        words.meta(made) if made is not None else "",
        words.place(site, beside=main_file) + in_function,
        f"×{statement.times}" if statement.times > 1 else "",
    ]
    lines = (
        Line(LineRole.TITLE, words.shorten(title, 48)),
        Line(LineRole.DETAIL, " · ".join(word for word in words_of_it if word)),
    )
    return Box(
        name, Role.CUT, lines, tooltip=_tooltip(statement),
        link=f"{site.file}:{site.line}" if site is not None else "",
    )  # fmt: skip


def _tooltip(statement: _Statement) -> str:
    lines = []
    for operation in statement.operations[:20]:
        site = operation.site
        lines.append(f"{operation.op}  {site.text if site is not None else ''}".rstrip())
    cut = [name for op in statement.operations if op.cut for name in op.cut.tensors if name]
    if cut:
        lines.append(f"takes {', '.join(dict.fromkeys(cut))} without history")
    return "\n".join(lines)


def _arrows(
    statements: Sequence[_Statement], maker: dict[int, str], index: _Index
) -> tuple[Arrow, ...]:
    """Arrows from each line to those whose results it took, and to the nodes it cut itself from."""
    found: dict[tuple[str, str], Arrow] = {}
    for statement in statements:
        source = maker[statement.last.seq]
        for operation in statement.operations:
            for ref in operation.inputs:
                inside = maker.get(ref.made_by) if ref.made_by is not None else None
                node = index.node(ref) if inside is None and operation.cut is not None else None
                if inside is not None and inside != source:
                    found[source, inside] = Arrow(source, inside, flow=Flow.CUT)
                elif node is not None:
                    found[source, f"n{node}"] = Arrow(
                        source, f"n{node}", "no gradient", Flow.CUT,
                        tooltip="the operation kept no history: no gradient comes back from it",
                    )  # fmt: skip
    return tuple(found.values())
