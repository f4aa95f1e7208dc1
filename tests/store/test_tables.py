"""Passes and leaves of a trace that are read when asked for: they are like a list and a dict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.recordings import F32, GRAPH, SITES, recorded
from tracer.errors import NotInTraceError, TraceFileError
from tracer.records import Leaf, Outcome, Pass, Run, TraceRecord
from tracer.records.limits import limits
from tracer.records.passes import PassSort, find_pass, position_of, sorts_of
from tracer.records.trace import names_of_leaves
from tracer.store import TraceWriter, read_trace, read_writer


def passes(*numbers: int) -> list[Pass]:
    """Return passes with these numbers."""
    return [Pass(number, 1, begin_ns=number, end_ns=3 * number) for number in numbers]


@pytest.mark.parametrize("numbers", [range(1, 1301), range(1, 4000, 3), [7], []], ids=len)
def test_passes_are_a_sequence(numbers: list[int]) -> None:
    whole = passes(*numbers)
    read = recorded(GRAPH, *whole).passes
    assert len(read) == len(whole)
    assert list(read) == whole
    assert read == whole
    assert whole == read
    assert read[5:700:7] == whole[5:700:7]
    assert [read[i] for i in (0, -1) if whole] == [whole[i] for i in (0, -1) if whole]
    for position in (len(whole), -len(whole) - 1):
        with pytest.raises(IndexError):
            read[position]
    for run in whole[:: max(len(whole) // 10, 1)]:
        assert position_of(read, run.id) == whole.index(run)
    assert position_of(read, 5000) is None


def test_a_pass_that_is_missing_is_named_with_those_that_are_there() -> None:
    trace = recorded(GRAPH, *passes(1, 4, 7))
    assert find_pass(trace, 4).id == 4
    with pytest.raises(
        NotInTraceError, match="pass 5 .*: it has 3 passes 1 to 7, without this one"
    ):
        find_pass(trace, 5)
    with pytest.raises(NotInTraceError, match="pass 9 .*: it has passes 1 to 7$"):
        find_pass(trace, 9)


def test_sorts_of_passes_are_the_same_read_or_held() -> None:
    whole = passes(*range(1, 1000))
    whole[10:20] = [replace(one, site=SITES[0]) for one in whole[10:20]]
    whole[40] = replace(whole[40], outcome=Outcome("ValueError", "no", 2))
    whole[50] = replace(whole[50], end_ns=None)
    whole[60] = replace(whole[60], parent=60)
    whole[70] = replace(whole[70], inputs=("x",))
    read = recorded(GRAPH, *whole).passes
    sorts = sorts_of(whole)
    assert [(one.first.id, one.last.id, one.count) for one in sorts] == [
        (1, 999, 985), (11, 20, 10), (41, 41, 1), (51, 51, 1), (61, 61, 1), (71, 71, 1),
    ]  # fmt: skip
    assert sorts_of(read) == sorts
    assert sorts[1] == PassSort(whole[10], whole[19], 10, 31)
    assert sorts[3].mean_ns is None
    assert sorts_of(recorded().passes) == []


def test_leaves_are_a_mapping() -> None:
    whole = {number: Leaf(number, f"leaf {number}", F32) for number in range(2, 3000, 2)}
    read = recorded(*whole.values()).leaves
    assert dict(read) == whole
    assert len(read) == len(whole)
    assert list(read)[:3] == [2, 4, 6]
    assert (read.get(3), read[4].name, 5 in read, "4" in read) == (None, "leaf 4", False, False)


def test_a_leaf_has_the_same_name_read_or_held() -> None:
    whole = {number: Leaf(number, f"leaf {number}", F32) for number in range(2, 1500, 2)}
    read, held = (names_of_leaves(leaves) for leaves in (recorded(*whole.values()).leaves, whole))
    numbers = [2, 3, 1498, 1499, 10**6, 4]
    assert [*map(read, numbers)] == [*map(held, numbers)]
    assert [*map(held, numbers)] == ["leaf 2", "", "leaf 1498", "", "", "leaf 4"]


def test_what_has_left_the_file_since_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    writer = TraceWriter(path, Run(), limits=limits(last=2))
    writer.put(GRAPH)
    for run in passes(1, 2):
        writer.put(run)
    writer.flush()
    early = read_trace(path)
    for run in passes(3, 4):
        writer.put(run)
    writer.flush()
    with pytest.raises(TraceFileError, match="pass 1 has left the file.*open it again"):
        early.passes[0]
    assert [one.id for one in read_writer(writer).passes] == [3, 4]
    writer.close()


def test_a_trace_with_nothing_in_it_has_nothing() -> None:
    trace = recorded()
    assert (len(trace.passes), len(trace.leaves), trace.events.last_seq) == (0, 0, 0)
    assert TraceRecord().events.last_seq == 0
