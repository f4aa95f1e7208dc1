"""A long run pass by pass: what repeats is told once, in stretches, with the range of norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.builders import sgd
from tests.records.test_picking import marked
from tracer.records import Dropped, EventList, Outcome, Site, TraceRecord
from tracer.records.events import Pass
from tracer.render.pass_lines import pass_lines
from tracer.render.stretches import Once, Part, Repeat, fold_run

OTHER = Site(77, "gan.py", 20, expression="generator_loss.backward()")


def told(trace: TraceRecord) -> list[str]:
    """The lines below the head, each run of spaces made one."""
    return [" ".join(line.split()) for line in pass_lines(trace, width=110, color=False)][2:]


def shape(parts: Sequence[Part]) -> list[object]:
    """The ids of passes, marks' texts, and `(times, parts)` of what repeats."""
    return [
        (part.times, shape(part.parts)) if isinstance(part, Repeat) else named(part)
        for part in parts
    ]


def named(part: Once) -> object:
    """What stands in `shape` for a pass or mark."""
    return part.item.id if isinstance(part.item, Pass) else part.item.text


def alternating(count: int) -> TraceRecord:
    """Passes of two calls by turns, as a GAN's."""
    trace = sgd(count)
    passes = [
        replace(record, site=OTHER if record.id % 2 == 0 else record.site)
        for record in trace.passes
    ]
    return replace(trace, passes=tuple(passes))


def test_equal_passes_are_one_repeat() -> None:
    assert shape(fold_run(sgd(200).passes)) == [(200, [1])]


def test_passes_by_turns_are_one_repeat_of_both() -> None:
    assert shape(fold_run(alternating(101).passes)) == [(50, [1, 2]), 101]


def test_two_of_a_kind_are_not_folded() -> None:
    assert shape(fold_run(sgd(2).passes)) == [1, 2]


def test_epochs_fold_with_the_passes_in_them() -> None:
    trace = marked(*(f"epoch {number}" for number in range(1, 5)))
    marks = [event for event in trace.events if event.kind == "mark"]
    assert shape(fold_run(trace.passes, marks)) == [(4, ["epoch 1", 1])]
    third = [mark for mark in marks if mark.text in ("epoch 1", "epoch 2")]
    assert shape(fold_run(sgd(9).passes, third)) == ["epoch 1", 1, "epoch 2", (8, [2])]


def test_a_pass_that_fails_stands_alone() -> None:
    trace = sgd(9)
    failed = replace(trace.passes[4], outcome=Outcome("RuntimeError", "no"))
    passes = (*trace.passes[:4], failed, *trace.passes[5:])
    assert shape(fold_run(passes)) == [(4, [1]), 5, (4, [6])]
    lines = told(replace(trace, passes=passes))
    assert [line.split()[0] for line in lines] == ["1", "2–4", "5", "6", "7–9"]
    assert "raised RuntimeError" in lines[2]


def test_passes_by_turns_are_told_apart() -> None:
    lines = told(alternating(20))
    assert [line.split(":")[0] for line in lines[:4]] == [
        "1 loss.backward() ",
        "2 generator_loss.backward() gan.py",
        "3–9 4 passes like pass 1 ",
        "4–10 4 passes like pass 2 gan.py",
    ]


def test_epochs_are_headings_and_those_alike_share_one() -> None:
    lines = told(marked(*(f"epoch {number}" for number in range(1, 8))))
    assert [line if line.startswith("──") else line.split()[0] for line in lines] == [
        "── epoch 1 ──", "1", "── epoch 2 … epoch 5 ──", "2–5", "── epoch 6 … epoch 7 ──", "6–7",
    ]  # fmt: skip


def test_what_was_left_out_is_told_where_it_was() -> None:
    trace = sgd(20)
    begin = next(event for event in trace.events if event.pass_id == 8)
    events = [event for event in trace.events if event.seq < begin.seq]
    events.append(Dropped(seq=begin.seq, count=3, reason="passes over budget"))
    events += [
        replace(event, seq=event.seq + 1) for event in trace.events if event.seq >= begin.seq
    ]
    lines = told(replace(trace, events=EventList(tuple(events))))
    assert [line.split()[0] for line in lines] == ["1", "2–5", "6", "not", "7–10", "11–20"]
    assert lines[3] == "not recorded: 3 passes over budget"


def test_a_gradient_that_is_not_finite_is_counted() -> None:
    trace = sgd(12)
    broken = [
        replace(event, after=replace(event.after, nans=1))
        if event.kind == "accumulate" and event.pass_id in (7, 8)
        else event
        for event in trace.events
    ]
    lines = told(replace(trace, events=EventList(tuple(broken))))
    assert ["NaN or Inf in 2 passes" in line for line in lines] == [False, False, True, False]


@pytest.mark.parametrize("count", [1, 3, 13, 57])
def test_every_pass_is_told_once(count: int) -> None:
    numbers: list[int] = []
    for line in told(sgd(count)):
        first, _, last = line.split()[0].partition("–")
        numbers += range(int(first), int(last or first) + 1)
    assert numbers == list(range(1, count + 1))
