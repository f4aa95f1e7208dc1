"""What a folded picture says: counts, the range of norms inside, what flowed, what broke."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.transforms import graphs
from tests.transforms.graphs import Tape, traced
from tracer.errors import NotInTraceError
from tracer.records import (
    Accumulate,
    EventList,
    Gradient,
    Hook,
    HookRun,
    Node,
    NodeRun,
    Outcome,
    TensorMeta,
    TraceRecord,
)
from tracer.records.diagram import Arrow, Box, Diagram, Flow, LineRole, Region, Role, State
from tracer.records.view import View
from tracer.transforms import diagram


def depth(node: Node) -> float:
    """Give blocks further down, which come later in the pass, smaller gradients."""
    parts = node.module.path.split(".") if node.module is not None else []
    return 2.0 ** int(parts[3]) if len(parts) > 3 and parts[3].isdecimal() else 0.5


TRANSFORMER = traced(graphs.transformer(12), depth)


def box_of(drawn: Diagram, title: str) -> Box:
    """Find the one box whose first line says `title`."""
    (found,) = (box for box in drawn.boxes if box.lines[0].text == title)
    return found


def texts(box: Box) -> list[str]:
    return [line.text for line in box.lines]


def arrow_between(drawn: Diagram, source: str, target: str) -> Arrow:
    """Find the one arrow between the boxes with these titles."""
    ends = box_of(drawn, source).id, box_of(drawn, target).id
    (found,) = (arrow for arrow in drawn.arrows if (arrow.source, arrow.target) == ends)
    return found


def all_regions(drawn: Diagram) -> list[Region]:
    found = list(drawn.regions)
    for region in found:  # grows as it is read
        found += region.regions
    return found


def changed(trace: TraceRecord, node: int, **fields: object) -> TraceRecord:
    """Change what one node's execution is recorded with."""
    events = (
        replace(event, **fields) if isinstance(event, NodeRun) and event.node == node else event
        for event in trace.events
    )
    return replace(trace, events=EventList(tuple(events)))


# ---- boxes


def test_a_folded_block_says_how_often_it_stands_and_what_norms_are_inside() -> None:
    drawn = diagram(TRANSFORMER, 1, View(budget=7))
    box = box_of(drawn, "h.0–11")
    assert texts(box) == ["h.0–11", "Block · 336 nodes, 144 leaves", "‖g‖ 0.5 … 2048"]
    assert (box.role, box.repeat, box.count, box.magnitude) == (Role.FOLDED, 12, 480, 2048.0)
    assert box.tooltip.split("\n") == [
        "model.transformer.h.0–11 Block",
        "336 nodes, 144 leaves, 12 blocks alike",
        "received 480 gradients, norms 0.5 to 2048, all taken together as one vector 12513",
        "ran 0.48 ms in all",
    ]


def test_an_operation_on_its_own_is_drawn_as_in_a_small_picture() -> None:
    drawn = diagram(TRANSFORMER, 1, View(budget=7))
    assert texts(box_of(drawn, "wte · Embedding"))[1] == "EmbeddingBackward0 · (4,8) f32"


def test_views_are_named_in_the_tooltip_of_what_they_serve() -> None:
    drawn = diagram(TRANSFORMER, 1, View(budget=7))
    box = box_of(drawn, "lm_head · Linear")
    assert (box.count, box.tooltip.split("\n")[-1]) == (2, "with TBackward0")


def test_operations_laid_on_one_another_keep_what_they_have_in_common() -> None:
    drawn = diagram(traced(graphs.lstm(100), lambda node: float(node.call)), 1)
    box = box_of(drawn, "Mm · gates = h @ w + b")
    assert texts(box)[1:] == ["MmBackward0 · (4,32) f32 · line 3"]
    assert (box.link, box.role) == ("net.py:3", Role.OPERATION)


def test_leaves_laid_on_one_another_count_themselves() -> None:
    drawn = diagram(traced(graphs.wide(100)), 1)
    box = box_of(drawn, "leaves[0]–leaves[99]")
    assert texts(box)[1:] == ["100 leaves · (8,) f32"]
    assert box.role is Role.LEAF


def test_a_block_that_receives_nothing_but_zeros_says_so() -> None:
    nothing = Gradient(TensorMeta((4, 8)), 0.0, 0.0, 0.0, 0.0, 32, 0, 0)
    events = tuple(
        replace(event, received=(nothing,)) if isinstance(event, NodeRun) else event
        for event in traced(graphs.mlp(50)).events
        if not isinstance(event, Accumulate)
    )
    trace = replace(traced(graphs.mlp(50)), events=EventList(events))
    box = box_of(diagram(trace, 1, View(budget=3)), "0–99")
    assert texts(box)[2:] == ["0", "100 of 250 not run in this pass"]
    assert box.state is State.ZERO


def test_a_block_that_did_not_run_is_idle() -> None:
    trace = replace(traced(graphs.mlp(50)), events=EventList())
    box = box_of(diagram(trace, 1, View(budget=3)), "0–99")
    assert (texts(box)[2:], box.state) == (["not run in this pass"], State.IDLE)


def test_a_block_in_which_nan_begins_names_the_operation() -> None:
    trace = TRANSFORMER
    softmax = [n.id for n in trace.graphs[1].nodes if n.name == "SoftmaxBackward0"][4]
    broken = Gradient(TensorMeta((4, 8)), math.nan, math.nan, math.nan, math.nan, 0, 3, 0)
    drawn = diagram(changed(trace, softmax, returned=(broken,)), 1, View(budget=7))
    box = box_of(drawn, "h.0–11")
    assert (box.state, texts(box)[-1]) == (State.WRONG, "begins at Softmax")
    assert box.lines[-1].role is LineRole.ALARM


def test_nan_that_arrives_is_counted() -> None:
    trace = TRANSFORMER
    softmax = [n.id for n in trace.graphs[1].nodes if n.name == "SoftmaxBackward0"][4]
    broken = Gradient(TensorMeta((4, 8)), math.nan, math.nan, math.nan, math.nan, 0, 3, 0)
    drawn = diagram(changed(trace, softmax, received=(broken,)), 1, View(budget=7))
    assert "NaN or Inf in 1 of 480" in texts(box_of(drawn, "h.0–11"))


def test_a_block_in_which_a_node_raised_says_what() -> None:
    (record,) = TRANSFORMER.passes
    node = next(n.id for n in TRANSFORMER.graphs[1].nodes if n.name == "GeluBackward0")
    failed = replace(record, outcome=Outcome("RuntimeError", "no", node))
    drawn = diagram(replace(TRANSFORMER, passes=(failed,)), 1, View(budget=7))
    assert texts(box_of(drawn, "h.0–11"))[-1] == "raised RuntimeError at Gelu"


def hooked(trace: TraceRecord, node: int) -> TraceRecord:
    """Let a tensor hook run on what arrives at a node."""
    run = HookRun(
        seq=9_999, pass_id=1, hook=Hook(1, "tensor hook", "clip", "h"), node=node, input_nr=0
    )
    return replace(trace, events=EventList((*trace.events, run)))


def test_a_hook_on_what_is_folded_is_counted() -> None:
    inside = next(n.id for n in TRANSFORMER.graphs[1].nodes if n.name == "GeluBackward0")
    drawn = diagram(hooked(TRANSFORMER, inside), 1, View(budget=7))
    assert "1 hook ran inside" in texts(box_of(drawn, "h.0–11"))
    assert not [box for box in drawn.boxes if box.role is Role.HOOK]


def test_a_hook_on_an_operation_of_its_own_is_drawn() -> None:
    root = TRANSFORMER.graphs[1].roots[0].node
    drawn = diagram(hooked(TRANSFORMER, root), 1, View(budget=10))
    (hook,) = [box for box in drawn.boxes if box.role is Role.HOOK]
    assert [arrow.target for arrow in drawn.arrows if arrow.source == "s0"] == [hook.id]


# ---- arrows


def test_an_arrow_between_blocks_says_what_flowed() -> None:
    drawn = diagram(traced(graphs.mlp(50), lambda node: float(node.id + 1)), 1, View(budget=4))
    inside, back = (
        next(arrow for arrow in drawn.arrows if arrow.flow is flow and arrow.count > 1)
        for flow in (Flow.FLOWS, Flow.CARRIED)
    )
    assert (inside.count, inside.text, inside.magnitude) == (50, "‖g‖ 2 … 245", 245.0)
    assert (back.count, back.text) == (49, "‖g‖ 3 … 242")
    assert back.tooltip == (
        "49 gradients, norms 3 to 242, all taken together as one vector 987.1\n"
        "over 49 edges, from one repetition to the next"
    )


def test_an_arrow_of_one_gradient_says_it_as_in_a_small_picture() -> None:
    drawn = diagram(TRANSFORMER, 1, View(budget=7))
    assert arrow_between(drawn, "lm_head · Linear", "ln_f · LayerNorm").text == "‖g‖=0.5"


def test_an_arrow_over_which_nothing_flowed_is_part_of_the_graph() -> None:
    trace = replace(traced(graphs.mlp(50)), events=EventList())
    drawn = diagram(trace, 1, View(budget=3))
    arrow = arrow_between(drawn, "loss = y.sum()", "0–99")
    assert (arrow.flow, arrow.state, arrow.text) == (Flow.PART, State.IDLE, "")


def test_every_arrow_joins_boxes_that_are_there() -> None:
    for budget in (1, 5, 20, 60):
        drawn = diagram(TRANSFORMER, 1, View(budget=budget))
        names = [box.id for box in drawn.boxes]
        assert len(set(names)) == len(names)
        assert {end for a in drawn.arrows for end in (a.source, a.target)} <= set(names)
        framed = [box for region in all_regions(drawn) for box in region.boxes]
        assert len(set(framed)) == len(framed)
        assert set(framed) <= set(names)


# ---- regions and notes


def test_open_modules_are_frames_in_one_another() -> None:
    drawn = diagram(TRANSFORMER, 1, View(budget=12))
    assert [(r.title, r.detail, r.repeat) for r in all_regions(drawn)] == [
        ("model", "GPT", 1), ("transformer", "Decoder", 1), ("h.0–11", "Block", 12)
    ]  # fmt: skip


def test_the_picture_says_what_it_folded() -> None:
    drawn = diagram(TRANSFORMER, 1, View(budget=12))
    assert drawn.notes == (
        "493 nodes folded into 12 boxes; ×12 stands for 12 alike",
        "↻ what one repetition hands to the next, in the order that gradients flow",
    )


def test_a_graph_within_the_budget_is_drawn_as_ever() -> None:
    trace = traced(graphs.mlp(2))
    assert diagram(trace, 1) == diagram(trace, 1, View(fold=False))


# ---- parts


def test_a_part_leaves_out_the_rest_and_says_so() -> None:
    trace = traced(graphs.mlp(3))
    drawn = diagram(trace, 1, View(focus="model.0.bias", radius=1))
    assert [box.id for box in drawn.boxes] == ["n11", "n13"]
    assert drawn.notes == (
        "model.0.bias and what is near it, 1 edge far",
        "15 of 17 nodes not drawn",
    )


def test_a_large_part_is_folded() -> None:
    drawn = diagram(TRANSFORMER, 1, View(budget=7, downstream="h.5"))
    assert [box.lines[0].text for box in drawn.boxes if box.repeat > 1] == ["h.0–5"]


def test_paths_are_a_part() -> None:
    trace = traced(graphs.mlp(3))
    drawn = diagram(trace, 1, View(path=("0", "model.2.weight")))
    assert drawn.notes[0] == "1 path from 0 to model.2.weight"


def test_a_seed_outside_of_the_part_is_left_out() -> None:
    trace = traced(graphs.mlp(3))
    drawn = diagram(trace, 1, View(downstream="model.2"))
    assert not [box for box in drawn.boxes if box.role is Role.SEED]


def test_a_name_to_expand_that_is_not_there_is_refused() -> None:
    with pytest.raises(NotInTraceError, match="nothing in this graph is called 'hh'"):
        diagram(TRANSFORMER, 1, View(expand=("hh",)))


def test_a_picture_of_one_box_holds_everything() -> None:
    tape = Tape()
    trace = traced(tape.graph(tape.op("Sum", tape.leaf("x"))))
    drawn = diagram(trace, 1, View(budget=1))
    assert [box.count for box in drawn.boxes if box.role is Role.FOLDED] == [2]


# ---- layers


def leaf_lines(box: Box) -> list[str]:
    return [line.text for line in box.lines if line.role is LineRole.LEAF]


def test_a_layer_says_what_became_of_its_parameters() -> None:
    drawn = diagram(traced(graphs.mlp(3), lambda node: float(node.id)), 1)
    box = box_of(drawn, "4 · Linear")
    assert leaf_lines(box) == [
        "bias (8,) f32  .grad  None → ‖g‖=3", "weight (8,8) f32  .grad  None → ‖g‖=7"
    ]  # fmt: skip
    assert (box.role, box.count) == (Role.OPERATION, 4)
    assert ".grad after: (8,) float32: norm 3," in box.tooltip


def test_layers_laid_on_one_another_give_the_range_of_each_parameter() -> None:
    box = box_of(diagram(TRANSFORMER, 1), "c_fc · Linear")
    assert len(leaf_lines(box)) == 2
    assert leaf_lines(box)[0].startswith("bias (32,) f32  ‖g‖ ")


def test_a_layer_opens_where_its_parameters_are_to_be_shown() -> None:
    drawn = diagram(traced(graphs.mlp(3)), 1, View(show=frozenset({"accumulate"})))
    assert sum(box.role is Role.LEAF for box in drawn.boxes) == 7


def test_a_layer_that_is_expanded_opens() -> None:
    drawn = diagram(traced(graphs.mlp(3)), 1, View(expand=("model.4",)))
    assert [region.title for region in all_regions(drawn)] == ["model", "4"]


def test_a_box_of_many_says_no_more_than_its_only_arrow() -> None:
    drawn = diagram(TRANSFORMER, 1)
    box = box_of(drawn, "act · GELU")
    (arriving,) = [arrow.text for arrow in drawn.arrows if arrow.target == box.id]
    assert arriving not in texts(box)
