"""The table of a timeline: a row for each tensor of each event, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

from tests.builders import hooks, no_grad, vector_jacobian
from tracer.records import EventList, Mark, TraceRecord
from tracer.records.picking import Selection
from tracer.render.csv_rows import HEADER, timeline_csv


def table(trace: TraceRecord, **asked: object) -> list[dict[str, str]]:
    """The rows as Python's own reader gives them."""
    return list(csv.DictReader(timeline_csv(trace, selection=Selection(**asked))))


def test_each_tensor_has_a_row_with_its_role_and_statistics() -> None:
    rows = table(vector_jacobian(), kinds="node", names="x1")
    assert [(row["name"], row["text"], row["role"], row["slot"]) for row in rows] == [
        ("MulBackward0", "x1 = m1 * m2", "received", "0"),
        ("MulBackward0", "x1 = m1 * m2", "returned", "0"),
        ("MulBackward0", "x1 = m1 * m2", "returned", "1"),
    ]
    assert [row["mean"] for row in rows] == ["5.0", "10.0", "5.0"]
    assert json.loads(rows[0]["values"]) == [5.0] * 6
    assert json.loads(rows[0]["shape"]) == [3, 2]


def test_every_event_has_a_row_and_every_row_all_columns() -> None:
    trace = no_grad()
    rows = table(trace)
    assert list(rows[0]) == list(HEADER)
    assert {int(row["seq"]) for row in rows} == {event.seq for event in trace.events}
    assert not [row for row in rows if None in row or None in row.values()]


def test_a_hook_is_named_by_its_source_and_what_it_is_on() -> None:
    first = table(hooks(), kinds="hook")[0]
    assert (first["name"], first["text"], first["line"]) == ("v", "grad * grad", "5")


def test_what_a_spreadsheet_would_run_is_text() -> None:
    trace = hooks()
    for name in ("=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1"):
        leaf = replace(trace.leaves[1], name=name)
        rows = table(replace(trace, leaves={1: leaf}), kinds="accumulate")
        assert {row["name"] for row in rows} == {f"'{name}"}


def test_numbers_below_zero_stay_numbers() -> None:
    rows = table(no_grad(), kinds="node")
    assert any(row["min"].startswith("-") for row in rows)


def test_a_text_of_several_lines_is_one_cell() -> None:
    trace = replace(hooks(), events=EventList((Mark(seq=1, text='a "quoted"\n, line'),)))
    assert table(trace)[0]["text"] == 'a "quoted" , line'
