"""Opening: what is no trace is refused in one line, and a stranger's trace runs nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import builders
from tests.store.recordings import GRAPH, files_beside, write
from tests.store.test_reader import write_record
from tracer.errors import TraceFileError
from tracer.records import Mark, Run
from tracer.store import TraceWriter, read_trace
from tracer.store.schema import SCHEMA_VERSION

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A closed trace with a graph and one event."""
    return write(tmp_path / "run.trace", GRAPH, Mark(seq=1, text="here"))


def change(path: Path, *statements: str) -> None:
    """Run SQL on a file."""
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.executescript(statement)
    connection.close()


def refusal(path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(TraceFileError) as caught:
        read_trace(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what is no trace


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    hint = "record one with `tracer run script.py`"
    assert refusal(path) == f"there is no file {path}: {hint}"
    assert files_beside(path) == []


def test_a_folder_is_no_trace(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"cannot read {tmp_path}: Is a directory"


@pytest.mark.parametrize("content", [b"", b"import torch\n", b"SQLite format 3\0", bytes(4096)])
def test_another_file_is_no_trace(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.py"
    path.write_bytes(content)
    hint = "record one with `tracer run script.py`"
    assert refusal(path) == f"{path} is not a trace: {hint}"


def test_another_programs_database_is_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    change(path, "CREATE TABLE trace (id)")
    assert "is not a trace" in refusal(path)


def test_a_newer_trace_says_what_to_upgrade(trace: Path) -> None:
    change(trace, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    assert refusal(trace) == (
        f"{trace} was written by a newer tracer (file format 2, this one reads up to 1): "
        "upgrade autograd-tracer"
    )


# ---- a stranger's trace


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER boom AFTER INSERT ON trace BEGIN SELECT 1; END",
        "CREATE VIEW harmless AS SELECT 1",
        "DROP TABLE hook; CREATE VIEW hook AS SELECT 1 AS id",
        "DROP TABLE hook; CREATE TABLE hook (id, text AS (hex(id)))",
        "DROP TABLE hook; CREATE VIRTUAL TABLE hook USING fts5(id)",
    ],
)
def test_a_trace_that_could_run_something_is_refused(trace: Path, statement: str) -> None:
    change(trace, statement)
    assert refusal(trace).startswith(f"{trace} is not a trace: it holds triggers, views or")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DROP TABLE hook", "no table hook"),
        ("PRAGMA user_version = 0", "no version"),
        ("ALTER TABLE pass DROP COLUMN seeds", "no such column: seeds"),
        ("DELETE FROM trace", "it does not say what ran"),
        ("UPDATE trace SET argv = '[1]'", "a list of strings holds something else"),
    ],
)
def test_a_trace_that_lacks_something_is_damaged(trace: Path, statement: str, reason: str) -> None:
    change(trace, statement)
    assert refusal(trace) == f"{trace} is damaged: {reason}"


def test_a_chunk_too_large_for_any_trace_is_not_read(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer.store.log._MOST_BYTES", 10)
    with pytest.raises(TraceFileError, match="chunk 1 has no sound length"):
        list(read_trace(trace).events)


def test_a_trace_cut_short_is_damaged(trace: Path) -> None:
    whole = trace.read_bytes()
    trace.write_bytes(whole[: len(whole) // 2])
    assert refusal(trace).startswith(f"{trace} is damaged: ")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a trace with every table filled."""
    path = tmp_path_factory.mktemp("example") / "run.trace"
    write_record(path, builders.hooks())
    return path.read_bytes()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1))
def test_no_bytes_make_reading_fail_in_another_way(
    example: bytes, tmp_path: Path, changes: list[tuple[float, int]]
) -> None:
    spoiled = bytearray(example)
    for place, value in changes:
        spoiled[int(place * len(spoiled))] = value
    path = tmp_path / "spoiled.trace"
    path.write_bytes(spoiled)
    with suppress(TraceFileError):
        trace = read_trace(path)
        assert len(list(trace.events)) <= len(spoiled)
        assert len(list(trace.graphs.values())) <= len(spoiled)
        assert len(list(trace.sources.items())) <= len(spoiled)


# ---- places where nothing can be written


READS = """
import os, sys
import urllib.parse  # pathlib imports it late, when Python itself may be out of reach
from tracer.store import read_trace
if os.geteuid() == 0:
    os.setuid(65534)
trace = read_trace(sys.argv[1])
print(trace.complete, [event.text for event in trace.events])
"""


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that any user can read and only root can write to."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    folder.chmod(stat.S_IRWXU)
    shutil.rmtree(folder)


def read_where_nothing_can_be_written(path: Path) -> str:
    """What a process sees that can't write to the folder."""
    for file in path.parent.iterdir():
        file.chmod(0o444)
    path.parent.chmod(0o555)
    ended = subprocess.run(
        [sys.executable, "-c", READS, str(path)], cwd=ROOT, check=True, capture_output=True,
        text=True, env={**os.environ, "TMPDIR": tempfile.gettempdir()},
    )  # fmt: skip
    return ended.stdout


def test_a_closed_trace_is_read_in_a_read_only_place(read_only: Path) -> None:
    path = write(read_only / "run.trace", Mark(seq=1, text="here"))
    assert read_where_nothing_can_be_written(path) == "True ['here']\n"


@pytest.mark.parametrize("beside", [("-wal", "-shm"), ("-wal",), ()], ids=str)
def test_a_trace_whose_process_died_is_read_in_a_read_only_place(
    read_only: Path, tmp_path: Path, beside: tuple[str, ...]
) -> None:
    writer = TraceWriter(tmp_path / "run.trace", Run())
    writer.event(Mark(seq=1, text="here"))
    writer.flush()
    for suffix in ("", *beside):
        shutil.copy(tmp_path / f"run.trace{suffix}", read_only / f"run.trace{suffix}")
    seen = read_where_nothing_can_be_written(read_only / "run.trace")
    assert seen == ("False ['here']\n" if beside else "False []\n")


def test_a_name_with_signs_that_mean_something_in_an_address_is_only_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "50% of?mode=memory#1 名.trace", Mark(seq=1, text="here"))
    assert list(read_trace(path).events) == [Mark(seq=1, text="here")]
    assert files_beside(path) == [path.name]
