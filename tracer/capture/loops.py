"""Sites as they run come in; where the loops around each stood at its n-th run goes out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import FrameType

from tracer.capture.expressions import LoopAround
from tracer.capture.one_line import shorten
from tracer.capture.sites import SiteTable
from tracer.capture.variables import read_locals
from tracer.records.graph import Site

_MOST_KEPT = 200_000
_LONGEST_VALUE = 40

Loops = tuple[tuple[str, str], ...]
Stood = tuple[tuple[int, Loops], ...]
"""Where loops stood, outermost first, each with its line."""
Mark = object
"""What changes from one turn of a loop to the next, as far as can be told."""


@dataclass(frozen=True, slots=True)
class Stand:
    """Where one loop stands: its variables that are numbers or text, and what marks its turn.

    A loop over other things is marked by the identity of what its variables hold; nothing marks a
    `while` loop whose condition reads no number.
    """

    line: int
    values: Loops
    label: str
    mark: Mark


@dataclass(frozen=True, slots=True)
class Turn:
    """The newest run of a site: which it was in which round and frame, and for
    each loop around it its mark, its first mark, and how many turns it has made."""

    call: int
    round: int
    within: object
    marks: tuple[Mark, ...]
    firsts: tuple[Mark, ...]
    counts: tuple[int, ...]


class LoopBook:
    """Remembers, for each site and call number, where its loops stood.

    A loop stands at its variables that are numbers or text; one without such is counted from 0:
    `#2`. A call is told of once, when a site first runs so often in a round, so that a loop costs
    nothing from its second round on. What its variables held then is taken to be what they hold
    each time.
    """

    def __init__(
        self,
        sites: SiteTable,
        site_of: Callable[[int], Site | None],
        round_of: Callable[[], int],
    ) -> None:
        self._sites = sites
        self._site_of = site_of
        self._round = round_of
        self._stood: dict[tuple[int, int], Stood] = {}
        self._turns: dict[int, Turn] = {}

    def ran(self, site_id: int, call: int) -> None:
        """A site runs for the `call`-th time in a round, which it never did before."""
        site = self._site_of(site_id)
        if site is None or (site_id, call) in self._stood or len(self._stood) >= _MOST_KEPT:
            return
        loops = self._sites.loops_around(site)
        frame = self._sites.user_frame(sys._getframe()) if loops else None
        if frame is None:
            return
        variables = read_locals(frame)
        stands = [stand_of(loop, variables) for loop in loops]
        turn = self._turns[site_id] = self._turn(site_id, call, frame, stands)
        self._stood[site_id, call] = tuple(
            (stand.line, stand.values or ((stand.label, f"#{count}"),))
            for stand, count in zip(stands, turn.counts, strict=True)
        )

    def _turn(self, site_id: int, call: int, frame: FrameType, stands: Sequence[Stand]) -> Turn:
        number, back = self._round(), frame.f_back
        within = id(frame), id(back), back.f_lasti if back is not None else 0
        marks = tuple(stand.mark for stand in stands)
        last, changed = self._turns.get(site_id), -1
        if last is not None and last.call == call - 1:
            if last.round != number:  # turns before this one were told in that round
                changed = len(marks) - 1
            elif last.within == within:
                changed = _changed(last, marks)
        if last is None or changed < 0:
            return Turn(call, number, within, marks, marks, (0,) * len(marks))
        counts = (*last.counts[:changed], last.counts[changed] + 1)
        counts += (0,) * (len(marks) - len(counts))
        firsts = last.firsts[: changed + 1] + marks[changed + 1 :]
        return Turn(call, number, within, marks, firsts, counts)

    def standing(self, site: Site) -> Stood:
        """Where the loops around a site that runs now stand, of those that need not be counted."""
        loops = self._sites.loops_around(site)
        frame = self._sites.user_frame(sys._getframe()) if loops else None
        if frame is None:
            return ()
        variables = read_locals(frame)
        stands = [stand_of(loop, variables) for loop in loops]
        return tuple((stand.line, stand.values) for stand in stands if stand.values)

    def at(self, site: Site | None, call: int, under_way: Set[tuple[str, int]]) -> Loops:
        """Where the loops around a site stood at a call; not those that are still `under_way`, by
        file and line, since they stand elsewhere in the next pass."""
        if site is None:
            return ()
        return tuple(
            value
            for line, values in self._stood.get((site.id, call), ())
            if (site.file, line) not in under_way
            for value in values
        )


def stand_of(loop: LoopAround, variables: Mapping[str, object]) -> Stand:
    """Where a loop stands by its variables."""
    texts = [(name, _text(variables.get(name), loop)) for name in loop.names]
    values = tuple((name, text) for name, text in texts if text)
    if values:
        return Stand(loop.line, values, "", values)
    if loop.is_while or not loop.names:
        return Stand(loop.line, (), "", None)
    held = tuple(id(variables.get(name)) for name in loop.names)
    return Stand(loop.line, (), loop.names[0], held)


def _changed(last: Turn, marks: Sequence[Mark]) -> int:
    """The outermost loop that has made a turn since the last run; -1 if they all began anew."""
    innermost = len(marks) - 1
    changed = next((n for n, mark in enumerate(marks) if mark != last.marks[n]), None)
    if changed is None:
        return innermost
    if marks[changed] != last.firsts[changed]:
        return changed
    # it begins anew, within a turn of a loop that nothing marks
    return next((n for n in range(changed - 1, -1, -1) if marks[n] is None), -1)


def _text(value: object, loop: LoopAround) -> str:
    if loop.is_while:
        return str(value) if type(value) is int and value.bit_length() <= 64 else ""
    if type(value) is str:
        return repr(value if len(value) <= _LONGEST_VALUE else shorten(value))
    if type(value) is int and value.bit_length() > 64:
        return ""
    return str(value) if type(value) in (int, float, bool) else ""
