"""What can be asked of a trace: kinds, names, modules, passes and what came after a mark."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import hooks, no_grad, perceptron, sgd, vector_jacobian
from tracer.errors import NotInTraceError, OptionError
from tracer.records import EventList, Mark, NodeRun, TraceRecord
from tracer.records.picking import Selection, nothing_matches, select_events


def found(trace: TraceRecord, **asked: object) -> list[int]:
    """The `seq` of the events that a selection leaves."""
    return [event.seq for event in select_events(trace, Selection(**asked))]


def marked(*texts: str) -> TraceRecord:
    """The passes of the SGD example with a mark before each."""
    trace = sgd(len(texts))
    begins = [event for event in trace.events if event.kind == "pass_begin"]
    events = list(trace.events)
    for begin, text in zip(reversed(begins), reversed(texts), strict=True):
        events.insert(events.index(begin), Mark(seq=0, t_ns=begin.t_ns, text=text))
    numbered = [replace(event, seq=number) for number, event in enumerate(events, 1)]
    return replace(trace, events=EventList(tuple(numbered)))


def test_everything_is_selected_where_nothing_is_asked() -> None:
    trace = no_grad()
    assert found(trace) == [event.seq for event in trace.events]


def test_a_string_is_a_tuple_of_one_and_a_number_a_range() -> None:
    assert Selection(passes=3, kinds="node") == Selection((3, 3), ("node",))


def test_a_kind_that_is_none_is_refused_with_the_one_meant() -> None:
    with pytest.raises(OptionError, match="'nodes': did you mean node"):
        Selection(kinds="nodes")


def test_kinds_are_picked_and_a_cut_is_one() -> None:
    trace = no_grad()
    cuts = [event.seq for event in trace.events if getattr(event, "cut", None) is not None]
    assert found(trace, kinds="cut") == cuts
    assert set(found(trace, kinds=("cut", "grad_mode"))) > set(cuts)


@pytest.mark.parametrize(
    ("name", "nodes"),
    [("x1", {1}), ("MulBackward0", {1, 2}), ("Mul", {1, 2}), ("x?", {1, 2}), ("m1", set())],
)
def test_nodes_are_found_by_their_own_name_and_their_tensors(name: str, nodes: set[int]) -> None:
    events = select_events(vector_jacobian(), Selection(kinds="node", names=name))
    assert {event.node for event in events if isinstance(event, NodeRun)} == nodes


def test_a_leaf_is_found_in_forward_operations_and_in_its_ledger() -> None:
    trace = vector_jacobian()
    kinds = {event.kind for event in select_events(trace, Selection(names="m1"))}
    assert kinds == {"forward", "accumulate"}


def test_the_last_parts_of_a_path_are_a_name() -> None:
    trace = perceptron(2)
    whole = found(trace, names="layers.1.linear.weight")
    assert whole
    assert set(found(trace, names="linear.weight")) > set(whole)


def test_a_module_is_asked_for_with_all_that_is_in_it() -> None:
    trace = perceptron(2)
    inner, outer = found(trace, modules="layers.1.linear"), found(trace, modules="layers.1")
    assert set(outer) > set(inner) > set()
    assert not set(outer) & set(found(trace, modules="layers.0"))
    assert set(found(trace, modules="layers.*")) == {*outer, *found(trace, modules="layers.0")}


def test_a_module_may_lack_its_beginning() -> None:
    trace = perceptron(2)
    whole = found(trace, modules=["layers.0.linear", "layers.1.linear"])
    assert whole
    assert found(trace, modules="linear") == whole
    assert not found(trace, modules="inear")


def test_brackets_in_a_name_are_themselves() -> None:
    trace = hooks()
    named = replace(trace, leaves={1: replace(trace.leaves[1], name="h[t=3]")})
    assert found(named, names="h[t=3]")
    assert not found(named, names="ht")


def test_a_pass_comes_with_what_led_to_it() -> None:
    trace = sgd(3)
    second = [event.seq for event in trace.events if event.pass_id == 2]
    around = found(trace, passes=2)
    assert min(around) < second[0]
    assert max(around) > second[-1]
    assert not {event.seq for event in trace.events if event.pass_id in (1, 3)} & {*around[2:-2]}
    assert set(found(trace, passes=(2, 3))) > set(second)


def test_since_takes_a_mark_by_its_text_or_by_part_of_it() -> None:
    trace = marked("epoch 1", "epoch 10", "epoch 2")
    seq = {event.text: event.seq for event in trace.events if isinstance(event, Mark)}
    assert found(trace, since="epoch 1")[0] == seq["epoch 1"]
    assert found(trace, since="10")[0] == seq["epoch 10"]


def test_a_mark_that_is_not_there_is_an_error_that_names_one() -> None:
    with pytest.raises(NotInTraceError, match="no mark 'epoch 11' in this trace: did you mean"):
        found(marked("epoch 1", "epoch 2"), since="epoch 11")
    with pytest.raises(NotInTraceError, match="it has 'a', 'b', …, 'e'"):
        found(marked("a", "b", "c", "d", "e"), since="step")
    with pytest.raises(NotInTraceError, match="tracer.mark"):
        found(sgd(2), since="epoch 1")


def test_what_matches_nothing_is_said_with_what_may_be_meant() -> None:
    asked = Selection(kinds="accumulate", names="m11")
    assert nothing_matches(vector_jacobian(), asked) == (
        "no event of this trace matches --kind accumulate --name m11 (did you mean m1?)"
    )
