"""The event log: order, selection, and the gradients that a frame leaves to others to tell."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.recordings import F32, GRAPH, LEAF, node_frame, recorded, statistics
from tests.store.strategies import EVENTS
from tracer.errors import TraceFileError
from tracer.records import (
    Accumulate,
    Edge,
    Event,
    EventList,
    Gradient,
    Graph,
    Mark,
    Node,
    NodeKind,
    NodeRun,
    Pass,
    PassBegin,
    PassEnd,
    Root,
    Run,
    TraceRecord,
)
from tracer.store import TraceWriter, read_writer
from tracer.store.flows import NOT_RECORDED
from tracer.store.frames import encode_event

SAME = bytes([1])
NONE = bytes([0])


def received(k: int) -> bytes:
    """A returned entry that is the very tensor received as input k."""
    return bytes([6, k])


def seen(norm: float) -> Gradient:
    """What `statistics(norm)` says of a tensor of the graph."""
    return Gradient(F32, norm, -norm, norm, 0.0, 1, 0, 0)


def in_chunks(events: Sequence[Event | bytes], *, size: int = 1) -> TraceRecord:
    """The trace of these events and frames, one chunk for every `size` bytes."""
    writer = TraceWriter(None, Run(), flush_bytes=size)
    writer.put(GRAPH)
    writer.put(LEAF)
    writer.put(Pass(1, 1))
    writer.put(Pass(2, 1, parent=1))
    for event in events:
        if isinstance(event, bytes):
            writer.append(event)
        else:
            writer.event(event)
    return read_writer(writer)


def nested() -> list[Event]:
    """Pass 2 runs inside a node of pass 1, whose own frame comes after it."""
    return [
        Mark(seq=1, text="before"),
        PassBegin(seq=2, pass_id=1),
        NodeRun(seq=3, pass_id=1, node=0, order=1, end_ns=1),
        PassBegin(seq=5, pass_id=2),
        NodeRun(seq=6, pass_id=2, node=0, order=1, end_ns=1),
        Accumulate(seq=7, pass_id=2, leaf=1, node=2, order=2),
        PassEnd(seq=8, pass_id=2),
        NodeRun(seq=4, pass_id=1, node=1, order=2, end_ns=1),
        Accumulate(seq=9, pass_id=1, leaf=1, node=2, order=3),
        PassEnd(seq=10, pass_id=1),
        Mark(seq=11, text="after"),
    ]


def in_order(events: Sequence[Event]) -> EventList:
    return EventList(tuple(sorted(events, key=lambda event: event.seq)))


# ---- order and selection


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_events_come_in_the_order_in_which_they_began(size: int) -> None:
    log = in_chunks(nested(), size=size).events
    assert list(log) == list(in_order(nested()))
    assert list(log) == list(log)
    assert len(log) == 11


@pytest.mark.parametrize("size", [1, 100, 10_000])
@pytest.mark.parametrize(
    "kinds", [(), ("node",), ("accumulate", "pass_end"), ("mark",), ("no such kind",)]
)
def test_a_selection_is_that_of_a_log_in_memory(size: int, kinds: tuple[str, ...]) -> None:
    log = in_chunks(nested(), size=size).events
    for pass_id, since in product((None, 1, 2, 3), (0, 4, 8, 99)):
        expected = in_order(nested()).select(pass_id=pass_id, kinds=kinds, since=since)
        assert list(log.select(pass_id=pass_id, kinds=kinds, since=since)) == list(expected)


@settings(deadline=None)
@given(
    st.lists(EVENTS, max_size=20, unique_by=lambda event: event.seq),
    st.integers(1, 500),
    st.randoms(use_true_random=False),
)
def test_frames_may_lie_in_any_order(events: list[Event], size: int, chance: random.Random) -> None:
    shuffled = chance.sample(events, len(events))
    writer = TraceWriter(None, Run(), flush_bytes=size)
    for event in shuffled:
        writer.event(event)
    assert repr(list(read_writer(writer).events)) == repr(list(in_order(events)))


def test_a_selection_reads_only_the_chunks_it_needs() -> None:
    writer = TraceWriter(None, Run(), flush_bytes=1)
    for event in nested():
        writer.event(event)
    trace = read_writer(writer)
    writer.connection.execute("UPDATE chunk SET frames = x'00' WHERE last_pass <> 2")
    assert [event.seq for event in trace.events.select(pass_id=2)] == [5, 6, 7, 8]
    with pytest.raises(TraceFileError):
        list(trace.events)


def test_what_came_after_a_pass_is_read_without_the_frames_of_that_pass() -> None:
    writer = TraceWriter(None, Run(), flush_bytes=1)
    one, two = (
        b"".join(encode_event(event, writer) for event in events)
        for events in (
            [NodeRun(seq=1, pass_id=1, node=0, order=1)],
            [PassEnd(seq=2, pass_id=1), NodeRun(seq=3, pass_id=2, node=0, order=1)],
        )
    )
    writer.append(one)
    writer.append(two)
    trace = read_writer(writer)
    writer.connection.execute("UPDATE chunk SET frames = x'00' WHERE last_pass = 1")
    assert [event.seq for event in trace.events.select(since=3)] == [3]


def test_events_written_later_are_in_a_log_opened_before() -> None:
    writer = TraceWriter(None, Run())
    log = read_writer(writer).events
    writer.event(Mark(seq=1, text="later"))
    writer.flush()
    assert list(log) == [Mark(seq=1, text="later")]


# ---- gradients told by another frame


Gradients = Sequence[Gradient | None]


def run(seq: int, node: int, *, got: Gradients, gave: Gradients) -> NodeRun:
    """The event of `node_frame`."""
    return NodeRun(
        seq=seq, t_ns=10 * seq, pass_id=1, node=node, order=seq, end_ns=10 * seq + 5,
        received=tuple(got), returned=tuple(gave),
    )  # fmt: skip


FRAMES: list[Event | bytes] = [
    PassBegin(seq=1, pass_id=1),
    node_frame(2, 0, received=[statistics(1.0)], returned=[statistics(2.0), statistics(3.0)]),
    node_frame(3, 1, received=[SAME, NONE], returned=[NONE, statistics(4.0)]),
    PassEnd(seq=4, pass_id=1),
]
RUNS: list[Event] = [
    PassBegin(seq=1, pass_id=1),
    run(2, 0, got=[seen(1.0)], gave=[seen(2.0), seen(3.0)]),
    run(3, 1, got=[seen(2.0), None], gave=[None, seen(4.0)]),
    PassEnd(seq=4, pass_id=1),
]


@pytest.mark.parametrize("size", [1, 10_000])
def test_an_input_with_one_edge_received_what_that_edge_sent(size: int) -> None:
    log = in_chunks(FRAMES, size=size).events
    assert list(log) == RUNS
    assert list(log.select(since=3)) == RUNS[2:]
    assert list(log.select(pass_id=1, kinds=("node",))) == RUNS[1:3]


CHAIN_LENGTH = 2000


def chain() -> tuple[Graph, list[Event | bytes]]:
    """A chain of nodes that hand on what they receive to the next and, the last, to a leaf."""
    nodes = [Node(number, "AddBackward0", outputs=(F32,)) for number in range(CHAIN_LENGTH)]
    nodes.append(Node(CHAIN_LENGTH, "AccumulateGrad", NodeKind.ACCUMULATE, outputs=(F32,)))
    edges = [Edge(number, 0, number + 1) for number in range(CHAIN_LENGTH)]
    frames: list[Event | bytes] = [
        node_frame(number + 1, number, received=[first], returned=[received(0)])
        for number, first in enumerate([statistics(7.0)] + [SAME] * (CHAIN_LENGTH - 1))
    ]
    accumulate = Accumulate(
        seq=CHAIN_LENGTH + 1, pass_id=1, leaf=1, node=CHAIN_LENGTH, order=CHAIN_LENGTH,
        incoming=SAME, after=statistics(7.0),  # type: ignore[arg-type]
    )  # fmt: skip
    return Graph(1, tuple(nodes), tuple(edges), (Root(0),)), [*frames, accumulate]


@pytest.mark.parametrize("kinds", [(), ("accumulate",)])
def test_a_gradient_handed_on_by_many_nodes_is_followed_to_its_source(
    kinds: tuple[str, ...],
) -> None:
    graph, frames = chain()
    writer = TraceWriter(None, Run(), flush_bytes=1000)
    writer.put(graph)
    writer.put(LEAF)
    writer.put(Pass(1, 1))
    for frame in frames:
        if isinstance(frame, bytes):
            writer.append(frame)
        else:
            writer.event(frame)
    *_, last = read_writer(writer).events.select(kinds=kinds)
    assert isinstance(last, Accumulate)
    assert (last.incoming, last.after) == (seen(7.0), seen(7.0))


def test_a_returned_tensor_can_be_the_one_received() -> None:
    frame = node_frame(
        1, 0, received=[statistics(1.0)], returned=[received(0), received(0)]
    )  # fmt: skip
    assert list(in_chunks([frame]).events) == [run(1, 0, got=[seen(1.0)], gave=[seen(1.0)] * 2)]


def test_a_source_that_was_not_recorded_is_said_so() -> None:
    unknown = Gradient(F32, unread=NOT_RECORDED)
    frame = node_frame(1, 1, received=[SAME, NONE], returned=[])
    assert list(in_chunks([frame]).events) == [run(1, 1, got=[unknown, None], gave=[])]


def test_an_input_with_several_edges_cannot_be_the_same_as_sent() -> None:
    unknown = Gradient(F32, unread=NOT_RECORDED)
    event = Accumulate(seq=1, pass_id=1, leaf=1, node=2, order=1, incoming=SAME)  # type: ignore[arg-type]
    (read,) = in_chunks([event]).events
    assert isinstance(read, Accumulate)
    assert read.incoming == unknown


def test_a_pass_knows_nothing_of_what_flowed_in_another() -> None:
    frames: list[Event | bytes] = [
        node_frame(1, 0, received=[NONE], returned=[statistics(2.0), NONE]),
        node_frame(2, 0, received=[NONE], returned=[statistics(9.0), NONE], pass_id=2),
        node_frame(3, 1, received=[SAME, NONE], returned=[]),
    ]
    *_, last = in_chunks(frames).events
    assert last == run(3, 1, got=[seen(2.0), None], gave=[])


def test_frames_that_refer_in_a_circle_are_refused() -> None:
    nodes = (Node(0, "AddBackward0", outputs=(F32,)), Node(1, "AddBackward0", outputs=(F32,)))
    graph = Graph(1, nodes, (Edge(0, 0, 1), Edge(1, 0, 0)), ())
    writer = TraceWriter(None, Run())
    writer.put(graph)
    writer.put(Pass(1, 1))
    for number in (0, 1):
        writer.append(node_frame(number + 1, number, received=[SAME], returned=[received(0)]))
    writer.event(Accumulate(seq=3, pass_id=1, leaf=1, node=0, order=3, incoming=SAME))  # type: ignore[arg-type]
    with pytest.raises(TraceFileError, match="circle"):
        list(read_writer(writer).events.select(kinds=("accumulate",)))


def test_a_node_that_never_ended_has_no_end() -> None:
    frame = bytearray(node_frame(1, 0, received=[], returned=[]))
    frame[36:44] = b"\xff" * 8
    (read,) = in_chunks([bytes(frame)]).events
    assert isinstance(read, NodeRun)
    assert read.end_ns is None


def test_events_outside_any_pass_need_no_structure() -> None:
    assert list(recorded(Mark(seq=1, text="here")).events.select(kinds=("mark",))) == [
        Mark(seq=1, text="here")
    ]
