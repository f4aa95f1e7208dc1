"""What is told straight from packed frames is what is told of the records made of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.recordings import F32, GRAPH, HOOKS, LEAF, SITES, statistics
from tests.store.strategies import BY_TYPE, ENTRIES, EVENTS
from tracer.errors import TraceFileError, TracerError
from tracer.records import (
    Accumulate,
    DataWrite,
    Event,
    EventList,
    Forward,
    Gradient,
    GradWrite,
    HookRun,
    NodeRun,
    Outcome,
    Pass,
    PassBegin,
    PassEnd,
    Root,
    Run,
    TensorMeta,
    TraceRecord,
)
from tracer.records.events import UNSEEN
from tracer.records.picking import Selection
from tracer.render.timeline import timeline_text
from tracer.store import TraceWriter, read_writer, telling

NONE, SAME = bytes([0]), bytes([1])
FULL = Gradient(F32, 2.449, 1.0, 1.0, 1.0, 0, 0, 0)
COMPLEX = Gradient(TensorMeta((2, 3), "complex64"), 2.449, 1.0, 1.0, 1.0, 0, 0, 0)
BROKEN = Gradient(F32, float("nan"), float("nan"), float("nan"), float("nan"), 0, 2, 1)
SEEN = st.one_of(
    st.sampled_from([SAME, NONE, bytes([6, 0]), FULL, BROKEN]),
    st.floats(0.0, 1e9).map(statistics),
    ENTRIES,
)
OPERATIONS = st.builds(
    Forward, seq=st.just(0), op=st.sampled_from(["torch.add", "torch.mul"]),
    site=st.sampled_from([None, *SITES]), module=st.sampled_from(["", "encoder"]),
    sequence_nrs=st.sampled_from([(3, 3), (3, 4), (8, 9)]),
    inputs=BY_TYPE["tuple[TensorRef, ...]"], outputs=BY_TYPE["tuple[TensorRef, ...]"],
    cut=st.none() | BY_TYPE["Cut | None"],
)  # fmt: skip
NODE_RUNS = st.builds(
    NodeRun, seq=st.just(0), node=st.sampled_from([0, 1]), order=st.just(1),
    end_ns=st.sampled_from([None, 5]), received=st.lists(SEEN, max_size=3).map(tuple),
    returned=st.lists(SEEN, max_size=3).map(tuple),
)  # fmt: skip
ACCUMULATES = st.builds(
    Accumulate, seq=st.just(0), leaf=st.sampled_from([1, 3]), node=st.just(2), order=st.just(2),
    before=SEEN, incoming=SEEN, after=SEEN,
)  # fmt: skip
HOOK_RUNS = st.builds(
    HookRun, seq=st.just(0), hook=st.sampled_from(HOOKS), node=st.sampled_from([None, 0, 1, 2]),
    input_nr=st.sampled_from([None, 0, 1]), before=st.tuples(ENTRIES), after=st.tuples(ENTRIES),
    changed=st.booleans(),
)  # fmt: skip
WRITES = st.sampled_from([GradWrite, DataWrite]).flatmap(
    lambda kind: st.builds(
        kind, seq=st.just(0), leaf=st.sampled_from([1, 3]), site=st.sampled_from([None, *SITES]),
        how=st.sampled_from(["SGD.step", UNSEEN]), before=SEEN, after=SEEN,
    )
)  # fmt: skip
STEPS = NODE_RUNS | ACCUMULATES | HOOK_RUNS
OTHERS = (
    OPERATIONS | WRITES | EVENTS.filter(lambda event: not isinstance(event, (PassBegin, PassEnd)))
)


@st.composite
def stories(draw: st.DrawFn) -> list[Event]:
    """Two passes over one graph that take turns, and what happens around them."""
    events: list[Event] = []

    def add(event: Event, pass_id: int | None) -> None:
        t_ns = draw(st.sampled_from([10, 1250, 10**9])) * len(events)
        events.append(replace(event, seq=len(events) + 1, t_ns=t_ns, pass_id=pass_id))

    begun = [number for number in (1, 2) if draw(st.integers(0, 9))]
    for number in begun:
        add(PassBegin(seq=0), number)
    for _ in range(draw(st.integers(0, 8))):
        add(draw(STEPS), draw(st.sampled_from([1, 2])))
        if draw(st.booleans()):
            add(draw(OTHERS), draw(st.sampled_from([None, 1])))
    for number in begun[:1]:
        add(PassEnd(seq=0), number)
    return events


def recorded(events: list[Event], *, size: int) -> TraceWriter:
    """A writer of these events, in chunks of so many bytes."""
    writer = TraceWriter(None, Run(script="train.py"), flush_bytes=size)
    writer.put(GRAPH)
    writer.put(LEAF)
    wrong = Outcome("ValueError", "no", 1)
    writer.put(Pass(1, 1, site=SITES[0], roots=(Root(0),), seeds=(FULL,), end_ns=10**6))
    writer.put(Pass(2, 1, roots=(Root(1, 1),), seeds=(None,), thread=1, outcome=wrong))
    for event in events:
        writer.event(event)
    return writer


def told(trace: TraceRecord, passes: int | None = None, **options: bool) -> list[str]:
    """The timeline of packed frames."""
    return list(timeline_text(trace, selection=Selection(passes), **options))


def told_of_records(trace: TraceRecord, passes: int | None = None, **options: bool) -> list[str]:
    """The timeline of the records that the frames are read into."""
    return told(replace(trace, events=EventList(tuple(trace.events))), passes, **options)


OPTIONS = st.fixed_dictionaries(
    {"color": st.booleans(), "wrap": st.booleans(), "times": st.booleans()}
)


@settings(deadline=None, max_examples=60)
@given(stories(), st.sampled_from([1, 200, 10_000]), st.sampled_from([None, 1, 2]), OPTIONS)
def test_frames_are_told_as_their_records_are(
    events: list[Event], size: int, passes: int | None, options: dict[str, bool]
) -> None:
    trace = read_writer(recorded(events, size=size))
    try:
        expected = told_of_records(trace, passes, **options)
    except TraceFileError:
        with pytest.raises(TraceFileError, match="the trace in memory is damaged"):
            told(trace, **options)
    else:
        assert told(trace, passes, **options) == expected


@settings(deadline=None, max_examples=60)
@given(stories(), st.data())
def test_what_is_told_of_a_damaged_file_is_as_its_records_are_or_that_it_is_damaged(
    events: list[Event], data: st.DataObject
) -> None:
    writer = recorded(events, size=10_000)
    writer.flush()
    found = writer.connection.execute("SELECT frames FROM chunk").fetchall()
    frames = bytearray(found[0][0] if found else b"")
    for _ in range(data.draw(st.integers(1, 3)) if frames else 0):
        frames[data.draw(st.integers(0, len(frames) - 1))] = data.draw(st.integers(0, 255))
    writer.connection.execute("UPDATE chunk SET frames = ?, kinds = -1", (bytes(frames),))
    trace = read_writer(writer)
    with suppress(TracerError):
        lines = told(trace)
        with suppress(TracerError):  # a record was read of what no line tells
            assert lines == told_of_records(trace)


def test_a_complex_tensor_of_one_absolute_value_is_told_by_its_norm() -> None:
    event = NodeRun(seq=2, pass_id=1, node=0, order=1, end_ns=1, received=(COMPLEX,))
    trace = read_writer(recorded([PassBegin(seq=1, pass_id=1), event], size=10_000))
    assert "in ‖g‖=2.449" in told(trace)[-1]
    assert told(trace) == told_of_records(trace)


def test_a_node_that_its_graph_lacks_is_told_as_one_that_is_not_known() -> None:
    events = [PassBegin(seq=1, pass_id=1), NodeRun(seq=2, pass_id=1, node=3, order=1)]
    trace = read_writer(recorded(events, size=10_000))
    assert told(trace)[-1].split() == ["1", "0", "node"]
    assert told(trace) == told_of_records(trace)


def test_of_what_nearly_all_events_are_no_record_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes, accumulations, writes and operations that lost nothing; of alike ones, one is."""
    site = SITES[0]
    events = [
        Forward(seq=1, op="torch.add", site=site, module="a"),
        Forward(seq=2, op="torch.add", site=site, module="b"),
        PassBegin(seq=3, pass_id=1),
        NodeRun(seq=4, pass_id=1, node=0, order=1, end_ns=1, received=(FULL,), returned=(FULL,)),
        Accumulate(seq=5, pass_id=1, leaf=1, node=2, order=2, incoming=BROKEN, after=BROKEN),
        PassEnd(seq=6, pass_id=1),
        GradWrite(seq=7, leaf=1, how="zero_", before=FULL),
        DataWrite(seq=8, leaf=1, how="SGD.step", before=FULL, after=FULL),
    ]
    made: list[Event] = []

    def seen(decode: Callable[..., Event]) -> Callable[..., Event]:
        return lambda *frame: made.append(event := decode(*frame)) or event

    for name in ("decode_event", "decode_forward"):
        monkeypatch.setattr(telling, name, seen(getattr(telling, name)))
    trace = read_writer(recorded(events, size=10_000))
    assert told(trace) == told_of_records(trace)
    assert [event.seq for event in made] == [1, 3, 6]


def test_what_comes_behind_a_pass_is_not_read_to_tell_of_it() -> None:
    events: list[Event] = [
        PassBegin(seq=1, pass_id=1),
        NodeRun(seq=2, pass_id=1, node=0, order=1, end_ns=1, received=(FULL,), returned=(FULL,)),
        PassEnd(seq=3, pass_id=1),
        PassBegin(seq=4, pass_id=2),
        NodeRun(seq=5, pass_id=2, node=0, order=1, end_ns=1, received=(FULL,), returned=(FULL,)),
        PassEnd(seq=6, pass_id=2),
    ]
    writer = recorded(events, size=1)
    trace = read_writer(writer)
    expected = told_of_records(trace, 1)
    writer.connection.execute("UPDATE chunk SET frames = x'00' WHERE first_seq > 4")
    assert told(trace, 1) == expected
    assert "AddBackward0" in expected[-1]
