"""The passes and marks of a run in; out, the same with what repeats told once and counted."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from tracer.records.events import Mark, Pass
from tracer.records.trace import TraceRecord

Item = Pass | Mark

_LONGEST_CYCLE = 8
_FEWEST_TIMES = 3
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Repeat:
    """Parts that come `times` in a row, in the same order; `parts` are those of the first time."""

    parts: tuple[Part, ...]
    times: int
    key: Hashable


@dataclass(frozen=True, slots=True)
class Once:
    """A pass or a mark that stands alone."""

    item: Item
    key: Hashable


Part = Repeat | Once


def fold_run(passes: Sequence[Pass], marks: Sequence[Mark] = ()) -> tuple[Part, ...]:
    """Fold a run's passes, and the marks between them, twice: steps within epochs, then epochs.

    Passes are alike that have the same graph, call, kind and outcome; marks, when their texts
    differ in numbers only.
    """
    return _fold(_fold([_once(item) for item in _in_order(passes, marks)]))


def marks_of(trace: TraceRecord) -> list[Mark]:
    """The marks of a trace, in order."""
    return [event for event in trace.events.select(kinds=(Mark.kind,)) if isinstance(event, Mark)]


def marks_in(part: Part) -> int:
    """How many marks a part stands for."""
    if isinstance(part, Once):
        return int(isinstance(part.item, Mark))
    return part.times * sum(map(marks_in, part.parts))


def places_in(parts: Sequence[Part]) -> Iterator[int]:
    """For each pass in order, the number of the one in the first round that it is like."""
    for part in parts:
        if isinstance(part, Repeat):
            yield from list(places_in(part.parts)) * part.times
        elif isinstance(part.item, Pass):
            yield part.item.id


def _in_order(passes: Sequence[Pass], marks: Sequence[Mark]) -> Iterator[Item]:
    place = 0
    for record in passes:
        while place < len(marks) and marks[place].t_ns <= record.begin_ns:
            yield marks[place]
            place += 1
        yield record
    yield from marks[place:]


def likeness(item: Item) -> Hashable:
    """What two passes, or two marks, have in common that are alike."""
    if isinstance(item, Mark):
        return _DIGITS.sub("#", item.text)
    site = item.site.id if item.site is not None else 0
    outcome = item.outcome.error, item.outcome.node, item.end_ns is None
    return item.graph, site, item.kind, item.parent is None, outcome


def _once(item: Item) -> Once:
    return Once(item, likeness(item))


def _fold(parts: Sequence[Part]) -> tuple[Part, ...]:
    folded: list[Part] = []
    place = 0
    while place < len(parts):
        length, times = _cycle_at(parts, place)
        first = tuple(parts[place : place + length])
        if times > 1:
            folded.append(Repeat(first, times, (times, *(part.key for part in first))))
        else:
            folded += first
        place += length * times
    return tuple(folded)


def _cycle_at(parts: Sequence[Part], start: int) -> tuple[int, int]:
    """Length and times of the cycle from `start` on that covers most, the shortest of equals."""
    best = 1, 1
    for length in range(1, _LONGEST_CYCLE + 1):
        times = _times(parts, start, length)
        if times >= _FEWEST_TIMES and length * times > best[0] * best[1]:
            best = length, times
    return best


def _times(parts: Sequence[Part], start: int, length: int) -> int:
    end = start + length
    while end < len(parts) and parts[end].key == parts[end - length].key:
        end += 1
    return max((end - start) // length, 1)
