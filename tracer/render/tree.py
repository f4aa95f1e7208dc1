"""A diagram in; a drawing of it in lines of text, for a terminal, out.

Gradients flow down. The way that is longest goes straight down the page, other ways stand beside it
as branches, and a box that several ways lead to stands once, where the last of them arrives: the
others say that it is below.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Group
from rich.style import Style
from rich.text import Text

from tracer.records import words
from tracer.records.diagram import (
    Arrow,
    Box,
    Diagram,
    Flow,
    Line,
    LineRole,
    Region,
    RegionRole,
    Role,
    State,
)

_SIGNS = {
    Role.OPERATION: "●", Role.LEAF: "◆", Role.HOOK: "▲", Role.CUSTOM: "◉", Role.WRAPPER: "○",
    Role.COMPILED: "▣", Role.SEED: "▼", Role.CUT: "○", Role.FOLDED: "▣", Role.CARRY: "",
}  # fmt: skip
_NOT_RUN = "◌"
_STYLES = {Role.LEAF: "green", Role.HOOK: "yellow", Role.CUSTOM: "magenta", Role.CUT: "dim"}
_LINE_STYLES = {
    LineRole.SUM: "cyan", LineRole.GRAD: "green", LineRole.LEAF: "green", LineRole.HOOK: "yellow",
    LineRole.ALARM: "bold red",
}  # fmt: skip
_FLOW = "blue"
_DEEPEST = 12
"""Branches within branches; what lies deeper is drawn below, under its own name."""

_LEAST_ROOM = 44
_BACK = (Flow.CARRIED, Flow.CUT)


def to_tree(diagram: Diagram, *, width: int = 100) -> Group:
    """Draw a diagram for `rich` to print in so many columns; lines that are longer are cut."""
    lines = _Tree(diagram, width).lines()
    return Group(*(_cut(line, width) for line in lines))


def _cut(line: Text, width: int) -> Text:
    line.no_wrap = True
    line.truncate(width, overflow="ellipsis")
    return line


@dataclass(frozen=True, slots=True)
class _Branch:
    """Where lines stand: what is left of them, and how many branches that makes."""

    left: str = ""
    depth: int = 0

    def inner(self, *, last: bool) -> _Branch:
        """The branch to the right of this one's own line, which ends here or goes on."""
        return _Branch(f"{self.left}{'  ' if last else '│ '}", self.depth + 1)


class _Tree:
    """Draws box after box, keeping count of the arrows that are still to come to each."""

    def __init__(self, diagram: Diagram, width: int) -> None:
        self._diagram = diagram
        self._width = width
        self._details_at = min(max(width // 2, 30), 64)
        self._boxes = {box.id: box for box in diagram.boxes}
        arrows = [a for a in diagram.arrows if {a.source, a.target} <= self._boxes.keys()]
        self._out: dict[str, list[Arrow]] = defaultdict(list)
        self._pending: dict[str, int] = defaultdict(int)
        for arrow in arrows:
            if arrow.flow is not Flow.CUT:
                self._out[arrow.source].append(arrow)
            if arrow.flow not in _BACK:
                self._pending[arrow.target] += 1
        self._order = self._topological()
        self._where = dict(_where(diagram.regions))
        self._place = ""
        self._drawn: set[str] = set()
        self._later: list[str] = []

    def _topological(self) -> dict[str, int]:
        """The number of each box in an order in which arrows lead forward only."""
        waits, order = dict(self._pending), dict[str, int]()
        ready = [name for name in reversed(self._boxes) if not waits.get(name)]
        while ready:
            name = ready.pop()
            order[name] = len(order)
            for arrow in reversed(self._out[name]):
                if arrow.flow not in _BACK:
                    waits[arrow.target] -= 1
                    if not waits[arrow.target]:
                        ready.append(arrow.target)
        return {name: order.get(name, len(order)) for name in self._boxes}

    # ---- the page

    def lines(self) -> Iterator[Text]:
        """Every line of the drawing."""
        title, diagram = self._diagram.title, self._diagram
        call, facts = Text(title.call, "bold"), Text(" · ".join(title.facts), "dim")
        if call.cell_len + facts.cell_len + 3 <= self._width:
            yield Text.assemble(call, "   ", facts)
        else:
            yield from (call, Text.assemble("    ", facts))
        if title.failure:
            yield Text(title.failure, "bold red")
        pictured = [name for name, box in self._boxes.items() if box.role is not Role.CUT]
        roots = [name for name in pictured if not self._pending[name]]
        for name in (*roots, *pictured):  # the latter where arrows go round in a circle
            yield from self._tree(name)
        yield from self._cuts()
        if diagram.notes:
            yield Text()
        for note in diagram.notes:
            yield Text(note, "dim")

    def _tree(self, name: str) -> Iterator[Text]:
        """Draw a root with all below it, then what was too deep to be drawn inside it."""
        self._later.append(name)
        while self._later:
            name = self._later.pop(0)
            if name not in self._drawn:
                yield Text()
                yield from self._down(name, _Branch())

    def _down(self, name: str, branch: _Branch) -> Iterator[Text]:
        """Draw a box and all that it leads to: branches first, the last way straight on."""
        current: str | None = name
        while current is not None:
            arrows = self._sorted(current)
            yield from self._box(current, branch, goes_on=bool(arrows))
            current = None
            for number, arrow in enumerate(arrows, 1):
                last = number == len(arrows)
                if self._arrives(arrow) and not self._ends(arrow.target):
                    if last:
                        yield from self._edge(arrow, branch)
                        current = arrow.target
                    else:
                        yield from self._beside(arrow, branch)
                else:
                    yield from self._aside(arrow, branch, last=last)

    def _sorted(self, name: str) -> list[Arrow]:
        """The arrows from a box: to what ends there first, the rest as the engine goes on."""
        return sorted(
            self._out[name],
            key=lambda a: (not self._ends(a.target), self._order[a.target], a.flow in _BACK),
        )

    def _arrives(self, arrow: Arrow) -> bool:
        """Count an arrow as drawn; whether it was the last to its box, which is not drawn yet."""
        if arrow.flow in _BACK:
            return self._boxes[arrow.target].role is Role.CARRY
        self._pending[arrow.target] -= 1
        return self._pending[arrow.target] <= 0 and arrow.target not in self._drawn

    def _ends(self, name: str) -> bool:
        return not self._out[name]

    # ---- arrows

    def _edge(self, arrow: Arrow, branch: _Branch) -> Iterator[Text]:
        """The way straight on."""
        rail = f"{branch.left}{'╎' if arrow.state is State.ZERO else '│'} "
        if arrow.text:
            yield Text.assemble((rail, "dim"), (arrow.text, _flow_style(arrow)))

    def _beside(self, arrow: Arrow, branch: _Branch) -> Iterator[Text]:
        """A way that is drawn whole before this one goes on."""
        inner = branch.inner(last=False)
        if inner.depth > _DEEPEST or self._width - len(inner.left) < _LEAST_ROOM:
            self._later.append(arrow.target)
            yield self._pointer(arrow, branch, "├─▶ ", " further down")
            return
        yield Text.assemble((f"{branch.left}├─╮ ", "dim"), (arrow.text, _flow_style(arrow)))
        yield from self._down(arrow.target, inner)

    def _aside(self, arrow: Arrow, branch: _Branch, *, last: bool) -> Iterator[Text]:
        """A box that nothing leads on from, or one that is drawn elsewhere."""
        turn = "╰─▶ " if last else "├─▶ "
        if not self._ends(arrow.target) or arrow.target in self._drawn:
            above = arrow.target in self._drawn
            yield self._pointer(arrow, branch, turn, " above" if above else " below")
        elif self._pending[arrow.target] > 0:
            yield self._pointer(arrow, branch, turn, " below")
        else:
            yield from self._leaf(arrow, branch, turn, last=last)

    def _pointer(self, arrow: Arrow, branch: _Branch, turn: str, where: str) -> Text:
        box = self._boxes[arrow.target]
        step = f" #{box.step}" if box.step is not None else ""
        return Text.assemble(
            (f"{branch.left}{turn}", "dim"), (arrow.text, _flow_style(arrow)),
            "  " * bool(arrow.text), (f"{_title(box)}{step}", "italic"), (where, "dim"),
        )  # fmt: skip

    def _leaf(self, arrow: Arrow, branch: _Branch, turn: str, *, last: bool) -> Iterator[Text]:
        self._drawn.add(arrow.target)
        box = self._boxes[arrow.target]
        first = Text.assemble(
            (f"{branch.left}{turn}", "dim"), (arrow.text, _flow_style(arrow)),
            "  " * bool(arrow.text), self._head(box),
        )  # fmt: skip
        yield from self._described(first, box, f"{branch.left}{' ' if last else '│'}     ")

    # ---- boxes

    def _box(self, name: str, branch: _Branch, *, goes_on: bool) -> Iterator[Text]:
        self._drawn.add(name)
        box = self._boxes[name]
        where = self._where.get(name, "")
        if where != self._place:
            self._place = where
            if where:
                yield Text.assemble((f"{branch.left}│ ", "dim"), (f"┄┄ {where} ┄┄", "dim italic"))
        first = Text.assemble((branch.left, "dim"), self._head(box))
        yield from self._described(first, box, f"{branch.left}{'│' if goes_on else ' '}   ")

    def _head(self, box: Box) -> Text:
        style = Style.parse(_STYLES.get(box.role, "none"))
        if box.state is State.WRONG:
            style += Style.parse("bold red")
        elif box.state in (State.ZERO, State.IDLE):
            style += Style.parse("dim")
        sign = _NOT_RUN if box.state is State.IDLE else _SIGNS[box.role]
        return Text(f"{sign} {_title(box)}".strip(), style)

    def _described(self, first: Text, box: Box, left: str) -> Iterator[Text]:
        """A box's first line, with what it is in a column of its own where both fit, and others."""
        details = [line for line in box.lines[1:] if line.role is LineRole.DETAIL]
        others = [line for line in box.lines[1:] if line not in details[:1]]
        words_of = [words.one_line(line.text) for line in details[:1]]
        words_of += [f"#{box.step}"] if box.step is not None else []
        detail = " · ".join(words_of)
        gap = max(self._details_at - first.cell_len, 2)
        if first.cell_len + gap + words.width(detail) <= self._width:
            yield Text.assemble(first, " " * gap, (detail, "dim")) if detail else first
        else:
            yield first
            yield Text.assemble((left, "dim"), (detail, "dim"))
        for line in others:
            yield Text.assemble((left, "dim"), _said(line))

    # ---- what has no history

    def _cuts(self) -> Iterator[Text]:
        cut = {box.id: box for box in self._diagram.boxes if box.role is Role.CUT}
        for region in self._diagram.regions:
            inside = [cut.pop(name) for name in region.boxes if name in cut]
            if region.role is RegionRole.CUT:
                yield Text()
                yield Text(f"┄┄ {_region_title(region)} ┄┄", "dim italic")
                for box in inside:
                    yield from self._cut(box)
        for box in cut.values():
            yield from self._cut(box)

    def _cut(self, box: Box) -> Iterator[Text]:
        yield from self._described(self._head(box), box, "    ")
        ends = [a.target for a in self._diagram.arrows if a.source == box.id and a.text]
        names = [_title(self._boxes[name]) for name in ends if name in self._boxes]
        if names:
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
            yield Text(f"    nothing flows back to {shown}", "dim")


def _title(box: Box) -> str:
    title = words.one_line(box.lines[0].text) if box.lines else ""
    return f"{title} ×{box.repeat:,}" if box.repeat > 1 else title


def _said(line: Line) -> Text:
    return Text(words.one_line(line.text), _LINE_STYLES.get(line.role, "dim"))


def _flow_style(arrow: Arrow) -> str:
    if arrow.state is State.WRONG:
        return "bold red"
    return "dim" if arrow.state is not State.NORMAL or arrow.flow is Flow.PART else _FLOW


def _region_title(region: Region) -> str:
    times = f"×{region.repeat:,}" if region.repeat > 1 else ""
    return words.one_line(" ".join(filter(None, (region.title, region.detail, times))))


def _where(regions: tuple[Region, ...], outer: str = "") -> Iterator[tuple[str, str]]:
    """Each box with the regions that it stands in, from the outermost on."""
    for region in regions:
        if region.role is not RegionRole.CUT:
            path = " › ".join(filter(None, (outer, _region_title(region))))
            yield from ((name, path) for name in region.boxes)
            yield from _where(region.regions, path)
