"""A diagram in, a Mermaid flowchart out, for READMEs and issues; nothing from it is markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tracer.records import words
from tracer.records.diagram import (
    Arrow,
    Box,
    Diagram,
    Flow,
    Legend,
    Line,
    LineRole,
    Region,
    RegionRole,
    Role,
    State,
)
from tracer.render import theme

_DIRECTIONS = {"TB": "TD", "BT": "BT", "LR": "LR", "RL": "RL"}
_PLAIN = frozenset(" .,:_-+=/()[]'!?^~→↻…·×‖‑–—")
_READ_LATER = re.compile(r"\\(?=n)|\$(?=\$)|\bfa[a-z]?:(?=fa-)")
"""Where Mermaid, once it has read the numbers, sees a new line, a formula or an icon: a space of no
width between keeps it from that."""
_MOST_LINKS = 500
_MOST_CHARACTERS = 50_000
_LINK = re.compile(r" *\w+ (~~~|-->|-\.->|==>)")
_WIDEST = 900
"""Pixels up to which Mermaid leaves a line in one piece."""


def to_mermaid(diagram: Diagram, *, direction: str = "TB") -> str:
    """Write a diagram as Mermaid's `flowchart`; `direction` is the way that gradients flow."""
    return "\n".join(_lines(diagram, direction)) + "\n"


def too_large(text: str) -> str:
    """What to do about a flowchart that Mermaid refuses by default; nothing where it draws it.

    Its limits, `maxEdges` and `maxTextSize`, are among what a chart cannot set for itself:
    https://mermaid.js.org/config/schema-docs/config-properties-secure.html
    """
    links = sum(1 for line in text.splitlines() if _LINK.match(line))
    characters = len(text.encode("utf-16-le", "replace")) // 2  # as JavaScript counts them
    if links <= _MOST_LINKS and characters <= _MOST_CHARACTERS:
        return ""
    return (
        f"Mermaid draws {_MOST_LINKS} links and {_MOST_CHARACTERS:,} characters by default, and "
        f"this has {links:,} and {characters:,}: fold it (no --no-fold, a smaller --budget), or "
        "set maxEdges and maxTextSize where mermaid.initialize is called"
    )


def _lines(diagram: Diagram, direction: str) -> Iterator[str]:
    yield "---"
    yield f"config: {{flowchart: {{wrappingWidth: {_WIDEST}}}}}"
    yield "---"
    yield f"flowchart {_DIRECTIONS[direction]}"
    yield from _head(diagram)
    boxes = {box.id: box for box in diagram.boxes}
    for region in diagram.regions:
        yield from _region(region, boxes, "    ")
    for box in boxes.values():
        yield _box(box, "    ")
    for arrow in diagram.arrows:
        yield _arrow(arrow)
    yield from _box_classes(diagram.boxes)
    yield from _region_classes(diagram.regions)
    if diagram.legend is not None:
        yield from _shade_classes(diagram, diagram.legend)


def _head(diagram: Diagram) -> Iterator[str]:
    """The title with all that is said below it, and what the shades stand for, above the rest.

    Mermaid's own title would be read as HTML before it is shown as text.
    """
    title = diagram.title
    said = [f"<b>{_text(title.call)}</b>", _text(" · ".join(title.facts))]
    said += [f"<b>{_text(title.failure)}</b>"] if title.failure else []
    said += map(_text, diagram.notes)
    yield f'    head["{"<br/>".join(filter(None, said))}"]'
    yield f"    style head {_BARE}"
    above = "head"
    if diagram.legend is not None:
        yield f'    subgraph legend["{_text(diagram.legend.measure)}"]'
        for shade in diagram.legend.shades:
            yield f'        legend{shade.number}["{_text(shade.text)}"]'
        yield "    end"
        yield f"    style legend {_BARE}"
        yield "    head ~~~ legend"
        above = "legend"
    first = next((box.id for box in diagram.boxes if box.role is Role.SEED), None)
    if first is not None:
        yield f"    {above} ~~~ {first}"


def _region(region: Region, boxes: dict[str, Box], indent: str) -> Iterator[str]:
    repeat = f"×{region.repeat:,}" if region.repeat > 1 else ""
    title = " ".join(filter(None, (region.title, region.detail, repeat)))
    yield f'{indent}subgraph r_{region.id}["{_text(title)}"]'
    for below in region.regions:
        yield from _region(below, boxes, indent + "    ")
    for name in region.boxes:
        yield _box(boxes.pop(name), indent + "    ")
    yield f"{indent}end"


def _box(box: Box, indent: str) -> str:
    repeat = f" ×{box.repeat:,}" if box.repeat > 1 else ""
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


# ---- looks

_INK = f"color:{theme.INK},text-align:left"
_BARE = f"fill:transparent,stroke:transparent,{_INK}"


def _box_classes(boxes: Sequence[Box]) -> Iterator[str]:
    alike: dict[str, tuple[theme.Look, list[str]]] = {}
    for box in boxes:
        name = box.role.value + ("" if box.state is State.NORMAL else f"_{box.state.value}")
        alike.setdefault(name, (theme.look_of(box.role, box.state), []))[1].append(box.id)
    for name, (look, ids) in alike.items():
        yield f"    classDef {name} {_style(look)}"
        yield f"    class {','.join(ids)} {name}"


def _region_classes(regions: Sequence[Region]) -> Iterator[str]:
    alike: dict[RegionRole, list[str]] = {}
    waiting = list(regions)
    while waiting:
        region = waiting.pop()
        alike.setdefault(region.role, []).append(f"r_{region.id}")
        waiting += region.regions
    for role, ids in alike.items():
        yield f"    classDef in_{role.value} {_style(theme.REGIONS[role])}"
        yield f"    class {','.join(ids)} in_{role.value}"


def _shade_classes(diagram: Diagram, legend: Legend) -> Iterator[str]:
    colors = theme.SCALE if legend.ordered else theme.KINDS
    for shade in legend.shades:
        fill = colors[shade.number]
        ids = [box.id for box in diagram.boxes if box.shade == shade.number]
        yield f"    classDef shade{shade.number} fill:{fill},{_INK}"
        yield f"    class {','.join([f'legend{shade.number}', *ids])} shade{shade.number}"


def _style(look: theme.Look) -> str:
    fill, stroke = ("transparent" if color == "none" else color for color in (look.fill, look.line))
    dashed = any(word in look.style for word in ("dashed", "dotted"))
    return f"fill:{fill},stroke:{stroke},{_INK}" + ",stroke-dasharray:4 3" * dashed


def _text(text: str) -> str:
    """Text for a quoted label: whatever could be markup is written as `#` and its number."""
    return "".join(
        char if char in _PLAIN or char.isalnum() else f"#{ord(char)};"
        for char in _READ_LATER.sub("\\g<0>\u200b", words.one_line(text))
    )
