"""The Trace Event Format: sound JSON, in order, slices nested, arrows with both ends, counters."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import hooks, no_grad, perceptron, sgd, vector, vector_jacobian
from tracer.records import DataWrite, EventList, Mark, TraceRecord
from tracer.records.picking import Selection
from tracer.render.chrome import timeline_chrome

TRACES = {
    "vector_jacobian": vector_jacobian(), "hooks": hooks(), "no_grad": no_grad(2),
    "sgd": sgd(30), "perceptron": perceptron(3),
}  # fmt: skip


def entries(trace: TraceRecord, **asked: object) -> list[dict[str, Any]]:
    """The entries of the JSON that the lines make."""
    text = "\n".join(timeline_chrome(trace, selection=Selection(**asked)))
    whole: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    found: list[dict[str, Any]] = whole["traceEvents"]
    return found


def track_names(found: list[dict[str, Any]]) -> dict[int, str]:
    """The name of each track by its number."""
    return {one["tid"]: one["args"]["name"] for one in found if one["name"] == "thread_name"}


@pytest.mark.parametrize("name", TRACES)
def test_every_entry_has_what_the_format_asks_for(name: str) -> None:
    for one in entries(TRACES[name]):
        assert one["ph"] in set("MXBisfC")
        assert one["pid"] == 1
        assert isinstance(one["name"], str)
        if one["ph"] != "M":
            assert one["ts"] >= 0
        if one["ph"] not in "MC":
            assert isinstance(one["tid"], int)
        if one["ph"] == "X":
            assert one["dur"] >= 0
        if one["ph"] == "i":
            assert one["s"] == "t"


@pytest.mark.parametrize("name", TRACES)
def test_entries_are_in_order_of_time(name: str) -> None:
    times = [one["ts"] for one in entries(TRACES[name]) if one["ph"] != "M"]
    assert times == sorted(times)
    assert times


def test_entries_are_in_order_though_events_are_not() -> None:
    trace = sgd(3)
    late = replace(trace.events.events[5], t_ns=1)
    events = (*trace.events.events[:5], late, *trace.events.events[6:])
    shuffled = replace(trace, events=EventList(events))
    times = [one["ts"] for one in entries(shuffled) if one["ph"] != "M"]
    assert times == sorted(times)


def slices(found: list[dict[str, Any]]) -> Iterator[list[tuple[float, float]]]:
    """The slices of each track, as begin and end."""
    tracks = defaultdict(list)
    for one in found:
        if one["ph"] == "X":
            tracks[one["tid"]].append((one["ts"], round(one["ts"] + one["dur"], 3)))
    yield from tracks.values()


@pytest.mark.parametrize("name", TRACES)
def test_slices_of_a_track_nest(name: str) -> None:
    tracks = list(slices(entries(TRACES[name])))
    assert tracks
    for track in tracks:
        around: list[float] = []
        for begin, end in track:
            while around and around[-1] <= begin:
                around.pop()
            assert not around or end <= around[-1]
            around.append(end)


def test_a_node_that_would_stick_out_of_its_pass_is_cut_to_it() -> None:
    trace = vector_jacobian()
    short = replace(trace.passes[0], end_ns=25_000)
    nodes = max(slices(entries(replace(trace, passes=(short,)))), key=max)
    assert max(end for _, end in nodes) == 25.0


@pytest.mark.parametrize("name", TRACES)
def test_every_arrow_has_its_begin_and_its_end(name: str) -> None:
    found = entries(TRACES[name])
    begins = [one for one in found if one["ph"] == "s"]
    ends = {one["id"]: one for one in found if one["ph"] == "f"}
    assert sorted(one["id"] for one in begins) == sorted(ends)
    for begin in begins:
        end = ends[begin["id"]]
        assert begin["ts"] < end["ts"]
        assert (begin["name"], begin["cat"], end["bp"]) == (end["name"], end["cat"], "e")


def test_an_arrow_leads_from_an_operation_to_the_run_of_its_node() -> None:
    found = entries(vector_jacobian())
    at = {(one["tid"], one["ts"]): one for one in found if one["ph"] == "X"}
    pairs = {
        at[begin["tid"], begin["ts"]]["args"]["where"]: at[end["tid"], end["ts"]]["args"]["where"]
        for begin in found if begin["ph"] == "s"
        for end in found if end["ph"] == "f" and end["id"] == begin["id"]
    }  # fmt: skip
    lines = ("x1 = m1 * m2", "x2 = x1 * m3", "y = x1 + x2")
    assert pairs == {line: line for line in lines}


def test_arrows_of_later_passes_over_one_graph_begin_at_their_own_operations() -> None:
    found = entries(sgd(30))
    begins = {one["id"]: one["ts"] for one in found if one["ph"] == "s"}
    ends = {one["id"]: one["ts"] for one in found if one["ph"] == "f"}
    passes = sorted(one["ts"] for one in found if one.get("cat") == "pass_begin")
    assert len(begins) == 3 * 30
    for number, begin in begins.items():
        assert sum(begin < at <= ends[number] for at in passes) == 1


def test_an_arrow_has_both_ends_or_none_where_only_some_events_are_wanted() -> None:
    assert not [one for one in entries(sgd(3), kinds="node") if one["ph"] in "sf"]
    found = entries(vector_jacobian(), names="x2")
    assert len([one for one in found if one["ph"] == "s"]) == 1
    assert len([one for one in found if one["ph"] == "f"]) == 1


def test_there_are_tracks_for_forward_backward_hooks_and_ledger() -> None:
    assert set(track_names(entries(hooks())).values()) == {"backward", "hooks", "ledger"}
    assert set(track_names(entries(sgd(2))).values()) == {"forward", "backward", "ledger"}


def test_each_thread_has_its_own_backward_track() -> None:
    trace = sgd(2)
    moved = [replace(e, thread=2) if e.pass_id == 2 else e for e in trace.events]
    names = track_names(entries(replace(trace, events=EventList(tuple(moved)))))
    assert set(names.values()) == {"forward", "backward", "backward, thread 2", "ledger"}


def test_norms_are_counters() -> None:
    counters = [one for one in entries(hooks()) if one["ph"] == "C"]
    of_leaf = [one["args"]["norm"] for one in counters if one["name"] == "‖v.grad‖"]
    assert of_leaf == [vector(1, 1, 4).norm, vector(2, 2, 5).norm]
    of_pass = [one["args"]["norm"] for one in counters if "leaves" in one["name"]]
    assert of_pass == [pytest.approx(vector(1, 1, 4).norm), pytest.approx(vector(1, 1, 1).norm)]


def test_a_number_that_json_does_not_know_is_no_point_of_a_counter() -> None:
    trace = hooks()
    broken = [
        replace(e, after=replace(e.after, norm=float("nan"))) if e.kind == "accumulate" else e
        for e in trace.events
    ]
    found = entries(replace(trace, events=EventList(tuple(broken))))
    assert not [one for one in found if one["name"] == "‖v.grad‖"]


def test_a_pass_that_never_ended_is_a_slice_without_an_end() -> None:
    trace = hooks()
    record = replace(trace.passes[1], end_ns=None)
    found = entries(replace(trace, passes=(trace.passes[0], record)))
    assert [one["name"][:6] for one in found if one["ph"] == "B"] == ["pass 2"]


def test_marks_have_a_track_above_all_others() -> None:
    mark = Mark(seq=99, t_ns=10**9, text="epoch 3")
    trace = hooks()
    found = entries(replace(trace, events=EventList((*trace.events.events, mark))))
    names = track_names(found)
    order = [names[tid] for tid in sorted(names)]  # as Perfetto has them
    assert order == ["marks", "backward", "hooks", "ledger"]
    (told,) = (one for one in found if one["name"] == "epoch 3")
    assert (told["ph"], names[told["tid"]]) == ("i", "marks")
    sorted_by = [one for one in found if one["name"] == "thread_sort_index"]
    assert all(one["args"]["sort_index"] == one["tid"] for one in sorted_by)


def test_what_is_not_finite_is_text() -> None:
    event = DataWrite(seq=1, leaf=1, how="x", after=vector(float("nan"), float("inf")))
    (write,) = (
        one for one in entries(replace(hooks(), events=EventList((event,)))) if one["ph"] == "i"
    )
    assert write["args"]["gradient"] == "v  None → [nan, inf]  (x)"
