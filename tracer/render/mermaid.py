"""A diagram in, a Mermaid flowchart out, for READMEs and issues; nothing from it is markup."""

from __future__ import annotations

from collections.abc import Iterator

from tracer.records import words
from tracer.records.diagram import Arrow, Box, Diagram, Flow, Line, LineRole, Region, Role, State
from tracer.render import theme

_DIRECTIONS = {"TB": "TD", "BT": "BT", "LR": "LR", "RL": "RL"}
_PLAIN = frozenset(" .,:_-+=/()[]{}'!?%^~→↻…·×‖‑–—")


def to_mermaid(diagram: Diagram, *, direction: str = "TB") -> str:
    """Write a diagram as Mermaid's `flowchart`; `direction` is the way that gradients flow."""
    return "\n".join(_lines(diagram, direction)) + "\n"


def _lines(diagram: Diagram, direction: str) -> Iterator[str]:
    title = diagram.title
    yield "---"
    yield f"title: '{_yaml(' · '.join([title.call, *title.facts]))}'"
    yield "---"
    yield f"flowchart {_DIRECTIONS[direction]}"
    for note in filter(None, (title.failure, *diagram.notes)):
        yield f"    %% {words.one_line(note)}"
    boxes = {box.id: box for box in diagram.boxes}
    for region in diagram.regions:
        yield from _region(region, boxes, "    ")
    for box in boxes.values():
        yield _box(box, "    ")
    for arrow in diagram.arrows:
        yield _arrow(arrow)
    yield from _classes(diagram)


def _region(region: Region, boxes: dict[str, Box], indent: str) -> Iterator[str]:
    repeat = f"×{region.repeat}" if region.repeat > 1 else ""
    title = " ".join(filter(None, (region.title, region.detail, repeat)))
    yield f'{indent}subgraph r_{region.id}["{_text(title)}"]'
    for below in region.regions:
        yield from _region(below, boxes, indent + "    ")
    for name in region.boxes:
        yield _box(boxes.pop(name), indent + "    ")
    yield f"{indent}end"


def _box(box: Box, indent: str) -> str:
    repeat = f" ×{box.repeat}" if box.repeat > 1 else ""
    step = f"  #{ord('#')};{box.step}" if box.step is not None else ""
    first, *others = box.lines
    lines = [f"<b>{_text(first.text + repeat)}</b>{step}", *map(_line, others)]
    label = f'"{"<br/>".join(lines)}"'
    opened, closed = ("([", "])") if box.role in (Role.SEED, Role.CARRY) else ("[", "]")
    return f"{indent}{box.id}{opened}{label}{closed}"


def _line(line: Line) -> str:
    text = _text(line.text)
    return f"<b>{text}</b>" if line.role is LineRole.ALARM else text


def _arrow(arrow: Arrow) -> str:
    line = "-->" if arrow.flow is Flow.FLOWS and arrow.state is State.NORMAL else "-.->"
    if arrow.state is State.WRONG:
        line = "==>"
    label = f'|"{_text(arrow.text)}"|' if arrow.text else ""
    return f"    {arrow.source} {line}{label} {arrow.target}"


def _classes(diagram: Diagram) -> Iterator[str]:
    roles = dict.fromkeys((box.role, box.state is State.WRONG) for box in diagram.boxes)
    for role, wrong in roles:
        look = theme.look_of(role, State.WRONG if wrong else State.NORMAL)
        fill = "transparent" if look.fill == "none" else look.fill
        stroke = "transparent" if look.line == "none" else look.line
        named = [b.id for b in diagram.boxes if (b.role, b.state is State.WRONG) == (role, wrong)]
        name = f"{role.value}{'_wrong' * wrong}"
        yield f"    classDef {name} fill:{fill},stroke:{stroke},color:{theme.INK},text-align:left"
        yield f"    class {','.join(named)} {name}"


def _text(text: str) -> str:
    """Text for a quoted label: whatever could be markup is written as `#` and its number."""
    return "".join(
        char if char in _PLAIN or char.isalnum() else f"#{ord(char)};"
        for char in words.one_line(text)
    )


def _yaml(text: str) -> str:
    return words.one_line(text).replace("'", "''")
