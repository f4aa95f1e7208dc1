"""Why a `.grad` is None: never reached, failed before, frozen, cut off, or not a leaf."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import hooks, vector_jacobian
from tracer.records import Cut, EventList, Forward, Outcome, Site, TensorRef, TraceRecord
from tracer.render import why_none as why_none_module
from tracer.render.left_at_the_end import Seen, look_through
from tracer.render.why_none import why_none

SITE = Site(70, "vector_jacobian.py", 4, expression="m3.detach()")


def reasons(trace: TraceRecord) -> dict[str, str]:
    """The reason for each name."""
    return {name: reason for name, reason, _ in why_none(trace, look_through(trace))}


def never_accumulated(**change: object) -> TraceRecord:
    """The first example without what the engine added to m3."""
    trace = vector_jacobian()
    events = [e for e in trace.events if not (e.kind == "accumulate" and e.leaf == 3)]
    record = replace(trace.passes[0], **change)
    return replace(trace, passes=(record,), events=EventList(tuple(events)))


def cut(kind: str, name: str) -> Forward:
    """A cut of that kind that the tensor of that name is lost in."""
    return Forward(seq=900, op="Tensor.detach", site=SITE, cut=Cut(kind, (name,)))


def with_cut(trace: TraceRecord, kind: str, name: str) -> TraceRecord:
    """The trace with such a cut in the end."""
    return replace(trace, events=EventList((*trace.events, cut(kind, name))))


def test_leaves_that_received_something_are_not_in_it() -> None:
    assert set(reasons(vector_jacobian())) == {"x1", "x2", "y"}


def test_what_is_no_leaf_says_so_with_the_line_that_asked() -> None:
    rows = list(why_none(vector_jacobian(), look_through(vector_jacobian())))
    assert rows[0] == ("x1", "not a leaf: retain_grad() keeps its .grad", "line 12")


def test_a_pass_that_failed_is_the_reason() -> None:
    trace = never_accumulated(outcome=Outcome("RuntimeError", "no", 2))
    assert reasons(trace)["m3"] == "pass 1 raised RuntimeError before it got there"


def test_autograd_grad_leaves_grad_alone() -> None:
    assert "only torch.autograd.grad() ran" in reasons(never_accumulated(kind="grad"))["m3"]


def test_inputs_that_leave_it_out_are_the_reason() -> None:
    trace = never_accumulated(inputs=("m1",))
    assert reasons(trace)["m3"] == "not among the inputs= of the passes that lead to it"


def test_a_leaf_that_no_graph_leads_to_is_not_reached() -> None:
    trace = hooks()
    other = replace(trace.leaves[1], id=2, name="w")
    trace = replace(trace, leaves={**trace.leaves, 2: other})
    assert reasons(trace) == {"w": "not reached from the root of any pass"}


def beside_it(trace: TraceRecord, **change: object) -> TraceRecord:
    """The trace with one more leaf, `w`, and its first pass changed so."""
    other = replace(trace.leaves[1], id=99, name="w", grad=None)
    record = replace(trace.passes[0], **change)
    return replace(trace, passes=(record,), leaves={**trace.leaves, 99: other})


def reasons_unread(trace: TraceRecord) -> dict[str, str]:
    """The reason for each name of a trace of which no event was read, as there are too many."""
    return {name: reason for name, reason, _ in why_none(trace, Seen(cut_short=True))}


def test_what_is_not_reached_is_told_of_a_trace_too_long_to_be_read() -> None:
    assert reasons_unread(beside_it(hooks())) == {"w": "not reached from the root of any pass"}


def test_what_is_not_certain_is_not_told_of_a_trace_too_long_to_be_read() -> None:
    trace = beside_it(hooks())
    renamed = replace(trace.leaves[1], name="renamed since")
    assert reasons_unread(replace(trace, leaves={**trace.leaves, 1: renamed})) == {}


def test_that_only_autograd_grad_ran_is_told_of_a_trace_too_long_to_be_read() -> None:
    told = reasons_unread(beside_it(hooks(), kind="grad"))
    assert set(told) == {"w", hooks().leaves[1].name}
    assert "only torch.autograd.grad() ran" in told[hooks().leaves[1].name]


def test_the_graphs_of_a_long_trace_are_read_as_far_as_they_are_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(why_none_module, "_MOST_NODES", 0)
    assert reasons_unread(beside_it(hooks())) == {}


def test_a_cut_is_the_reason_with_its_line() -> None:
    trace = with_cut(never_accumulated(), "detach", "m3")
    assert ("m3", "cut off by detach", "line 4") in list(why_none(trace, look_through(trace)))


def test_a_frozen_leaf_says_what_froze_it() -> None:
    trace = with_cut(never_accumulated(), "requires_grad_(False)", "m3")
    assert reasons(trace)["m3"] == "frozen by requires_grad_(False)"


def test_a_tensor_that_no_pass_met_is_told_by_what_cut_it_off() -> None:
    event = replace(cut("detach", "unused"), inputs=(TensorRef(made_by=3, name="unused"),))
    trace = replace(hooks(), events=EventList((*hooks().events, event)))
    assert reasons(trace) == {"unused": "cut off by detach"}
    assert reasons(with_cut(hooks(), "detach", "v")) == {}


def test_a_leaf_may_have_had_another_name_where_it_was_cut() -> None:
    assert reasons(with_cut(hooks(), "detach", "self.v")) == {}
