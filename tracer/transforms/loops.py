"""Places in source that ran more than once in; the loops they make up, turn by turn, out."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Place = tuple[str | None, int | None]  # a module's path and a site


_MOST_TRIED = 12  # loops that a place is compared with, those nearest in how often they ran


@dataclass(frozen=True, slots=True)
class Runs:
    """When one place in source ran: for each time its call number and position in forward order."""

    calls: list[int]
    starts: list[int]


@dataclass(slots=True)
class Loop:
    """Places that took turns, as in the body of a loop or a function called several times.

    `turns[place]` gives the iteration (from 0) of each time the place ran; `starts` is where each
    iteration begins in forward order; `outer` the loop that this one runs in.
    """

    id: int
    lead: Runs
    turns: dict[Place, list[int]] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    outer: Loop | None = None
    outer_turns: list[int] = field(default_factory=list)


def find_loops(places: Mapping[Place, Runs]) -> list[Loop]:
    """Find the loops among the places: those that ran about as often, and took turns.

    The place that ran most often leads; another joins when it ran at most once between two starts
    of the lead, and more than half as often. A loop with a multiple of another's iterations, all
    inside those, runs in it.
    """
    repeated = [(place, runs) for place, runs in places.items() if len(runs.starts) > 1]
    repeated.sort(key=lambda item: (-len(item[1].starts), item[1].starts[0]))
    loops: list[Loop] = []
    for place, runs in repeated:
        loop, turns = _joined(runs, loops)
        if loop is None:
            loop = Loop(len(loops), runs)
            loops.append(loop)
        loop.turns[place] = turns
    for loop in loops:
        _note_starts(loop, places)
    for number, loop in enumerate(loops):
        _note_outer(loop, loops[number + 1 :])
    return loops


def _joined(runs: Runs, loops: Sequence[Loop]) -> tuple[Loop | None, list[int]]:
    for loop in loops[: -_MOST_TRIED - 1 : -1]:
        if len(runs.starts) * 2 > len(loop.lead.starts) and _overlap(runs.starts, loop.lead.starts):
            turns = _turns_by_call(runs, loop.lead) or _turns_by_place(
                runs.starts, loop.lead.starts
            )
            if turns and all(turn < after for turn, after in pairwise(turns)):
                return loop, turns
    return None, list(range(len(runs.starts)))


def _overlap(one: Sequence[int], other: Sequence[int]) -> bool:
    return one[0] < other[-1] and other[0] < one[-1]


def _turns_by_call(runs: Runs, lead: Runs) -> list[int]:
    """Match iterations by call number, where both count the same; empty where they do not."""
    turn_of = {call: turn for turn, call in enumerate(lead.calls)}
    turns = [turn_of.get(call, -1) for call in runs.calls]
    if min(turns) < 0:
        return []
    starts = lead.starts
    before = runs.starts[0] < starts[turns[0]]
    for start, turn in zip(runs.starts, turns, strict=True):
        low = turn - 1 if before else turn
        high = low + 1
        if (low >= 0 and start <= starts[low]) or (high < len(starts) and start >= starts[high]):
            return []
    return turns


def _turns_by_place(starts: Sequence[int], lead: Sequence[int]) -> list[int]:
    """Match iterations by position: between which two starts of the lead each one falls."""
    if starts[0] < lead[0]:
        return [bisect_left(lead, start) for start in starts]
    return [bisect_right(lead, start) - 1 for start in starts]


def _note_starts(loop: Loop, places: Mapping[Place, Runs]) -> None:
    count = 1 + max(turns[-1] for turns in loop.turns.values())
    starts = [-1] * count
    for place, turns in loop.turns.items():
        for turn, start in zip(turns, places[place].starts, strict=True):
            if starts[turn] < 0 or start < starts[turn]:
                starts[turn] = start
    loop.starts = starts


def _note_outer(loop: Loop, rarer: Sequence[Loop]) -> None:
    for other in rarer:
        if len(other.starts) * 2 <= len(loop.starts) and _overlap(loop.starts, other.starts):
            turns = _turns_by_place(loop.starts, other.starts)
            if len(set(turns)) >= len(other.starts) - 1 and max(turns) < len(other.starts):
                loop.outer, loop.outer_turns = other, turns
                return
