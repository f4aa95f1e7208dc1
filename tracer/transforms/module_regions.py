"""Nodes with their modules in, nested regions of boxes out: one for each module worth a frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tracer.records.diagram import Region, RegionRole
from tracer.records.graph import ModuleRef, Node


@dataclass(slots=True)
class _Place:
    """A module while regions are built: its path and class, the boxes in it, the modules below."""

    path: str
    cls: str = ""
    boxes: list[str] = field(default_factory=list)
    below: dict[str, _Place] = field(default_factory=dict)


def module_regions(nodes: Iterable[tuple[Node, str]]) -> tuple[Region, ...]:
    """Nest the boxes of (node, box id) pairs by module path; boxes of no module stand alone.

    A leaf stands with the module whose path its name begins with. A module that only holds one
    other, or numbered ones (`ModuleList`), gets no frame of its own.
    """
    top = _Place("")
    pairs = list(nodes)
    for node, box in pairs:
        if node.module is not None and node.module.path and not node.is_leaf:
            place = _descend(top, node.module.path)
            place.boxes.append(box)
            _tell_classes(top, node.module)
    for node, box in pairs:
        if node.is_leaf:
            _put_leaf(top, node, box)
    return tuple(region for below in top.below.values() for region in _regions(below))


def _descend(top: _Place, path: str) -> _Place:
    place, names = top, path.split(".")
    for depth, name in enumerate(names, 1):
        place = place.below.setdefault(name, _Place(".".join(names[:depth])))
    return place


def _tell_classes(top: _Place, module: ModuleRef | None) -> None:
    while module is not None:
        place = _descend(top, module.path)
        if place.cls:
            return  # and so have those around it
        place.cls = module.cls
        module = module.parent


def _put_leaf(top: _Place, node: Node, box: str) -> None:
    path = node.module.path if node.module is not None else ""
    path = path or (node.variables[0].rpartition(".")[0] if node.variables else "")
    place = top
    for name in path.split("."):
        if name not in place.below:
            break
        place = place.below[name]
    if place is not top:
        place.boxes.append(box)


def _regions(place: _Place) -> list[Region]:
    below = [region for child in place.below.values() for region in _regions(child)]
    numbered = all(name.isdigit() for name in place.below)
    if not place.boxes and (len(below) < 2 or numbered):
        return below
    identity = "m_" + "".join(
        char if char.isalnum() and char.isascii() else "_" for char in place.path
    )
    return [
        Region(
            identity, RegionRole.MODULE, place.path, place.cls, tuple(place.boxes), tuple(below),
            tooltip=f"{place.path} {place.cls}".rstrip(),
        )
    ]  # fmt: skip
