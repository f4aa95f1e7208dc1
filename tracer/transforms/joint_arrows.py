"""Edges between two boxes in; the one arrow that stands for them all out."""

from __future__ import annotations

from collections.abc import Sequence

from tracer.records import words
from tracer.records.diagram import Arrow, Flow, State
from tracer.records.graph import Edge
from tracer.transforms.scene import Scene
from tracer.transforms.tallies import Norms, norms_of


def joint_arrow(
    scene: Scene, ends: tuple[str, str], edges: Sequence[Edge], *, carried: bool = False
) -> Arrow:
    """Draw what flowed over several edges between the same two boxes."""
    flowed = [scene.flowed(edge) for edge in edges]
    norms = norms_of(flowed)
    where = f"over {words.count(len(edges), 'edge')}"
    where += ", from one repetition to the next" * carried
    if not norms.count:
        text = f"no gradient flowed {where}"
        return Arrow(*ends, "", Flow.PART, text, State.IDLE, count=len(edges))
    (only,) = flowed if len(flowed) == 1 else (None,)
    shown = words.tensor(only) if only is not None else norms.text
    return Arrow(
        *ends, f"{shown} *" if any(map(scene.is_mixed, edges)) else shown,
        Flow.CARRIED if carried else Flow.FLOWS,
        f"{words.statistics(only) if only is not None else norms.sentence}\n{where}",
        _arrow_state(norms), norms.most, len(edges),
    )  # fmt: skip


def _arrow_state(norms: Norms) -> State:
    if norms.wrong:
        return State.WRONG
    return State.ZERO if norms.zeros == norms.count else State.NORMAL
