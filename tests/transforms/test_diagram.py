"""What the picture of a pass says, for the document's examples and for what can go wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.builders import (
    branching,
    chain,
    full,
    hooks,
    no_grad,
    perceptron,
    sgd,
    vector,
    vector_jacobian,
)
from tracer.errors import NotInTraceError
from tracer.records import (
    Accumulate,
    Cut,
    Event,
    EventList,
    Forward,
    GradWrite,
    Hook,
    HookRun,
    NodeRun,
    Outcome,
    Site,
    TensorMeta,
    TensorRef,
    TraceRecord,
)
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
from tracer.records.view import View
from tracer.transforms import diagram
from tracer.transforms.cuts import MOST_BOXES, MOST_REGIONS


def box_of(drawn: Diagram, title: str) -> Box:
    """The one box whose first line says `title`."""
    (found,) = (box for box in drawn.boxes if box.lines[0].text == title)
    return found


def texts(box: Box) -> list[str]:
    return [line.text for line in box.lines]


def arrows_into(drawn: Diagram, box: Box) -> list[Arrow]:
    return [arrow for arrow in drawn.arrows if arrow.target == box.id]


def with_events(trace: TraceRecord, events: list[Event]) -> TraceRecord:
    return replace(trace, events=EventList(tuple(events)))


# ---- the document's examples


def test_two_paths_arrive_at_x1_and_add_up_to_five() -> None:
    drawn = diagram(vector_jacobian(), 1)
    x1 = box_of(drawn, "x1 = m1 * m2")
    assert x1.lines == (
        Line(LineRole.TITLE, "x1 = m1 * m2"),
        Line(LineRole.DETAIL, "MulBackward0 · (3,2) f32 · line 6"),
        Line(LineRole.SUM, "x1 receives 1 + 4 = 5  (2 paths)"),
        Line(LineRole.NOTE, "x1.grad → None: not a leaf"),
    )
    assert sorted(arrow.text for arrow in arrows_into(drawn, x1)) == ["1", "4"]


def test_leaves_say_their_value_and_what_became_of_their_grad() -> None:
    drawn = diagram(vector_jacobian(), 1)
    told = {box.lines[0].text: texts(box)[1:] for box in drawn.boxes if box.role is Role.LEAF}
    assert told == {
        "m1": ["leaf · (3,2) f32 = 1", ".grad  None → 10"],
        "m2": ["leaf · (3,2) f32 = 2", ".grad  None → 5"],
        "m3": ["leaf · (3,2) f32 = 4", ".grad  None → 2"],
    }


def test_a_read_of_what_is_no_leaf_says_why_it_is_none() -> None:
    drawn = diagram(vector_jacobian(), 1)
    said = [line.text for box in drawn.boxes for line in box.lines if "not a leaf" in line.text]
    assert said == [f"{name}.grad → None: not a leaf" for name in ("y", "x1", "x2")]


def test_boxes_are_numbered_in_the_engines_order() -> None:
    drawn = diagram(vector_jacobian(), 1)
    order = sorted((box.step, box.lines[0].text) for box in drawn.boxes if box.step is not None)
    assert order == [
        (1, "y = x1 + x2"), (2, "x2 = x1 * m3"), (3, "m3"), (4, "x1 = m1 * m2"), (5, "m1"),
        (6, "m2"),
    ]  # fmt: skip


def test_the_title_says_which_call_this_is() -> None:
    title = diagram(vector_jacobian(), 1).title
    assert (title.call, title.failure) == ("y.backward(gradients)", "")
    assert title.facts == ("vector_jacobian.py:10", "pass 1", "3 nodes, 3 leaves", "0.021 ms")


def test_a_hook_stands_between_what_arrives_and_what_is_accumulated() -> None:
    drawn = diagram(hooks(), 1)
    hook, leaf = box_of(drawn, "hook: grad * grad"), box_of(drawn, "v")
    assert texts(hook)[1:] == [
        "tensor hook on v · added line 5 · removed line 11",
        "[1, 1, 2] → [1, 1, 4]",
    ]
    assert (hook.step, leaf.step) == (1, 2)
    assert [(arrow.source, arrow.target) for arrow in drawn.arrows] == [
        (hook.id, leaf.id), ("s0", hook.id),
    ]  # fmt: skip
    assert texts(leaf)[-1] == ".grad  None → [1, 1, 4]"


def test_a_second_pass_adds_to_the_first() -> None:
    drawn = diagram(hooks(), 2)
    assert texts(box_of(drawn, "hook: grad * grad"))[-1] == "[1, 1, 1] → [1, 1, 1]  (same values)"
    assert texts(box_of(drawn, "v")) == [
        "v",
        "leaf · (3,) f32 = [2, 2, 2]",
        ".grad  [1, 1, 4] + [1, 1, 1] → [2, 2, 5]",
        "not zeroed since pass 1 (line 7)",
    ]


def test_what_ran_under_no_grad_stands_outside_with_reason_and_line() -> None:
    drawn = diagram(no_grad(), 1)
    (region,) = drawn.regions
    assert (region.role, region.title, region.detail, region.repeat) == (
        RegionRole.CUT, "no_grad · line 19", "outside the graph", 1,
    )  # fmt: skip
    inside = [box for box in drawn.boxes if box.id in region.boxes]
    assert [texts(box) for box in inside] == [
        ["X @ w + b", "(100,1) f32 · line 4 in net"],
        ["((prediction - y) ** 2 / 2).mean()", "() f32 · line 7 in loss"],
    ]
    assert {box.role for box in inside} == {Role.CUT}


def test_no_gradient_comes_back_from_the_evaluation_to_w_and_b() -> None:
    drawn = diagram(no_grad(), 1)
    ends = {box.id: box.lines[0].text for box in drawn.boxes}
    cut = [arrow for arrow in drawn.arrows if arrow.flow is Flow.CUT]
    assert [(ends[arrow.source], ends[arrow.target], arrow.text) for arrow in cut] == [
        ("X @ w + b", "w", "no gradient"),
        ("X @ w + b", "b", "no gradient"),
        ("((prediction - y) ** 2 / 2).mean()", "X @ w + b", ""),
    ]


def test_the_same_evaluation_is_drawn_once_and_counted() -> None:
    (region,) = diagram(no_grad(3), 1).regions
    assert region.repeat == 3


def test_an_update_under_no_grad_is_no_cut_but_a_line_of_its_leaf() -> None:
    drawn = diagram(no_grad(), 1)
    assert texts(box_of(drawn, "w"))[-1] == "then value 0.01 → [[-0.05], [0.11]]  (sub_ line 16)"


def test_a_leaf_in_a_loop_tells_its_whole_ledger() -> None:
    drawn = diagram(sgd(3), 2)
    assert texts(box_of(drawn, "b")) == [
        "b",
        "leaf · (1,) f32 = 20.8",
        ".grad  -19800 → 0  (.grad = line 8)",
        ".grad  0 + -15840 → -15840",
        "then value 20.8 → 36.64  (.data = line 10)",
    ]


def test_two_hundred_passes_share_the_nodes_of_one_graph() -> None:
    trace = sgd()
    first, last = diagram(trace, 1), diagram(trace, 200)
    assert [(box.id, box.nodes) for box in first.boxes] == [
        (box.id, box.nodes) for box in last.boxes
    ]
    assert texts(box_of(last, "b"))[1] == "leaf · (1,) f32 = 100"


# ---- structure


def test_modules_nest_and_hold_their_leaves() -> None:
    drawn = diagram(perceptron(2), 1)
    assert drawn.regions[0] == Region(
        "m_layers_1", RegionRole.MODULE, "layers.1", "Block", ("n1",),
        (
            Region(
                "m_layers_1_linear", RegionRole.MODULE, "layers.1.linear", "Linear",
                ("n2", "n3", "n4", "n5"), tooltip="layers.1.linear Linear",
            ),
        ),
        tooltip="layers.1 Block",
    )  # fmt: skip
    assert [region.title for region in drawn.regions] == ["layers.1", "layers.0"]


@pytest.mark.parametrize("trace", [chain(3000), branching(2000)])
def test_large_graphs_are_drawn_without_recursion(trace: TraceRecord) -> None:
    drawn = diagram(trace, 1, View(fold=False))
    assert len(drawn.boxes) == len(trace.graphs[1].nodes) + 1
    assert len({box.id for box in drawn.boxes}) == len(drawn.boxes)


def test_turns_of_a_loop_are_numbered() -> None:
    details = [texts(box)[1] for box in diagram(chain(2), 1).boxes if box.role is Role.OPERATION]
    assert details == [
        "MulBackward0 · () f32 · line 3 · call 2",
        "MulBackward0 · () f32 · line 3 · call 1",
    ]


def test_every_box_and_arrow_has_its_statistics_to_ask_for() -> None:
    drawn = diagram(vector_jacobian(), 1)
    assert all(box.tooltip for box in drawn.boxes)
    assert all(arrow.tooltip for arrow in drawn.arrows)
    m1 = "\n".join(
        (
            "AccumulateGrad",
            "m1",
            ".grad before: None",
            "incoming: (3,2) float32: norm 24.49, min 10, max 10, mean 10, zeros 0, NaN 0, Inf 0, "
            "values [[10, 10], [10, 10], [10, 10]]",
            ".grad after: (3,2) float32: norm 24.49, min 10, max 10, mean 10, zeros 0, NaN 0, "
            "Inf 0, values [[10, 10], [10, 10], [10, 10]]",
        )
    )
    assert box_of(drawn, "m1").tooltip == m1
    assert box_of(drawn, "x1 = m1 * m2").link == "vector_jacobian.py:6"


# ---- what is wrong, zero or left out


def changed_run(trace: TraceRecord, node: int, **fields: object) -> TraceRecord:
    """The trace with one node's execution changed."""
    return with_events(
        trace,
        [
            replace(event, **fields) if isinstance(event, NodeRun) and event.node == node else event
            for event in trace.events
        ],
    )


def test_the_node_where_nan_begins_says_so() -> None:
    bad = vector(math.nan, *[1.0] * 5, shape=(3, 2))
    one = full(1.0, (3, 2))
    trace = changed_run(vector_jacobian(), 2, returned=(bad, one))
    trace = changed_run(trace, 1, received=(bad,), returned=(bad, bad))
    drawn = diagram(trace, 1)
    first, later = box_of(drawn, "x2 = x1 * m3"), box_of(drawn, "x1 = m1 * m2")
    assert first.lines[-1] == Line(LineRole.ALARM, "NaN begins here: returns 1 NaN of 6")
    assert later.lines[-1] == Line(LineRole.ALARM, "receives 1 NaN of 6")
    assert (first.state, later.state) == (State.WRONG, State.WRONG)
    assert {arrow.state for arrow in drawn.arrows if arrow.source == first.id} == {
        State.WRONG, State.NORMAL,
    }  # fmt: skip


def test_the_node_where_zero_begins_says_so() -> None:
    zero = full(0.0, (3, 2))
    trace = changed_run(vector_jacobian(), 2, returned=(zero, zero))
    drawn = diagram(trace, 1)
    x2 = box_of(drawn, "x2 = x1 * m3")
    assert "zero begins here: it passes nothing on" in texts(x2)
    assert {arrow.state for arrow in drawn.arrows if arrow.source == x2.id} == {State.ZERO}
    assert drawn.notes == ("grey and dashed: a gradient that is exactly zero",)


def test_a_failed_pass_says_where_it_failed_and_what_it_did_not_reach() -> None:
    trace = vector_jacobian()
    events = [event for event in trace.events if event.seq <= 6]
    failed = replace(events[-1], end_ns=None, returned=())
    outcome = Outcome("ValueError", "no way\nback", node=2)
    record = replace(trace.passes[0], outcome=outcome, node_count=2, leaf_count=0)
    trace = replace(with_events(trace, [*events[:-1], failed]), passes=(record,))
    drawn = diagram(trace, 1)
    assert drawn.title.failure == "raised ValueError: no way back"
    x2 = box_of(drawn, "x2 = x1 * m3")
    assert x2.lines[-1] == Line(LineRole.ALARM, "raised ValueError: no way back")
    assert x2.state is State.WRONG
    assert texts(box_of(drawn, "m1"))[-1] == "not reached: the pass failed"
    assert drawn.notes == ("faint and dotted: not run in this pass (4 nodes)",)


def test_a_pass_that_never_ended_says_so() -> None:
    trace = vector_jacobian()
    trace = replace(trace, passes=(replace(trace.passes[0], end_ns=None),))
    assert diagram(trace, 1).title.failure == "this pass never ended: the recording stops in it"


def test_what_grad_returns_stands_at_the_tensor_it_was_asked_for() -> None:
    trace = vector_jacobian()
    record = replace(trace.passes[0], kind="grad", inputs=("m1", "x1"))
    kept = [event for event in trace.events if not isinstance(event, Accumulate)]
    one, ten = full(1.0, (3, 2)), full(10.0, (3, 2))
    trace = replace(with_events(trace, kept), passes=(record,))
    trace = changed_run(trace, 1, returned=(ten, None))
    trace = changed_run(trace, 2, returned=(one, None))
    drawn = diagram(trace, 1)
    m1, m2 = box_of(drawn, "m1"), box_of(drawn, "m2")
    assert texts(m1)[-1] == "grad() returns 10"
    assert texts(box_of(drawn, "x1 = m1 * m2"))[-1] == "grad() returns 5"
    assert (m1.state, m2.state) == (State.NORMAL, State.IDLE)
    (unused,) = arrows_into(drawn, m2)
    assert (unused.flow, unused.text, unused.state) == (Flow.PART, "None", State.IDLE)


def test_hooks_before_and_after_a_node_stand_around_it() -> None:
    trace = vector_jacobian()
    one, two = full(1.0, (3, 2)), full(2.0, (3, 2))
    kinds = ("tensor hook", "prehook", "posthook", "retain_grad")
    runs = [
        HookRun(
            seq=100 + number, pass_id=1, hook=Hook(number, kind, f"f{number}", "x2"), node=2,
            input_nr=0 if kind in ("tensor hook", "retain_grad") else None, before=(one,),
            after=(two,), changed=True,
        )
        for number, kind in enumerate(kinds)
    ]  # fmt: skip
    drawn = diagram(with_events(trace, [*trace.events, *runs]), 1)
    way = {arrow.source: arrow.target for arrow in drawn.arrows if arrow.source in ("h100", "h101")}
    assert way == {"h100": "h101", "h101": "n2"}
    assert [arrow.source for arrow in drawn.arrows if arrow.target == "h100"] == ["n0"]
    assert [arrow.target for arrow in drawn.arrows if arrow.source == "n2"] == ["h102"]
    assert sorted(arrow.target for arrow in drawn.arrows if arrow.source == "h102") == ["n1", "n5"]
    assert "x2.grad = 2 (retain_grad)" in texts(box_of(drawn, "x2 = x1 * m3"))
    assert texts(box_of(drawn, "hook: f1"))[1] == "prehook on x2 · added before the trace"


def test_a_hook_that_raises_says_so() -> None:
    trace = hooks()
    events = [
        replace(event, after=(), raised="ValueError", changed=False)
        if isinstance(event, HookRun) and event.pass_id == 1
        else event
        for event in trace.events
    ]
    box = box_of(diagram(with_events(trace, events), 1), "hook: grad * grad")
    assert box.lines[-1] == Line(LineRole.ALARM, "raised ValueError")
    assert box.state is State.WRONG


def test_clipping_is_told_and_the_next_zeroing_is_not() -> None:
    trace = hooks()
    last = len(trace.events)
    clipped = vector(0.5, 0.5, 1.0)
    writes = [
        GradWrite(seq=last + 1, leaf=1, how="mul_", before=vector(2.0, 2.0, 5.0), after=clipped),
        GradWrite(seq=last + 2, leaf=1, how=".grad =", before=clipped, after=None),
    ]
    leaf = box_of(diagram(with_events(trace, [*trace.events, *writes]), 2), "v")
    assert texts(leaf)[-1] == ".grad  [2, 2, 5] → [0.5, 0.5, 1]  (mul_)"


def detached(count: int, seq: int) -> list[Forward]:
    """As many `detach()` of the leaf `b` on lines of their own."""
    b = TensorRef(TensorMeta((1,)), leaf=2, name="b")
    return [
        Forward(
            seq=seq + number, op="Tensor.detach", grad_mode="grad",
            site=Site(500 + number, "no_grad.py", 100 + number, expression=f"b.detach({number})"),
            inputs=(b,), cut=Cut("detach", ("b",)),
        )
        for number in range(count)
    ]  # fmt: skip


def test_cuts_are_bounded_and_the_rest_is_counted() -> None:
    trace = no_grad(0)
    drawn = diagram(with_events(trace, [*trace.events, *detached(9, 1000)]), 1)
    assert len(drawn.regions) == MOST_REGIONS
    assert drawn.regions[0].title == "detach · line 100"
    assert drawn.notes == ("5 more cuts not drawn: the timeline has them all",)


def test_a_long_region_shows_its_ends() -> None:
    trace = no_grad(1)
    *others, last = trace.events
    lines = [replace(event, grad_mode="no_grad") for event in detached(9, last.seq)]
    (region,) = diagram(with_events(trace, [*others, *lines, replace(last, seq=5000)]), 1).regions
    assert len(region.boxes) == MOST_BOXES
    assert region.detail == "outside the graph, 6 more lines not drawn"


def test_what_ran_without_gradients_and_touched_nothing_of_the_pass_is_not_drawn() -> None:
    trace = no_grad(1)
    events = [
        replace(event, cut=replace(event.cut, tensors=("other",)), inputs=())
        if isinstance(event, Forward) and event.cut is not None
        else event
        for event in trace.events
    ]
    assert diagram(with_events(trace, events), 1).regions == ()


@pytest.mark.parametrize(
    ("trace", "pass_id", "message"),
    [
        (hooks(), 7, "there is no pass 7 in this trace: it has passes 1 to 2"),
        (no_grad(), 0, "there is no pass 0 in this trace: it has pass 1 only"),
        (TraceRecord(), 1, "there is no pass in this trace: nothing called backward() in it"),
    ],
)
def test_a_missing_pass_says_which_there_are(
    trace: TraceRecord, pass_id: int, message: str
) -> None:
    with pytest.raises(NotInTraceError) as caught:
        diagram(trace, pass_id)
    assert str(caught.value) == message
