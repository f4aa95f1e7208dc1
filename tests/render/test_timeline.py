"""The story in words: golden for the document's examples, a line for every kind of event."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.builders import hooks, no_grad, perceptron, sgd, vector, vector_jacobian
from tracer.errors import NotInTraceError
from tracer.records import (
    EVENT_KINDS,
    Accumulate,
    Cut,
    DataWrite,
    Dropped,
    Event,
    EventList,
    Forward,
    GradMode,
    GradRead,
    GradWrite,
    Hook,
    HookAdded,
    HookRemoved,
    HookRun,
    Mark,
    NodeRun,
    OptimizerStep,
    Outcome,
    PassBegin,
    PassEnd,
    Pause,
    Recompute,
    SavedWrite,
    Site,
    TraceRecord,
    words,
)
from tracer.records.picking import Selection
from tracer.render.json_lines import timeline_jsonl
from tracer.render.timeline import timeline_text


def squeezed(trace: TraceRecord, **options: object) -> list[str]:
    """The timeline's lines, each run of spaces, and of a rule, made one."""
    return [re.sub("─+", "─", " ".join(line.split())) for line in timeline_text(trace, **options)]


def gradients(trace: TraceRecord, event: str, **options: object) -> list[str]:
    """What stands last in the lines of one kind of event."""
    lines = (line for line in timeline_text(trace, **options) if f"  {event} " in line)
    return [re.split(r"  +", line.strip(), maxsplit=4)[-1].strip() for line in lines]


@pytest.mark.parametrize(
    ("name", "trace", "options"),
    [
        ("vector_jacobian.txt", vector_jacobian(), {}),
        ("hooks.txt", hooks(), {}),
        ("no_grad.txt", no_grad(2), {}),
        ("sgd_2.txt", sgd(3), {"selection": Selection(passes=2)}),
        ("sgd.txt", sgd(), {}),
        ("perceptron_colored.txt", perceptron(1), {"color": True, "width": 80}),
    ],
)
def test_the_timelines_of_the_examples(
    golden: Callable[[str, str], None], name: str, trace: TraceRecord, options: dict[str, object]
) -> None:
    golden(name, "".join(f"{line}\n" for line in timeline_text(trace, **options)))


# ---- what a reader takes away


def test_the_gradient_at_x1_is_one_plus_four() -> None:
    assert "4 12 MulBackward0 x1 = m1 * m2 :6 in 5 = 1 + 4 → m1 10 → m2 5" in squeezed(
        vector_jacobian()
    )


def test_what_is_no_leaf_has_no_grad() -> None:
    lines = squeezed(vector_jacobian())
    for name in ("x1", "x2", "y"):
        assert any(f"{name}.grad → None: {name} is not a leaf" in line for line in lines)


def test_the_hook_acts_before_accumulation_and_grad_accumulates() -> None:
    lines = squeezed(hooks())
    told = [line for line in lines if "→" in line]
    assert told == [
        "1 3 tensor hook grad * grad on v :5 [1, 1, 2] → [1, 1, 4]",
        "2 6 accumulate v.grad None → [1, 1, 4]",
        "1 3 tensor hook grad * grad on v :5 [1, 1, 1] → [1, 1, 1] (same values)",
        "2 6 accumulate v.grad [1, 1, 4] + [1, 1, 1] → [2, 2, 5]",
    ]


def test_when_the_hook_was_added_and_removed() -> None:
    lines = squeezed(hooks())
    assert lines[0].endswith(":5 tensor hook on v: grad * grad")
    assert "hook added" in lines[0]
    assert lines[-1].endswith("hook removed handle.remove() :11 tensor hook on v: grad * grad")


def test_the_evaluation_is_cut_off_with_reason_and_line() -> None:
    cuts = [line for line in squeezed(no_grad()) if " cut " in line]
    assert [line.partition(" cut ")[2] for line in cuts] == [
        "X @ w :4 (100,1) f32 no_grad (line 19): no history, nothing flows back to w",
        "X @ w + b :4 (100,1) f32 no_grad (line 19): no history, nothing flows back to b",
    ]


def test_many_passes_are_told_in_growing_stretches() -> None:
    lines = squeezed(sgd())
    assert lines[:4] == [
        "200 passes over 1 graph; `--pass N` tells one in full, `--pass all` every one",
        "pass call line each gradient",
        "1 loss.backward() :9 0.015 ms b.grad 0 + -19800 → -19800 b 1 → 20.8",
        "2–5 4 passes like pass 1 :9 0.015 ms ‖g‖ 8110 … 15840 b 20.8 → 67.56",
    ]
    stretches = [line.split()[0] for line in lines[3:]]
    assert stretches == ["2–5", "6–10", "11–20", "21–50", "51–100", "101–200"]


def test_all_passes_are_told_in_full_when_asked_for() -> None:
    lines = squeezed(sgd(20), selection=Selection())
    assert sum(line.startswith("pass ") for line in lines) == 20


def test_what_is_picked_from_many_passes_is_a_line_each_with_its_pass_and_step() -> None:
    lines = squeezed(sgd(20), selection=Selection(kinds=("accumulate",), names=("b",)))
    assert lines[0] == "pass·# t ms event where line gradient"
    assert lines[1].startswith("1·4 ")
    assert [line.split()[0] for line in lines[1:]] == [f"{number}·4" for number in range(1, 21)]


def test_sums_are_known_where_only_some_kinds_are_told() -> None:
    nodes = squeezed(vector_jacobian(), selection=Selection(kinds="node", names="x1"))
    assert nodes[1:] == ["1·4 0.024 MulBackward0 x1 = m1 * m2 :6 in 5 = 1 + 4 → m1 10 → m2 5"]


def test_a_mark_is_a_heading_and_what_came_before_it_can_be_left_out() -> None:
    trace = hooks()
    first = [event for event in trace.events if event.seq <= 5]
    later = [replace(event, seq=event.seq + 1) for event in trace.events if event.seq > 5]
    marked = (*first, Mark(seq=6, t_ns=16_000, text="epoch 2", site=SITE), *later)
    trace = replace(trace, events=EventList(marked))
    headings = [line for line in squeezed(trace) if line.startswith(("pass ", "─"))]
    assert [line[:9] for line in headings] == ["pass 1 v.", "─ epoch 2", "pass 2 v."]
    since = squeezed(trace, selection=Selection(since="epoch 2"))
    assert since[0] == "─ epoch 2 ─ :3 · 0.016 ms"
    assert since[1] == headings[2]


def test_one_pass_of_many_is_told_with_what_happened_around_it() -> None:
    lines = squeezed(sgd(), selection=Selection(passes=150))
    assert sum(line.startswith("pass ") for line in lines) == 1
    assert any("grad write b.grad = torch.zeros(1) :8" in line for line in lines)
    assert sum("data write" in line for line in lines) == 2


def test_numbers_of_steps_are_those_of_the_picture() -> None:
    numbered = [line.split()[0] for line in squeezed(hooks()) if line[:2] in ("1 ", "2 ")]
    assert numbered == ["1", "2", "1", "2"]


# ---- every kind of event


SITE = Site(700, "hooks.py", 3, expression="f(x)", statement="y = f(x)")
HOOK = Hook(9, "prehook", "twice", "v", defined=SITE)
ONE = vector(1.0, 2.0)
KINDS: dict[type[Event], tuple[dict[str, object], str]] = {
    Forward: ({"op": "torch.sin", "site": SITE}, "forward f(x) :3 no node"),
    GradMode: ({"mode": "no_grad", "site": SITE}, "no_grad f(x) :3 no history from here"),
    HookAdded: ({"hook": HOOK, "site": SITE}, "hook added f(x) :3 prehook on v: twice"),
    HookRemoved: ({"hook": HOOK, "site": SITE}, "hook removed f(x) :3 prehook on v: twice"),
    HookRun: (
        {"hook": HOOK, "before": (ONE,), "after": (ONE,)},
        "prehook twice on v :3 [1, 2] → [1, 2] (same values)",
    ),
    NodeRun: ({"node": 0, "order": 1}, "node"),
    Accumulate: (
        {"leaf": 1, "node": 0, "order": 1, "incoming": ONE, "after": ONE},
        "accumulate v.grad None → [1, 2]",
    ),
    GradWrite: (
        {"leaf": 1, "how": "zero_", "before": ONE, "site": SITE},
        "grad write y = f(x) :3 v.grad [1, 2] → None (zero_)",
    ),
    DataWrite: (
        {"leaf": 1, "how": "SGD.step", "before": ONE, "after": ONE},
        "data write v v [1, 2] → [1, 2] (SGD.step)",
    ),
    GradRead: (
        {"tensor": "x1", "site": SITE}, "grad read f(x) :3 x1.grad → None: x1 is not a leaf",
    ),
    OptimizerStep: (
        {"optimizer": "Adam", "site": SITE, "leaves": (1, 2)},
        "optimizer step f(x) :3 Adam holds 2 leaves",
    ),
    Recompute: (
        {"forward": 12, "site": SITE},
        "recompute f(x) :3 a checkpointed region runs again, first run from event 12 on",
    ),
    Mark: ({"text": "epoch 3", "site": SITE}, "─ epoch 3 ─ :3 · 5 ms"),
    SavedWrite: (
        {"node": 3, "attribute": "_saved_result", "how": "add_", "version": 1, "site": SITE},
        "saved write y = f(x) :3 add_ wrote to _saved_result of a node: that made it version 1",
    ),
    Pause: ({"site": SITE}, "paused f(x) :3 nothing is recorded from here"),
    Dropped: ({"count": 1200, "reason": "budget"}, "not recorded budget 1,200"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in EVENT_KINDS if kind in KINDS])
def test_every_kind_of_event_has_its_line(kind: type[Event]) -> None:
    fields, line = KINDS[kind]
    event = kind(seq=900, t_ns=5_000_000, **fields)
    trace = replace(hooks(), events=EventList((event,)))
    assert squeezed(trace) == [line if kind is Mark else f"5.000 ms {line}"]


def test_no_kind_of_event_is_forgotten() -> None:
    assert set(KINDS) | {PassBegin, PassEnd} == set(EVENT_KINDS)


def test_a_pause_says_how_long_nothing_was_recorded() -> None:
    pause = Pause(seq=1, t_ns=1_000_000, site=SITE)
    resume = Pause(seq=2, t_ns=3_500_000, resumed=True, site=SITE)
    lines = squeezed(replace(hooks(), events=EventList((pause, resume))))
    assert lines == [
        "1.000 ms paused f(x) :3 nothing is recorded from here",
        "3.500 ms resumed f(x) :3 recorded again after 2.5 ms",
    ]


def test_a_cut_names_what_lost_its_history() -> None:
    event = Forward(seq=1, op="Tensor.detach", site=SITE, cut=Cut("detach", ("fake",)))
    trace = replace(hooks(), events=EventList((event,)))
    assert squeezed(trace)[0].endswith("cut f(x) :3 detach: no history, nothing flows back to fake")


def test_equal_operations_in_a_row_are_one_line() -> None:
    events = [Forward(seq=number, op="torch.randn", site=SITE) for number in range(1, 6)]
    trace = replace(hooks(), events=EventList(tuple(events)))
    assert squeezed(trace) == ["0.000 ms forward f(x) :3 no node ×5"]


def test_a_failed_pass_says_where_and_how() -> None:
    trace = vector_jacobian()
    events = [event for event in trace.events if event.seq <= 6]
    failed = replace(events[-1], end_ns=None, returned=())
    end = PassEnd(seq=7, t_ns=30_000, pass_id=1)
    record = replace(trace.passes[0], outcome=Outcome("ValueError", "no", 2))
    trace = replace(trace, events=EventList((*events[:-1], failed, end)), passes=(record,))
    assert squeezed(trace)[-2:] == [
        "2 6 MulBackward0 x2 = x1 * m3 :7 in 1 raised",
        "18 pass raised x2 = x1 * m3 :7 ValueError: no",
    ]


def test_a_pass_inside_another_is_told_inside_it() -> None:
    trace = sgd(2)
    records = (trace.passes[0], replace(trace.passes[1], parent=1))
    first = [event for event in trace.events if event.pass_id == 1]
    second = [event for event in trace.events if event.pass_id == 2]
    trace = replace(
        trace, passes=records, events=EventList((*first[:2], *second, *first[2:]))
    )  # fmt: skip
    headings = [line for line in squeezed(trace) if line.startswith("pass ")]
    assert [heading.partition(" loss")[0] for heading in headings] == [
        "pass 1", "pass 2 (inside pass 1)", "pass 1 goes on",
    ]  # fmt: skip


def test_a_line_that_led_to_several_modules_gives_way_to_their_paths() -> None:
    told = squeezed(perceptron(3))
    linear = [line.split(" in ")[0].split()[3] for line in told if "AddmmBackward0" in line]
    assert linear == ["layers.2.linear", "layers.1.linear", "layers.0.linear"]
    assert any("AddmmBackward0 self.linear(x)" in line for line in squeezed(perceptron(1)))


def test_long_passes_have_readable_times() -> None:
    trace = hooks()
    late = [replace(e, t_ns=e.t_ns + 123_456_000 * (e.kind == "accumulate")) for e in trace.events]
    told = squeezed(replace(trace, events=EventList(tuple(late))))
    assert "2 123,462 accumulate v.grad None → [1, 1, 4]" in told


def test_columns_align_whatever_the_names_are() -> None:
    trace = vector_jacobian()
    graph = trace.graphs[1]
    site = replace(
        graph.nodes[2].site, expression="输入张量 * 权重张量的一个很长很长很长很长的名字"
    )
    nodes = (*graph.nodes[:2], replace(graph.nodes[2], site=site), *graph.nodes[3:])
    trace = replace(trace, graphs={1: replace(graph, nodes=nodes)})
    (chinese,) = (line for line in timeline_text(trace) if "输入" in line)
    (latin,) = (line for line in timeline_text(trace) if "y = x1 + x2" in line and "in 1" in line)
    before = chinese.partition("in 1")[0]
    assert len(before) + sum(ord(char) > 0x2E80 for char in before) == latin.index("in 1")


def test_on_a_terminal_lines_keep_to_its_width() -> None:
    told = "\n".join(timeline_text(no_grad(), width=80, wrap=True)).splitlines()
    assert max(map(words.width, told)) <= 80
    whole = "\n".join(timeline_text(no_grad(), width=80))
    assert "\n".join(told).split() == whole.split()


def test_nothing_in_a_name_reaches_the_terminal_as_an_order() -> None:
    event = Mark(seq=1, text="\x1b[2J\x07boom\r\n")
    assert squeezed(replace(hooks(), events=EventList((event,)))) == ["─ �[2J�boom ─ 0 ms"]


def test_a_missing_pass_is_an_error() -> None:
    with pytest.raises(NotInTraceError, match="there is no pass 7"):
        list(timeline_text(hooks(), selection=Selection(passes=7)))
    with pytest.raises(NotInTraceError, match="there is no pass 7"):
        list(timeline_jsonl(hooks(), selection=Selection(passes=7)))


# ---- as JSON lines


def test_every_event_is_a_line_of_json() -> None:
    trace = no_grad()
    entries = [json.loads(line) for line in timeline_jsonl(trace)]
    assert [entry["seq"] for entry in entries] == [event.seq for event in trace.events]
    assert {entry["event"] for entry in entries} == {event.kind for event in trace.events}


def test_a_node_in_json_is_named_and_complete() -> None:
    entries = [
        json.loads(line)
        for line in timeline_jsonl(vector_jacobian(), selection=Selection(passes=1))
    ]
    statistics = {"min": 5.0, "max": 5.0, "mean": 5.0, "zeros": 0, "nans": 0, "infs": 0}
    (node,) = (entry for entry in entries if entry["seq"] == 8)
    assert node.pop("returned")[0]["values"] == [10.0] * 6
    assert node == {
        "seq": 8, "t_ns": 24000, "event": "node", "pass": 1, "name": "MulBackward0",
        "text": "x1 = m1 * m2", "thread": 0, "node": 1, "order": 4, "end_ns": 26000,
        "site": {
            "file": "vector_jacobian.py", "line": 6, "function": "<module>", "text": "x1 = m1 * m2",
        },
        "received": [
            {
                "shape": [3, 2], "dtype": "float32", "norm": math.sqrt(150), "values": [5.0] * 6,
                **statistics,
            }
        ],
    }  # fmt: skip


def test_json_has_no_number_that_json_does_not_know() -> None:
    event = DataWrite(seq=1, leaf=1, how="x", after=vector(math.nan, math.inf, -math.inf))
    (line,) = timeline_jsonl(replace(hooks(), events=EventList((event,))))
    after = json.loads(line)["after"]
    assert after["values"] == ["nan", "inf", "-inf"]
    assert json.loads(line)["name"] == "v"
