"""Recordings that are killed, run out of disk or run for long: what is kept, and what it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capture.bounded import MODES
from tracer import load

ROOT = Path(__file__).parent.parent.parent


def run(what: str, path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tests.capture.bounded", what, str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        env={**os.environ, **env},
    )


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of traces whose processes were killed in the middle of a pass."""
    folder = tmp_path_factory.mktemp("killed")
    run("kill_half_way", folder)
    return folder


@pytest.mark.parametrize("mode", MODES)
def test_a_killed_recording_opens_and_ends_at_its_last_write(killed: Path, mode: str) -> None:
    trace = load(killed / f"{mode}.trace")
    record = trace.record
    assert not record.complete
    assert len(record.passes) > 0
    ended = [one.id for one in record.passes if one.end_ns is not None]
    told = {event.pass_id for event in record.events.select(kinds=("pass_end",))}
    assert set(ended) == told
    assert [Path(file).name for file in record.sources] == ["bounded.py"]
    assert trace.timeline(pass_id=ended[-1])
    assert trace.dot(pass_id=ended[-1])
    expected = {"every": "every=3", "last": "last", "bytes": "max_bytes", "only": "only="}
    for word in [expected[mode]] if mode in expected else []:
        assert any(word in reason for reason in record.dropped), dict(record.dropped)


def test_memory_does_not_grow_over_20_000_passes(tmp_path: Path) -> None:
    path = tmp_path / "long.trace"
    early, late = map(int, run("run_long", path).stdout.split())
    assert late - early < 3_000_000
    record = load(path).record
    assert [one.id for one in record.passes] == list(range(19_902, 20_002))
    assert len(record.leaves) < 200
    assert path.stat().st_size < 2_000_000


def test_memory_does_not_grow_over_1_600_structures(tmp_path: Path) -> None:
    path = tmp_path / "new.trace"
    early, late = map(int, run("run_ever_new", path).stdout.split())
    assert late - early < 4_000_000
    assert len(load(path).record.passes) == 20


def test_a_node_takes_300_bytes_at_most_and_a_million_64_megabytes_of_memory(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    nodes = 1_000_000 if request.config.getoption("--every-bound") else 50_000
    path = tmp_path / "run.trace"
    ran, grown = map(int, run("run_many", path, NODES=str(nodes)).stdout.split())
    assert ran >= nodes
    assert path.stat().st_size / ran < 300
    assert grown < 64_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB, which only root can make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_recording_and_not_the_program(small_disk: Path) -> None:
    check_full(run("fill_the_disk", small_disk / "full.trace"), small_disk / "full.trace")


@pytest.mark.skipif(sys.platform != "linux", reason="file sizes are limited another way here")
def test_a_limit_on_files_ends_the_recording_and_not_the_program(tmp_path: Path) -> None:
    check_full(run("outgrow_a_limit", tmp_path / "full.trace"), tmp_path / "full.trace")


def check_full(done: subprocess.CompletedProcess[str], path: Path) -> None:
    """Check one line of warning, a program that went on, and a trace that opens."""
    assert done.stdout == f"{2 * 2000 * 300 * 1.0}\nTrue\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("tracer: recording stopped (TraceFileError: cannot write the trace")
    trace = load(path)
    assert not trace.record.complete
    assert 0 < len(trace.passes) < 300
    assert trace.timeline(pass_id=trace.passes[0].id)


@pytest.fixture
def slow_disk(tmp_path: Path) -> dict[str, str]:
    """The variables that make writes to traces slow while the file that one of them names exists.

    At 20 ms for each of two writes a page, a disk takes 0.1 MB a second.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("no way to make a disk slow here")
    library = tmp_path / "slow_disk.so"
    source = Path(__file__).with_name("slow_disk.c")
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library), "SLOW_WHILE": str(tmp_path / "slow")}


def test_a_slow_disk_slows_no_program_and_takes_no_more_memory(
    tmp_path: Path, slow_disk: dict[str, str]
) -> None:
    path = tmp_path / "run.trace"
    grown, seconds = map(float, run("outrun_the_disk", path, **slow_disk).stdout.split())
    assert grown < 64_000_000
    assert seconds < 100  # a thousand to write it all
    record = load(path).record
    assert record.complete
    ((reason, dropped),) = record.dropped.items()
    assert reason == "events that came faster than the disk could take them"
    last = max(event.seq for event in record.events)
    assert len(record.events) + dropped == last
    assert len(record.passes) == 2520
