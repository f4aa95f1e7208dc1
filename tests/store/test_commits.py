"""Writing to a disk that keeps one waiting: who waits, what is dropped, and what is in the file."""

from __future__ import annotations

import _thread
import gc
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.test_ring import Script, told, whole
from tracer.errors import TraceFileError
from tracer.records import Mark, Run
from tracer.store import TraceWriter, read_trace
from tracer.store.files import Connection

PATIENCE_S = 60.0


class Disk:
    """A disk that takes nothing while it is `stuck`; each commit says that it waits."""

    def __init__(self) -> None:
        self.stuck = False
        self.waits = threading.Event()
        self.freed = threading.Event()
        self.threads: list[int] = []

    def commit(self, connection: sqlite3.Connection) -> None:
        """Commit, once the disk takes it."""
        self.threads.append(_thread.get_ident())
        if self.stuck:
            self.waits.set()
            assert self.freed.wait(PATIENCE_S)
        sqlite3.Connection.commit(connection)

    def free(self) -> None:
        """Let it take everything."""
        self.stuck = False
        self.freed.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk that every commit counts as slow on."""
    made = Disk()
    monkeypatch.setattr("tracer.store.commits._SLOW_NS", -1)
    monkeypatch.setattr(Connection, "commit", lambda connection: made.commit(connection))
    yield made
    made.free()


def test_nobody_waits_for_a_disk_that_is_stuck(tmp_path: Path, disk: Disk) -> None:
    script = Script(tmp_path / "run.trace")
    disk.stuck = True
    script.run(500)
    assert disk.waits.wait(PATIENCE_S)
    assert script.writer._commits.under_way
    disk.free()
    script.writer.close()
    trace = read_trace(tmp_path / "run.trace")
    assert told(trace) == list(whole(range(1, 501), 3))
    assert dict(trace.dropped) == {}
    assert trace.complete


def test_what_is_too_much_for_a_disk_is_dropped_and_counted(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer.store.writer._MOST_WAITING", 20_000)
    monkeypatch.setattr("tracer.store.writer._MOST_PASSES_WAITING", 1000)
    script = Script(tmp_path / "run.trace")
    disk.stuck = True
    for _ in range(2500):
        script.run(1)
        assert script.writer._chunks.waiting < 22_000
        assert len(script.writer._new_passes) < 1002
    disk.free()
    script.writer.close()
    trace = read_trace(tmp_path / "run.trace")
    events, passes = sorted(trace.dropped)
    assert events == "events that came faster than the disk could take them"
    assert passes == "passes that came faster than the disk could take them"
    assert len(list(trace.events)) + trace.dropped[events] == script.seq
    assert len(trace.passes) + trace.dropped[passes] == 2500
    assert set(trace.graphs) == {1}
    assert all(one.end_ns is not None for one in trace.passes)


def test_graphs_that_only_dropped_passes_have_go_and_come_again(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer.store.writer._MOST_RECORDS_WAITING", 20_000)
    script = Script(tmp_path / "run.trace")
    disk.stuck = True
    script.run(6)
    for graph in range(2, 60):
        script.run(1, graph=graph)
        assert script.writer._records_bytes < 22_000
    disk.free()
    for graph in range(2, 4):
        script.run(1, graph=graph)
    script.writer.close()
    trace = read_trace(tmp_path / "run.trace")
    assert {one.graph for one in trace.passes} == set(trace.graphs)
    assert {2, 3} <= set(trace.graphs)
    assert len(trace.graphs) < 59


def test_a_disk_that_keeps_up_needs_no_thread(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer.store.commits._SLOW_NS", 1 << 62)
    script = Script(tmp_path / "run.trace")
    script.run(100)
    script.writer.close()
    assert len(disk.threads) > 10
    assert set(disk.threads) == {_thread.get_ident()}


def test_no_garbage_is_collected_in_the_thread(tmp_path: Path, disk: Disk) -> None:
    collected: list[int] = []

    def see(phase: str, info: dict[str, int]) -> None:
        collected.append(_thread.get_ident())

    script = Script(tmp_path / "run.trace")
    limits, gc_was = gc.get_threshold(), gc.isenabled()
    gc.callbacks.append(see)
    gc.enable()
    gc.set_threshold(1)
    try:
        script.run(100)
    finally:
        gc.set_threshold(*limits)
        gc.callbacks.remove(see)
        if not gc_was:
            gc.disable()
    script.writer.close()
    assert len(set(disk.threads)) > 1
    assert set(collected) == {_thread.get_ident()}


def test_threading_knows_of_no_other_thread(tmp_path: Path, disk: Disk) -> None:
    script = Script(tmp_path / "run.trace")
    before = threading.enumerate()
    disk.stuck = True
    script.run(50)
    assert disk.waits.wait(PATIENCE_S)
    assert threading.enumerate() == before
    disk.free()
    script.writer.close()


def test_a_disk_that_is_full_in_the_end_is_said_at_the_next_write(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / "run.trace"
    writer = TraceWriter(path, Run())
    writer.event(Mark(seq=1, text="kept"))
    writer.flush()
    with pytest.MonkeyPatch.context() as patch:

        def fail(connection: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        patch.setattr(Connection, "commit", fail)
        writer.event(Mark(seq=2, text="lost"))
        writer.flush_soon()
        writer._commits.wait()
    with pytest.raises(TraceFileError, match="cannot write the trace .*: .* disk is full$"):
        writer.flush_soon()
    assert writer.closed
    assert list(read_trace(path).events) == [Mark(seq=1, text="kept")]


def test_a_commit_that_met_a_lock_is_made_later(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "run.trace"
    writer = TraceWriter(path, Run())
    with pytest.MonkeyPatch.context() as patch:

        def fail(connection: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("database is locked")

        patch.setattr(Connection, "commit", fail)
        writer.event(Mark(seq=1, text="first"))
        writer.flush_soon()
        writer._commits.wait()
        writer.event(Mark(seq=2, text="second"))
        writer.flush_soon()
        writer._commits.wait()
    writer.close()
    assert [event.seq for event in read_trace(path).events] == [1, 2]


def test_where_no_thread_can_be_made_one_waits(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(function: object, arguments: object) -> int:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr("tracer.store.commits._thread.start_new_thread", refuse)
    script = Script(tmp_path / "run.trace")
    script.run(100)
    script.writer.close()
    assert set(disk.threads) == {_thread.get_ident()}
    assert told(read_trace(tmp_path / "run.trace")) == list(whole(range(1, 101), 3))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_waits_for_the_thread_and_the_child_lets_go(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "run.trace"
    script = Script(path)
    disk.stuck = True
    script.run(50)
    assert disk.waits.wait(PATIENCE_S)
    threading.Timer(0.05, disk.free).start()
    child = os.fork()
    if not child:
        os._exit(1 if script.writer._commits.under_way else 0)
    assert os.waitpid(child, 0)[1] == 0
    script.run(50)
    script.writer.close()
    assert told(read_trace(path)) == list(whole(range(1, 101), 3))


def test_a_recording_of_the_last_passes_holds_them_on_a_slow_disk(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / "run.trace"
    script = Script(path, last=7)
    script.run(200)
    script.writer.close()
    assert len(set(disk.threads)) > 1
    assert told(read_trace(path)) == list(whole(range(194, 201), 3))


def test_a_budget_holds_on_a_slow_disk(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "run.trace"
    script = Script(path, flush_bytes=20_000, max_bytes=1_000_000)
    for _ in range(60):
        script.run(1, nodes=500)
        script.writer._commits.wait()
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 1_050_000
    script.writer.close()
    trace = read_trace(path)
    assert trace.passes[-1].id == 60
    assert trace.dropped["older passes, deleted to keep to max_bytes"] > 10
