"""Limits on what a trace holds: the last passes, a number of bytes, and what waits in memory."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.recordings import GRAPH, HOOKS, LEAF, node_frame, statistics
from tracer.errors import TraceFileError
from tracer.records import Event, HookRun, Leaf, Mark, Pass, PassBegin, PassEnd, Run, TraceRecord
from tracer.records.limits import limits
from tracer.store import TraceWriter, read_trace, read_writer
from tracer.store.rows import Ran

LAST = "older passes, deleted to keep to last"
BYTES = "older passes, deleted to keep to max_bytes"


class Script:
    """Writes passes as a recording does, numbering events as it goes."""

    def __init__(self, path: Path | None, *, flush_bytes: int = 1000, **asked: object) -> None:
        asked_for = limits(**asked)  # type: ignore[arg-type]
        self.writer = TraceWriter(path, Run(), limits=asked_for, flush_bytes=flush_bytes)
        self.seq = 0
        self.passes = 0

    def next(self) -> int:
        """The next order number."""
        self.seq += 1
        return self.seq

    def begin(self, *, parent: int | None = None, graph: int = 1) -> Pass:
        """Write what leads to a pass, and its begin."""
        self.passes += 1
        run = Pass(self.passes, graph, parent=parent)
        self.writer.event(Mark(seq=self.next(), text=f"leads to {run.id}"))
        self.writer.graph(replace(GRAPH, id=graph))
        self.writer.put(run)
        self.writer.event(PassBegin(seq=self.next(), pass_id=run.id))
        return run

    def nodes(self, run: Pass, count: int) -> None:
        """Write the events of some nodes."""
        for _ in range(count):
            entries = [statistics(1.0)]
            frame = node_frame(self.next(), 1, pass_id=run.id, received=entries, returned=entries)
            self.writer.append(frame)
            if self.writer.due():
                self.writer.flush_soon()

    def end(self, run: Pass) -> None:
        """Write the end of a pass."""
        self.writer.event(PassEnd(seq=self.next(), pass_id=run.id))
        self.writer.put(replace(run, end_ns=1))
        if self.writer.due():
            self.writer.flush_soon()

    def run(self, count: int, *, nodes: int = 3, graph: int = 1) -> None:
        """Write some whole passes."""
        for _ in range(count):
            run = self.begin(graph=graph)
            self.nodes(run, nodes)
            self.end(run)


def told(trace: TraceRecord) -> list[tuple[int | None, str]]:
    """Return pass and kind of each event, and the text of marks."""
    return [(event.pass_id, getattr(event, "text", event.kind)) for event in trace.events]


def whole(numbers: range, nodes: int) -> Iterator[tuple[int | None, str]]:
    """Yield what is told of whole passes."""
    for number in numbers:
        yield None, f"leads to {number}"
        yield number, "pass_begin"
        yield from [(number, "node")] * nodes
        yield number, "pass_end"


# ---- last


@pytest.mark.parametrize("flush_bytes", [1, 700, 5000, 10**6])
def test_the_last_passes_stay_whole_with_what_led_to_them(flush_bytes: int) -> None:
    script = Script(None, flush_bytes=flush_bytes, last=3)
    script.run(20)
    trace = read_writer(script.writer)
    assert [one.id for one in trace.passes] == [18, 19, 20]
    assert told(trace) == list(whole(range(18, 21), 3))
    assert dict(trace.dropped) == {LAST: 17}
    assert dict(trace.graphs) == {1: GRAPH}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=25), st.integers(1, 6), st.integers(1, 3000)
)
def test_whatever_the_sizes_the_last_passes_are_what_is_told(
    sizes: list[int], last: int, flush_bytes: int
) -> None:
    script = Script(None, flush_bytes=flush_bytes, last=last)
    for size in sizes:
        script.run(1, nodes=size)
    first = max(len(sizes) - last, 0)
    expected = [
        line
        for number in range(first, len(sizes))
        for line in whole(range(number + 1, number + 2), sizes[number])
    ]
    trace = read_writer(script.writer)
    assert told(trace) == expected
    assert trace.dropped.get(LAST, 0) == first


def test_a_pass_inside_another_goes_and_stays_with_it() -> None:
    script = Script(None, last=2)
    for _ in range(4):
        outer = script.begin()
        inner = script.begin(parent=outer.id)
        script.nodes(inner, 2)
        script.end(inner)
        script.end(outer)
    trace = read_writer(script.writer)
    assert [(one.id, one.parent) for one in trace.passes] == [(5, None), (6, 5), (7, None), (8, 7)]
    assert {event.pass_id for event in trace.events} == {None, 5, 6, 7, 8}
    assert dict(trace.dropped) == {LAST: 4}


def test_a_pass_that_still_runs_stays_and_those_after_it() -> None:
    script = Script(None, last=1)
    long = script.begin()
    script.run(5)
    assert [one.id for one in read_writer(script.writer).passes] == [1, 2, 3, 4, 5, 6]
    script.end(long)
    script.run(1)
    assert [one.id for one in read_writer(script.writer).passes] == [7]


def test_a_graph_goes_with_its_last_pass_and_comes_again_with_the_next() -> None:
    script = Script(None, last=2)
    script.run(3, graph=1)
    script.run(3, graph=2)
    assert list(read_writer(script.writer).graphs) == [2]
    script.run(1, graph=1)
    trace = read_writer(script.writer)
    assert dict(trace.graphs) == {1: GRAPH, 2: replace(GRAPH, id=2)}
    assert [trace.graphs[one.graph].id for one in trace.passes] == [2, 1]


def test_leaves_and_hooks_that_are_no_more_go_too() -> None:
    script = Script(None, last=2)
    for number in range(1, 9):
        script.writer.put(replace(LEAF, id=number))
        run = script.begin()
        hook = replace(HOOKS[0], id=number)
        script.writer.event(HookRun(seq=script.next(), pass_id=run.id, hook=hook))
        script.end(run)
        script.writer.lost_leaf(number)
    script.writer.put(Leaf(20, "alive", LEAF.meta))
    script.run(3)
    trace = read_writer(script.writer)
    assert list(trace.leaves) == [20]
    assert script.writer.connection.execute("SELECT id FROM hook").fetchall() == []
    assert [one.id for one in trace.passes] == [10, 11]


def test_the_file_does_not_grow_with_the_run(tmp_path: Path) -> None:
    sizes = []
    for passes in (200, 2000):
        script = Script(tmp_path / f"{passes}.trace", last=10)
        script.run(passes)
        script.writer.close()
        sizes.append(os.path.getsize(script.writer.path or ""))
    assert sizes[1] <= sizes[0] + 8192


# ---- max_bytes


def on_disk(path: Path) -> int:
    """Return how many bytes a trace takes, with all that lies beside it."""
    return sum(file.stat().st_size for file in path.parent.iterdir())


@pytest.mark.parametrize("nodes", [3, 2000])
def test_file_and_log_keep_within_the_budget_and_hold_the_newest_passes(
    tmp_path: Path, nodes: int
) -> None:
    path = tmp_path / "run.trace"
    script = Script(path, flush_bytes=262_144, max_bytes=1_000_000)
    most = 0
    for number in range(3_000_000 // (180 * (nodes + 3))):
        script.run(1, nodes=nodes)
        if number % 20 == 0 or nodes > 100:
            most = max(most, on_disk(path))
    script.writer.close()
    assert 700_000 < max(most, on_disk(path)) <= 1_000_000
    trace = read_trace(path)
    first = trace.passes[0].id
    assert told(trace) == list(whole(range(first, script.passes + 1), nodes))
    assert dict(trace.dropped) == {BYTES: first - 1}
    assert len(trace.passes) * 180 * (nodes + 3) > 300_000


def test_of_a_pass_larger_than_the_budget_the_rest_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    script = Script(path, max_bytes=1_000_000, flush_bytes=50_000)
    run = script.begin()
    for _ in range(20):
        script.nodes(run, 1000)
        assert on_disk(path) <= 1_000_000
    script.end(run)
    script.run(3)
    script.writer.close()
    trace = read_trace(path)
    kept = len(list(trace.events.select(pass_id=1, kinds=("node",))))
    assert trace.passes[-1].id == 4
    left_out = trace.dropped["events for which max_bytes left no room"]
    assert trace.passes[0].id > 1 or 0 < kept <= 20_000 - left_out + 2
    assert on_disk(path) <= 1_000_000


def test_without_passes_the_oldest_events_go(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    script = Script(path, max_bytes=1_000_000, flush_bytes=20_000)
    for number in range(3000):
        script.writer.event(Mark(seq=number + 1, text="x" * 1000))
        if script.writer.due():
            script.writer.flush()
    script.writer.close()
    trace = read_trace(path)
    seqs = [event.seq for event in trace.events]
    assert seqs == list(range(seqs[0], 3001))
    assert dict(trace.dropped) == {
        "older events outside passes, deleted to keep to max_bytes": seqs[0] - 1
    }
    assert on_disk(path) <= 1_000_000


def test_a_reader_that_holds_the_log_does_not_break_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    script = Script(path, max_bytes=1_000_000, flush_bytes=50_000)
    script.run(50, nodes=20)
    script.writer.flush()
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM chunk").fetchone()
    for _ in range(300):
        script.run(1, nodes=50)
        assert on_disk(path) <= 1_000_000
    reader.execute("COMMIT")
    reader.close()
    script.run(20)
    script.writer.close()
    trace = read_trace(path)
    assert trace.passes[-1].id == script.passes
    assert sum(trace.dropped.values()) > 0
    assert on_disk(path) <= 1_000_000


def test_records_too_large_for_the_budget_end_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    script = Script(path, max_bytes=1_000_000)
    script.run(3)
    script.writer.flush()
    script.writer.source("huge.py", "x" * 2_000_000)
    with pytest.raises(TraceFileError, match="max_bytes=1000000 is too little"):
        script.writer.flush()
    assert read_trace(path).passes[-1].id == 3
    assert on_disk(path) <= 1_000_000


# ---- back-pressure


def test_what_cannot_be_written_for_the_moment_waits(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    script = Script(path, flush_bytes=100)
    other = locking(path)
    script.run(20)
    other.execute("COMMIT")
    other.close()
    script.run(1)
    script.writer.close()
    trace = read_trace(path)
    assert told(trace) == list(whole(range(1, 22), 3))
    assert dict(trace.dropped) == {}


def test_more_than_may_wait_is_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer.store.writer._MOST_WAITING", 20_000)
    path = tmp_path / "run.trace"
    script = Script(path, flush_bytes=1000)
    other = locking(path)
    for _ in range(100):
        script.run(1)
        assert script.writer._chunks.waiting < 22_000
    other.execute("COMMIT")
    other.close()
    script.run(2)
    script.writer.close()
    trace = read_trace(path)
    events: list[Event] = list(trace.events)
    (reason,) = trace.dropped
    assert "another program had locked it" in reason
    assert len(events) + trace.dropped[reason] == script.seq
    assert [one.id for one in trace.passes] == list(range(1, 103))


def test_passes_that_wait_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.store.writer._MOST_PASSES_WAITING", 10)
    path = tmp_path / "run.trace"
    script = Script(path, flush_bytes=100)
    other = locking(path)
    script.run(25)
    other.execute("COMMIT")
    other.close()
    script.writer.close()
    trace = read_trace(path)
    events, passes = sorted(trace.dropped)
    assert events.startswith("events that came while the file could not be written")
    assert passes.startswith("passes that came while the file could not be written")
    assert len(trace.passes) + trace.dropped[passes] == 25
    assert len(list(trace.events)) + trace.dropped[events] == script.seq
    assert {one.pass_id for one in trace.events} <= {None, *(one.id for one in trace.passes)}


def test_passes_that_ran_in_the_core_alone_wait_and_are_bounded_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer.store.writer._MOST_PASSES_WAITING", 10)
    path = tmp_path / "run.trace"
    script = Script(path, flush_bytes=100)
    writer = script.writer

    def run(*numbers: int) -> None:
        roots, inputs = writer.roots_text(GRAPH.roots), writer.inputs_text(("x",))
        writer.ran(
            [
                Ran(number, 1, "grad", 0, roots, bytearray(), 0, inputs, 0, 1, 2, 3, 4)
                for number in numbers
            ],
            [replace(GRAPH, id=1)],
        )
        writer.flush_soon()

    run(1, 2)
    other = locking(path)
    run(3, 4, 5)
    run(*range(6, 16))
    other.execute("COMMIT")
    other.close()
    run(16)
    writer.close()
    trace = read_trace(path)
    assert [one.id for one in trace.passes] == [1, 2, 16]
    assert {(one.graph, one.inputs, one.roots, one.end_ns) for one in trace.passes} == {
        (1, ("x",), GRAPH.roots, 2)
    }
    ((reason, count),) = trace.dropped.items()
    assert reason.startswith("passes that came while the file could not be written")
    assert count == 13


def locking(path: Path) -> sqlite3.Connection:
    """Return a connection that has locked the file against writing."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_file_that_stays_locked_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer.store.writer._PATIENCE_S", 0.1)
    script = Script(tmp_path / "run.trace")
    other = locking(tmp_path / "run.trace")
    script.run(1)
    with pytest.raises(
        TraceFileError, match="cannot write the trace .*: another program locked it"
    ):
        script.writer.close()
    assert script.writer.closed
    other.execute("COMMIT")
    other.close()
    assert not read_trace(tmp_path / "run.trace").complete
