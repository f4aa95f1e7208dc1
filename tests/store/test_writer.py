"""Recording: what is flushed survives, what is closed is one file, what fails says so."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.recordings import (
    F32,
    GRAPH,
    HOOKS,
    LEAF,
    SITES,
    files_beside,
    node_frame,
    statistics,
    write,
)
from tracer.errors import TraceFileError
from tracer.records import (
    GradWrite,
    HookAdded,
    Leaf,
    Mark,
    Pass,
    PassBegin,
    PassEnd,
    Run,
    Site,
)
from tracer.store import TraceWriter, read_trace, read_writer

ROOT = Path(__file__).parent.parent.parent
DIES = """
import os, signal, sys
from tests.store.recordings import GRAPH, SITES
from tracer.records import Mark, Pass, PassBegin, Run
from tracer.store import TraceWriter

writer = TraceWriter(sys.argv[1], Run(script="dies.py"))
writer.put(GRAPH)
writer.put(Pass(1, 1, site=SITES[0], begin_ns=5))
writer.event(PassBegin(seq=1, pass_id=1))
writer.event(Mark(seq=2, pass_id=1, text="flushed"))
writer.flush()
writer.event(Mark(seq=3, pass_id=1, text="not flushed"))
{death}
"""


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


# ---- closing


def test_a_closed_trace_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    writer = TraceWriter(path, Run())
    writer.event(Mark(seq=1, text="here"))
    writer.flush()
    assert files_beside(path) == ["run.trace", "run.trace-shm", "run.trace-wal"]
    writer.close("stopped")
    assert files_beside(path) == ["run.trace"]
    trace = read_trace(path)
    assert (trace.complete, trace.run.outcome) == (True, "stopped")
    assert list(trace.events) == [Mark(seq=1, text="here")]
    assert files_beside(path) == ["run.trace"]


def test_closing_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    writer = TraceWriter(path, Run())
    writer.close()
    before = path.read_bytes()
    writer.event(Mark(seq=1, text="too late"))
    writer.flush()
    writer.close("again")
    assert path.read_bytes() == before


def test_a_trace_that_is_being_read_can_be_closed(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    writer = TraceWriter(path, Run())
    writer.event(Mark(seq=1, text="first"))
    writer.flush()
    early = read_trace(path)
    events = early.events.select()
    writer.event(Mark(seq=2, text="second"))
    writer.close()
    assert not early.complete
    assert [event.seq for event in events] == [1, 2]
    assert read_trace(path).complete
    assert [event.seq for event in read_trace(path).events] == [1, 2]


def test_a_trace_without_a_file_is_read_while_it_grows_and_after() -> None:
    writer = TraceWriter(None, Run(script="train.py"))
    writer.event(Mark(seq=1, text="first"))
    early = read_writer(writer)
    assert (len(early.events), early.complete) == (1, False)
    writer.event(Mark(seq=2, text="second"))
    writer.close()
    late = read_writer(writer)
    assert (len(late.events), late.complete, late.run.script) == (2, True, "train.py")
    assert list(early.events) == list(late.events)


# ---- dying


@pytest.mark.parametrize(
    "death", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)"], ids=["kill", "exit"]
)
def test_a_process_that_dies_leaves_what_it_had_flushed(tmp_path: Path, death: str) -> None:
    path = tmp_path / "dies.trace"
    ended = subprocess.run(
        [sys.executable, "-c", DIES.format(death=death), str(path)], cwd=ROOT, check=False
    )
    assert ended.returncode in (-signal.SIGKILL, 3)
    for _ in range(2):  # reading it changes nothing
        trace = read_trace(path)
        assert list(trace.events) == [
            PassBegin(seq=1, pass_id=1),
            Mark(seq=2, pass_id=1, text="flushed"),
        ]
        assert trace.passes == [Pass(1, 1, site=SITES[0], begin_ns=5)]
        assert dict(trace.graphs) == {1: GRAPH}
        assert (trace.complete, trace.run) == (False, Run(script="dies.py"))


def test_a_new_trace_takes_the_place_of_one_whose_process_died(tmp_path: Path) -> None:
    path = tmp_path / "dies.trace"
    subprocess.run(
        [sys.executable, "-c", DIES.format(death="os._exit(0)"), str(path)], cwd=ROOT, check=True
    )
    assert files_beside(path) == ["dies.trace", "dies.trace-shm", "dies.trace-wal"]
    write(path, Mark(seq=1, text="new"))
    assert files_beside(path) == ["dies.trace"]
    assert list(read_trace(path).events) == [Mark(seq=1, text="new")]


def test_a_forked_child_leaves_the_trace_to_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    writer = TraceWriter(path, Run())
    writer.event(Mark(seq=1, text="parent's"))
    child = os.fork()
    if child == 0:
        writer.event(Mark(seq=2, text="child's"))
        writer.flush()
        writer.close("child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    writer.close()
    assert list(read_trace(path).events) == [Mark(seq=1, text="parent's")]
    assert read_trace(path).run.outcome == ""


# ---- failing


def fill_up(writer: TraceWriter) -> None:
    """Let the database grow no further, as on a full disk."""
    pages = writer.connection.execute("PRAGMA page_count").fetchone()[0]
    writer.connection.execute(f"PRAGMA max_page_count = {pages + 3}")


def test_a_full_disk_ends_the_recording_and_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    writer = TraceWriter(path, Run())
    writer.event(Mark(seq=1, text="kept"))
    writer.flush()
    fill_up(writer)
    writer.event(Mark(seq=2, text="x" * 100_000))
    with pytest.raises(TraceFileError, match=rf"^cannot write the trace {path}: .*full$"):
        writer.flush()
    assert writer.closed
    writer.event(Mark(seq=3, text="late"))
    writer.flush()
    writer.close()
    assert files_beside(path) == ["run.trace"]
    assert list(read_trace(path).events) == [Mark(seq=1, text="kept")]
    assert not read_trace(path).complete


def test_a_full_disk_ends_a_recording_without_a_file_too() -> None:
    writer = TraceWriter(None, Run())
    writer.event(Mark(seq=1, text="kept"))
    writer.flush()
    fill_up(writer)
    writer.event(Mark(seq=2, text="x" * 100_000))
    with pytest.raises(TraceFileError, match="full"):
        writer.close()
    assert list(read_writer(writer).events) == [Mark(seq=1, text="kept")]


def test_an_interrupted_flush_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TraceWriter(None, Run())
    writer.put(replace(LEAF, name="w"))
    writer.event(Mark(seq=1, text="here", site=SITES[0]))
    with monkeypatch.context() as patch:

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("tracer.store.rows.site_row", interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.flush()
    trace = read_writer(writer)
    assert list(trace.events) == [Mark(seq=1, text="here", site=SITES[0])]
    assert dict(trace.leaves) == {1: LEAF}


# ---- where a trace may go


def test_a_trace_is_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "run.trace", Mark(seq=1, text="old"))
    write(path, Mark(seq=1, text="new"))
    assert list(read_trace(path).events) == [Mark(seq=1, text="new")]


def test_an_empty_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    path.touch()
    write(path, Mark(seq=1, text="new"))
    assert list(read_trace(path).events) == [Mark(seq=1, text="new")]


def other_database(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE trace (id)")
    connection.close()
    return path.read_bytes()


def test_a_file_that_is_no_trace_is_never_replaced(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work")
    database = tmp_path / "other.db"
    content = other_database(database)
    for path in (thesis, database):
        with pytest.raises(TraceFileError, match="exists and is not a trace: choose another name"):
            TraceWriter(path, Run())
    assert thesis.read_text() == "years of work"
    assert database.read_bytes() == content
    assert files_beside(thesis) == ["other.db", "thesis.txt"]


def test_a_trace_stays_when_a_new_one_cannot_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "run.trace", Mark(seq=1, text="old"))
    monkeypatch.setattr("tracer.store.files.DDL", "CREATE TABLE nonsense")
    with pytest.raises(TraceFileError, match="cannot write the trace"):
        TraceWriter(path, Run())
    assert files_beside(path) == ["run.trace"]
    assert list(read_trace(path).events) == [Mark(seq=1, text="old")]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("missing/run.trace", "No such file or directory"),
        ("file/run.trace", "Not a directory"),
        (".", "choose another name"),
    ],
)
def test_a_place_where_no_file_can_be_is_named(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TraceFileError, match=reason):
        TraceWriter(tmp_path / place, Run())


def test_a_link_keeps_pointing_at_the_trace(tmp_path: Path) -> None:
    link = tmp_path / "latest.trace"
    link.symlink_to("run.trace")
    write(link, Mark(seq=1, text="here"))
    assert files_beside(link) == ["latest.trace", "run.trace"]
    assert link.is_symlink()
    assert list(read_trace(tmp_path / "run.trace").events) == [Mark(seq=1, text="here")]


# ---- what is stored, and when


def test_a_flush_is_due_after_enough_bytes() -> None:
    writer = TraceWriter(None, Run(), flush_bytes=1000, clock=Clock())
    writer.event(Mark(seq=1, text="x" * 900))
    assert not writer.due()
    writer.event(Mark(seq=2, text="x" * 100))
    assert writer.due()
    writer.flush()
    assert not writer.due()


def test_a_large_graph_makes_a_flush_due() -> None:
    writer = TraceWriter(None, Run(), flush_bytes=500, clock=Clock())
    writer.put(LEAF)
    assert not writer.due()
    writer.put(GRAPH)
    assert writer.due()


def test_a_flush_is_due_after_enough_time_if_something_waits() -> None:
    clock = Clock()
    writer = TraceWriter(None, Run(), flush_ns=100, clock=clock)
    clock.now = 500
    assert not writer.due()
    writer.event(Mark(seq=1, text="here"))
    assert writer.due()
    writer.flush()
    writer.event(Mark(seq=2, text="here"))
    clock.now = 599
    assert not writer.due()
    clock.now = 600
    assert writer.due()


def test_equal_texts_and_metadata_have_one_id() -> None:
    writer = TraceWriter(None, Run())
    assert [writer.string(text) for text in ("", "a", "b", "a")] == [0, 1, 2, 1]
    assert [writer.meta(meta) for meta in (F32, replace(F32, shape=(9,)), F32)] == [1, 2, 1]
    assert read_writer(writer).complete is False
    rows = writer.connection.execute("SELECT id, text FROM string").fetchall()
    assert rows == [(1, "a"), (2, "b")]


def test_a_record_put_again_takes_the_place_of_the_first() -> None:
    writer = TraceWriter(None, Run())
    begun = Pass(1, 1, site=SITES[0], begin_ns=5)
    writer.put(begun)
    writer.put(Leaf(1, "", F32))
    assert read_writer(writer).passes == [begun]
    ended = replace(begun, end_ns=9, node_count=3)
    named = Leaf(1, "w", F32)
    writer.put(ended)
    writer.put(named)
    trace = read_writer(writer)
    assert (trace.passes, dict(trace.leaves)) == ([ended], {1: named})


def test_a_site_that_became_known_better_replaces_what_was_stored() -> None:
    writer = TraceWriter(None, Run())
    writer.event(GradWrite(seq=1, leaf=1, how="zero_", site=Site(1, "a.py", 3)))
    writer.flush()
    better = Site(1, "a.py", 3, expression="w.grad.zero_()")
    writer.event(GradWrite(seq=2, leaf=1, how="zero_", site=better))
    assert [event.site for event in read_writer(writer).events] == [better, better]  # type: ignore[attr-defined]


def test_sites_are_numbered_from_one() -> None:
    writer = TraceWriter(None, Run())
    with pytest.raises(ValueError, match="count from 1"):
        writer.event(Mark(seq=1, text="here", site=Site(0, "a.py", 3)))


def test_text_that_utf8_cannot_hold_is_stored_with_escapes() -> None:
    writer = TraceWriter(None, Run(script="caf\udce9.py", argv=("caf\udce9",)))
    writer.source("caf\udce9.py", "名 = '\udce9'")
    writer.event(Mark(seq=1, text="here", site=Site(1, "caf\udce9.py", 3, targets=("\udce9",))))
    trace = read_writer(writer)
    (mark,) = trace.events
    assert isinstance(mark, Mark)
    assert mark.site == Site(1, "caf\\udce9.py", 3, targets=("\udce9",))
    assert dict(trace.sources) == {"caf\\udce9.py": "名 = '\\udce9'"}
    assert (trace.run.script, trace.run.argv) == ("caf\\udce9.py", ("caf\udce9",))


def test_what_was_dropped_adds_up() -> None:
    writer = TraceWriter(None, Run())
    writer.dropped("unreadable source: b.py")
    writer.dropped("budget", 5)
    writer.flush()
    writer.dropped("budget", 2)
    assert read_writer(writer).dropped == {"budget": 7, "unreadable source: b.py": 1}


def test_frames_and_events_from_several_threads_are_kept() -> None:
    writer = TraceWriter(None, Run(), flush_bytes=200)
    lock = threading.Lock()

    def work(first: int) -> None:
        for seq in range(first, first + 50):
            with lock:
                writer.event(HookAdded(seq=seq, hook=HOOKS[1]))
                if writer.due():
                    writer.flush()

    threads = [threading.Thread(target=work, args=(first,)) for first in (1, 51, 101)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.seq for event in read_writer(writer).events] == list(range(1, 151))


def test_the_chunk_index_covers_what_the_frames_hold() -> None:
    writer = TraceWriter(None, Run())
    writer.event(PassEnd(seq=9, pass_id=3))
    writer.append(
        node_frame(4, 0, pass_id=2, received=[], returned=[statistics(1.0)])
        + node_frame(6, 0, pass_id=5, received=[], returned=[])
    )
    writer.event(Mark(seq=12, text="outside"))
    writer.flush()
    writer.event(Mark(seq=13, text="outside"))
    writer.flush()
    columns = "id, first_seq, last_seq, first_pass, last_pass, count, kinds"
    assert writer.connection.execute(f"SELECT {columns} FROM chunk").fetchall() == [
        (1, 4, 12, 2, 5, 4, 1 << 6 | 1 << 7 | 1 << 15),
        (2, 13, 13, 0, 0, 1, 1 << 15),
    ]
