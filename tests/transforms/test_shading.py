"""Boxes are coloured by what was asked, and the legend and the boxes say the numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.transforms import graphs
from tests.transforms.graphs import traced
from tracer.errors import TracerError
from tracer.records import Accumulate, EventList, Gradient, NodeRun, TensorMeta, TraceRecord
from tracer.records.diagram import Diagram, Legend, Role, Shade, State
from tracer.records.view import View
from tracer.transforms import diagram

MLP = traced(graphs.mlp(6), lambda node: 10.0 ** ((node.sequence_nr or 0) / 4 - 4))


def shades(drawn: Diagram) -> dict[str, int | None]:
    return {box.lines[0].text: box.shade for box in drawn.boxes}


def test_norms_are_on_a_logarithmic_scale_that_the_legend_writes_out() -> None:
    drawn = diagram(MLP, 1, View(color="norm"))
    assert drawn.legend == Legend(
        "‖g‖ received",
        (
            Shade(0, "0.001 – 0.0224"), Shade(1, "0.0224 – 0.501"), Shade(2, "0.501 – 11.2"),
            Shade(3, "11.2 – 251"), Shade(4, "251 – 5623"),
        ),
    )  # fmt: skip
    found = shades(drawn)
    assert (found["0 · Linear"], found["4 · Linear"], found["10 · Linear"]) == (0, 1, 4)


def test_a_large_picture_is_coloured_by_norm_unless_it_is_not_to_be() -> None:
    many = traced(graphs.transformer(3), lambda node: 1.0 + node.id)
    assert diagram(many, 1).legend is not None
    assert diagram(many, 1, View(color="none")).legend is None
    assert diagram(traced(graphs.mlp(2)), 1).legend is None


def test_gradients_of_one_size_have_no_scale() -> None:
    assert diagram(traced(graphs.mlp(6)), 1, View(color="norm")).legend is None


def test_seeds_leaves_and_what_is_wrong_or_zero_keep_their_own_look() -> None:
    drawn = diagram(MLP, 1, View(color="norm", show=frozenset({"accumulate"})))
    kept = [box for box in drawn.boxes if box.role in (Role.SEED, Role.LEAF)]
    assert kept
    assert {box.shade for box in kept} == {None}


def test_time_is_written_in_the_box_too() -> None:
    drawn = diagram(MLP, 1, View(color="time", budget=5))
    timed = [box for box in drawn.boxes if box.shade is not None]
    assert drawn.legend is not None
    assert drawn.legend.measure == "time in a box's nodes"
    assert [box.lines[-1].text.endswith(" %") for box in timed] == [True] * len(timed) != []


def test_modules_have_a_colour_each_and_the_legend_names_them() -> None:
    drawn = diagram(traced(graphs.transformer(2)), 1, View(color="module", budget=30))
    assert drawn.legend is not None
    names = [shade.text for shade in drawn.legend.shades]
    assert not drawn.legend.ordered
    assert names == ["model.lm_head", "model.transformer"]


def with_zeros(trace: TraceRecord, zeros: int) -> TraceRecord:
    """Let every node receive a gradient of 32 elements, so many of which are zero."""
    seen = Gradient(TensorMeta((4, 8)), 1.0, 0.0, 1.0, 0.1, zeros, 0, 0)
    events = (
        replace(event, received=(seen,)) if isinstance(event, NodeRun) else event
        for event in trace.events
        if not isinstance(event, Accumulate)
    )
    return replace(trace, events=EventList(tuple(events)))


@pytest.mark.parametrize(
    ("zeros", "step", "says"), [(0, 0, ""), (8, 1, "25 % zeros"), (20, 3, "62.5 % zeros")]
)
def test_zeros_are_in_steps_of_a_quarter(zeros: int, step: int, says: str) -> None:
    drawn = diagram(with_zeros(traced(graphs.mlp(6)), zeros), 1, View(color="zeros"))
    box = next(box for box in drawn.boxes if box.lines[0].text == "0 · Linear")
    assert box.shade == step
    assert (says in [line.text for line in box.lines]) is bool(says)


def test_an_unknown_colour_is_refused_with_the_one_that_may_be_meant() -> None:
    with pytest.raises(TracerError, match="cannot color by 'nrom'; did you mean norm"):
        View(color="nrom")


def test_a_box_that_is_wrong_is_not_shaded() -> None:
    broken = Gradient(TensorMeta((4, 8)), float("nan"), 0.0, 1.0, 0.1, 0, 3, 0)
    root = MLP.graphs[1].roots[0].node
    events = (
        replace(event, received=(broken,))
        if isinstance(event, NodeRun) and event.node == root
        else event
        for event in MLP.events
    )
    drawn = diagram(replace(MLP, events=EventList(tuple(events))), 1, View(color="norm"))
    assert [box.shade for box in drawn.boxes if box.state is State.WRONG] == [None]
