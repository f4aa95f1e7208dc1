"""What a reader should take away from each example stands in its trace, number by number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracer import api
from tracer.records import (
    Accumulate,
    DataWrite,
    Event,
    Forward,
    Gradient,
    GradMode,
    GradRead,
    GradWrite,
    HookAdded,
    HookRemoved,
    HookRun,
    TraceRecord,
)
from tracer.records.passes import PassView, view_pass

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
RECORD = """
import contextlib, io, os, runpy, sys, warnings
from tracer import api
warnings.simplefilter("ignore")
folder, *scripts = sys.argv[1:]
for script in scripts:
    name = os.path.basename(script).replace(".py", ".trace")
    with contextlib.redirect_stdout(io.StringIO()):
        with api.Trace(recording=api.Recording(os.path.join(folder, name), script=script)):
            runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TraceRecord]:
    """The trace of each example, all recorded in one process of their own."""
    folder = tmp_path_factory.mktemp("traces")
    command = [sys.executable, "-c", RECORD, str(folder), *map(str, EXAMPLES)]
    subprocess.run(command, check=True, cwd=EXAMPLES[0].parents[1])
    return {path.stem: api.load(folder / f"{path.stem}.trace").record for path in EXAMPLES}


@pytest.fixture
def vector_jacobian(traces: dict[str, TraceRecord]) -> TraceRecord:
    return traces["01_vector_jacobian"]


@pytest.fixture
def hooks(traces: dict[str, TraceRecord]) -> TraceRecord:
    return traces["02_hooks"]


@pytest.fixture
def no_grad(traces: dict[str, TraceRecord]) -> TraceRecord:
    return traces["03_no_grad"]


@pytest.fixture
def sgd(traces: dict[str, TraceRecord]) -> TraceRecord:
    return traces["04_sgd_by_hand"]


def line_of(name: str, text: str) -> int:
    """The number of the line of an example in which `text` first begins."""
    source = next(path for path in EXAMPLES if path.stem == name).read_text("utf-8")
    return source[: source.index(text)].count("\n") + 1


def node_of(view: PassView, variable: str) -> int:
    """The node whose output a variable names."""
    return next(node.id for node in view.graph.nodes if variable in node.variables)


def events_of(trace: TraceRecord, kind: type[Event]) -> list[Event]:
    return list(trace.events.select(kinds=(kind.kind,)))


def one_value(gradient: Gradient | None) -> float | None:
    """The value that all elements have; None for no gradient."""
    return gradient.uniform if gradient is not None else None


# ---- 1: vector–Jacobian product


def test_two_paths_bring_1_and_4_to_x1_and_5_arrives(vector_jacobian):
    view = view_pass(vector_jacobian, 1)
    x1, x2, y = (node_of(view, name) for name in ("x1", "x2", "y"))
    brought = {
        part.edge.source: one_value(part.gradient) for part in view.arriving(x1) if part.edge
    }
    assert brought == {y: 1.0, x2: 4.0}
    assert one_value(view.arrived(x1)) == 5.0
    assert one_value(view.received(x1)) == 5.0


def test_the_leaves_receive_10_5_and_2(vector_jacobian):
    changes = {
        vector_jacobian.leaves[event.leaf].name: (event.before, one_value(event.after))
        for event in events_of(vector_jacobian, Accumulate)
    }
    assert changes == {"m1": (None, 10.0), "m2": (None, 5.0), "m3": (None, 2.0)}
    view = view_pass(vector_jacobian, 1)
    assert [one_value(view.received(node_of(view, name))) for name in ("m1", "m2", "m3")] == [
        10.0, 5.0, 2.0,
    ]  # fmt: skip


def test_the_leaves_held_1_2_and_4(vector_jacobian):
    values = {leaf.name: one_value(leaf.value) for leaf in vector_jacobian.leaves.values()}
    assert values == {"m1": 1.0, "m2": 2.0, "m3": 4.0}


def test_x1_x2_and_y_are_read_as_none(vector_jacobian):
    reads = events_of(vector_jacobian, GradRead)
    line = line_of("01_vector_jacobian", "x1.grad")
    assert [(read.tensor, read.site.line) for read in reads] == [
        ("x1", line), ("x2", line), ("y", line),
    ]  # fmt: skip


# ---- 2: hooks


def test_the_hook_squares_what_arrives_in_both_passes(hooks):
    runs = events_of(hooks, HookRun)
    assert [
        (run.pass_id, run.before[0].values, run.after[0].values, run.changed) for run in runs
    ] == [
        (1, (1.0, 1.0, 2.0), (1.0, 1.0, 4.0), True),
        (2, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), False),
    ]
    assert {run.hook.text for run in runs} == {"grad * grad"}


def test_grad_accumulates_what_the_hook_returned(hooks):
    first, second = events_of(hooks, Accumulate)
    assert first.before is None
    assert first.incoming.values == first.after.values == (1.0, 1.0, 4.0)
    assert second.before.values == (1.0, 1.0, 4.0)
    assert second.incoming.values == (1.0, 1.0, 1.0)
    assert second.after.values == (2.0, 2.0, 5.0)


def test_the_hook_acts_before_the_accumulation(hooks):
    for number in (1, 2):
        kinds = [event.kind for event in hooks.events.select(pass_id=number)]
        assert kinds.index("hook") < kinds.index("accumulate")


def test_the_hook_is_added_and_removed_at_its_lines(hooks):
    (added,), (removed,) = events_of(hooks, HookAdded), events_of(hooks, HookRemoved)
    assert added.hook.id == removed.hook.id
    assert (added.hook.kind, added.hook.subject) == ("tensor hook", "v")
    assert added.site.line == line_of("02_hooks", "register_hook")
    assert removed.site.line == line_of("02_hooks", "handle.remove()")
    (last,) = list(hooks.events)[-1:]
    assert last == removed


# ---- 3: no_grad


EVALUATION = ("03_no_grad", "with torch.no_grad():\n        train_l")


def evaluations(trace: TraceRecord) -> Iterator[list[Event]]:
    """The events of each evaluation: between entry to and exit from its `no_grad`."""
    line = line_of(*EVALUATION)
    inside: list[Event] | None = None
    for event in trace.events:
        if isinstance(event, GradMode):
            if inside is not None:
                yield inside
            entered = event.mode == "no_grad" and event.site.line == line
            inside = [] if entered else None
        elif inside is not None:
            inside.append(event)


def test_training_has_nine_passes_over_one_graph(no_grad):
    assert [one.graph for one in no_grad.passes] == [1] * 9
    assert {leaf.name for leaf in no_grad.leaves.values()} == {"w", "b"}


def test_each_epoch_is_evaluated_outside_the_graph(no_grad):
    found = list(evaluations(no_grad))
    assert len(found) == 3
    for inside in found:
        operations = [event for event in inside if isinstance(event, Forward)]
        assert [one.op.rpartition(".")[2] for one in operations[:2]] == ["matmul", "add"]
        assert all(one.sequence_nrs[0] == one.sequence_nrs[1] for one in operations)
        assert {one.grad_mode for one in operations} == {"no_grad"}


def test_the_cut_says_the_reason_and_the_line(no_grad):
    line = line_of(*EVALUATION)
    for inside in evaluations(no_grad):
        cuts = [event.cut for event in inside if isinstance(event, Forward) and event.cut]
        assert [(cut.kind, cut.tensors, cut.region.line) for cut in cuts] == [
            ("no_grad", ("w",), line), ("no_grad", ("b",), line),
        ]  # fmt: skip


def test_w_and_b_receive_nothing_from_the_evaluation(no_grad):
    kinds = {event.kind for inside in evaluations(no_grad) for event in inside}
    assert kinds == {"forward"}


def test_w_and_b_come_close_to_the_truth(no_grad):
    written = {
        no_grad.leaves[event.leaf].name: event.after.values
        for event in events_of(no_grad, DataWrite)
    }
    assert written["w"] == pytest.approx((2.0, -3.4), abs=0.06)
    assert written["b"] == pytest.approx((4.2,), abs=0.06)


# ---- 4: SGD by hand


def test_two_hundred_passes_share_one_graph(sgd):
    assert [one.graph for one in sgd.passes] == [1] * 200
    assert len(sgd.graphs) == 1
    assert [node.name for node in sgd.graphs[1].nodes] == [
        "SumBackward0", "PowBackward0", "SubBackward0", "AccumulateGrad",
    ]  # fmt: skip


def test_the_ledger_of_b_balances_in_every_epoch(sgd):
    accumulates = events_of(sgd, Accumulate)
    assert len(accumulates) == 200
    assert {event.before.values for event in accumulates} == {(0.0,)}
    assert all(event.after == event.incoming for event in accumulates)
    zeroed = events_of(sgd, GradWrite)
    assert {event.after.values for event in zeroed} == {(0.0,)}
    assert [event.before for event in zeroed[-199:]] == [event.after for event in accumulates[:-1]]


def test_b_is_written_once_an_epoch_and_goes_to_100(sgd):
    written = events_of(sgd, DataWrite)
    assert len(written) == 200
    values = [event.after.values[0] for event in written]
    assert written[0].before.values == (1.0,)
    assert values[0] == pytest.approx(20.8)
    assert values == sorted(values)
    assert values[-1] == pytest.approx(100.0, abs=1e-4)


def test_the_gradient_of_b_goes_to_0(sgd):
    sizes = [abs(event.after.values[0]) for event in events_of(sgd, Accumulate)]
    assert sizes[0] == 19800.0
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.01
