"""A picture and what to colour it by in; the same picture with shades and their legend out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from tracer.records import words
from tracer.records.diagram import (
    Box,
    Diagram,
    Legend,
    Line,
    LineRole,
    Role,
    Shade,
    State,
)
from tracer.records.graph import Node
from tracer.records.passes import PassView
from tracer.transforms.find import module_of
from tracer.transforms.tallies import spent

STEPS = 5
_MOST_KINDS = 8
_DRAWN = (Role.SEED, Role.CUT, Role.HOOK, Role.CARRY)  # stand for no node


def shade(drawn: Diagram, view: PassView, color: str) -> Diagram:
    """Give boxes a shade by `norm`, `time`, `module` or `zeros`; `none` leaves them as they are.

    Norms and times are on a logarithmic scale of five steps, zeros in steps of 25 %. What a shade
    stands for is also written: in the legend, and for time and zeros in the box.
    """
    if color == "norm":
        return _by_size(
            drawn, "‖g‖ received", {b.id: b.magnitude for b in drawn.boxes}, words.brief
        )
    if color == "time":
        times = {box.id: spent(view, box.nodes) for box in drawn.boxes if _has_shade(box)}
        timed = _with_lines(drawn, _time_texts(times))
        return _by_size(timed, "time in a box's nodes", times, lambda ns: words.duration(round(ns)))
    if color == "zeros":
        return _by_zeros(drawn, view)
    return _by_module(drawn, view) if color == "module" else drawn


def _has_shade(box: Box) -> bool:
    return box.role not in _DRAWN and box.state not in (State.IDLE, State.ZERO, State.WRONG)


def _stands_for_nodes(box: Box) -> bool:
    return box.role not in _DRAWN and box.state is not State.WRONG


def _by_size(
    drawn: Diagram,
    measure: str,
    sizes: Mapping[str, float | None],
    written: Callable[[float], str],
) -> Diagram:
    known = {
        box.id: math.log10(size)
        for box in drawn.boxes
        if _has_shade(box)
        and box.role is not Role.LEAF
        and (size := sizes.get(box.id))
        and math.isfinite(size)
    }
    if not known:
        return drawn
    least, most = min(known.values()), max(known.values())
    width = (most - least) / STEPS
    if width < 1e-3:
        return drawn
    steps = {id: min(int((size - least) / width), STEPS - 1) for id, size in known.items()}
    bounds = [10 ** (least + width * step) for step in range(STEPS + 1)]
    shades = [
        Shade(step, f"{written(bounds[step])} – {written(bounds[step + 1])}")
        for step in range(STEPS)
    ]
    return _shaded(drawn, steps, Legend(measure, tuple(shades)))


def _shaded(drawn: Diagram, steps: Mapping[str, int], legend: Legend) -> Diagram:
    """Give boxes their shades; leaves stay green."""
    boxes = tuple(
        box if box.role is Role.LEAF else replace(box, shade=steps.get(box.id))
        for box in drawn.boxes
    )
    return replace(drawn, boxes=boxes, legend=legend)


def _with_lines(drawn: Diagram, texts: Mapping[str, str]) -> Diagram:
    """Write in each box what its shade stands for."""
    boxes = tuple(
        replace(box, lines=(*box.lines, Line(LineRole.NOTE, texts[box.id])))
        if texts.get(box.id) else box
        for box in drawn.boxes
    )  # fmt: skip
    return replace(drawn, boxes=boxes)


def _time_texts(times: Mapping[str, int]) -> dict[str, str]:
    total = sum(times.values())
    return {
        id: f"{words.duration(ns)}, {100 * ns / total:.2g} %" for id, ns in times.items() if ns > 0
    }


def _by_zeros(drawn: Diagram, view: PassView) -> Diagram:
    shares = {
        box.id: share
        for box in drawn.boxes
        if box.role not in _DRAWN
        and box.state is not State.WRONG
        and (share := _share_of_zeros(view, box.nodes)) is not None
    }
    steps = {id: math.ceil(share * (STEPS - 1)) for id, share in shares.items()}
    texts = ("none", "to 25 %", "to 50 %", "to 75 %", "to 100 %")
    shades = tuple(Shade(step, text) for step, text in enumerate(texts))
    written = {id: f"{100 * share:.3g} % zeros" for id, share in shares.items() if share}
    return _shaded(_with_lines(drawn, written), steps, Legend("zeros in what is received", shades))


def _share_of_zeros(view: PassView, nodes: Sequence[int]) -> float | None:
    """Count the zeros among all elements that the nodes received; None where nothing is known."""
    zeros = elements = 0
    for node in nodes:
        run, added = view.runs.get(node), view.accumulates.get(node)
        received = run.received if run is not None else (added.incoming,) if added else ()
        for gradient in received:
            if gradient is not None and gradient.zeros is not None:
                zeros += gradient.zeros
                elements += gradient.meta.numel
    return zeros / elements if elements else None


def _by_module(drawn: Diagram, view: PassView) -> Diagram:
    """Colour by the outermost modules that tell boxes apart; of many, the largest."""
    paths = {
        box.id: _module_path(view.graph.nodes, box.nodes)
        for box in drawn.boxes
        if _stands_for_nodes(box)
    }
    depth = _telling_depth(paths.values())
    names = {id: ".".join(path[:depth]) for id, path in paths.items() if path}
    largest = [name for name, _ in Counter(names.values()).most_common(_MOST_KINDS - 1)]
    kinds = {name: min(number, _MOST_KINDS - 1) for number, name in enumerate(sorted(largest))}
    steps = {id: kinds.get(name, _MOST_KINDS - 1) for id, name in names.items()}
    shades = [Shade(number, name) for name, number in kinds.items()]
    if len(set(names.values())) > len(largest):
        shades.append(Shade(_MOST_KINDS - 1, "other modules"))
    return _shaded(drawn, steps, Legend("module", tuple(shades), ordered=False))


def _telling_depth(paths: Collection[Sequence[str]]) -> int:
    deepest = max(map(len, paths), default=0)
    for depth in range(1, deepest + 1):
        if len({tuple(path[:depth]) for path in paths if path}) > 1:
            return depth
    return deepest


def _module_path(nodes: Sequence[Node], members: Sequence[int]) -> list[str]:
    """The modules around all of a box's nodes, outermost first."""
    shared: list[str] | None = None
    for member in members:
        path = module_of(nodes[member]).split(".")
        if shared is None:
            shared = path
        while shared != path[: len(shared)]:
            shared = shared[:-1]
    return [part for part in shared or [] if part]
