"""Which engine runs are recorded where only every N-th is; the watchers rest through the others."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracer.capture.session import Session


class Skipped:
    """Stands for a run that is not recorded."""


SKIPPED = Skipped()
_MOST_PLACES = 4_096
_LINES = 2


@dataclass(slots=True, eq=False)
class _Place:
    """A place in the program that passes start from, and when they do.

    `last` is the number of the last of them among all outermost passes, `gap` how long before it
    the one before was, 0 where there was none, and `slack` how much sooner or later than that the
    next may come.
    """

    begun: int = 0
    last: int = 0
    gap: int = 0
    slack: int = 0

    def begins(self, number: int) -> None:
        """A pass starts here, which is of that number."""
        if self.begun:
            gap = number - self.last
            self.slack = max(abs(gap - self.gap), gap // 8)
            self.gap = gap
        self.begun += 1
        self.last = number

    def may_be(self, number: int, every: int) -> bool:
        """Whether the pass of that number may well be the next one from here."""
        if not self.gap:
            return number - self.last <= every
        return abs(number - self.last - self.gap) <= self.slack


class Rounds:
    """Counts the outermost passes; those in them, in hooks, go as they do.

    Each place in the program counts its own passes: of a generator and a discriminator that take
    turns, both are recorded, whatever N is. A place is the user's line that starts a pass, and the
    line that called the function it is in: two models may share that function.

    A pass's story begins before it, with the operations that lead to it, and ends after it, with
    the optimizer's step: the watchers wake when the last pass before it has ended, and rest from
    the step on, or from the next pass where there is none. A pass that comes while they rest, from
    a place that is new or out of its turn, is left out, and the next one from there recorded.
    """

    def __init__(self, session: Session, every: int) -> None:
        self._session = session
        self._every = every
        self._begun = 0
        self._places: dict[tuple[int, ...], _Place] = {}
        self._owed: set[_Place] = set()
        self._skipping: dict[int, int] = {}
        self._told = False
        self.resting = False

    def skips(self) -> bool:
        """Whether the run that begins is to be left out; if so, `skipped` must follow."""
        if self._every == 1:
            return False
        thread = threading.get_ident()
        depth = self._skipping.get(thread, 0)
        if not depth and (self._session.live_pass() is not None or self._takes()):
            return False
        self._skipping[thread] = depth + 1
        self._rest()
        self._session.recorder.writer.dropped(f"passes that every={self._every} leaves out")
        return True

    def _takes(self) -> bool:
        """Whether the outermost pass that begins is to be recorded: count it."""
        self._begun += 1
        place = self._place()
        place.begins(self._begun)
        taken = place in self._owed and not self.resting
        if taken:
            self._owed.remove(place)
        if place.begun % self._every == 0:
            self._owed.add(place)
        return taken

    def _place(self) -> _Place:
        lines = islice(self._session.sites.sites_around(sys._getframe()), _LINES)
        key = tuple(site.id for site in lines)
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= _MOST_PLACES:
                self._owed.discard(self._places.pop(next(iter(self._places))))
            place = self._places[key] = _Place()
            self._owed.add(place)
        return place

    def _awaits(self) -> bool:
        """Whether the next outermost pass may be one to record."""
        return any(place.may_be(self._begun + 1, self._every) for place in self._owed)

    def skipped(self) -> None:
        """A run that was left out has ended."""
        thread = threading.get_ident()
        self._skipping[thread] -= 1
        if not self._skipping[thread]:
            del self._skipping[thread]
            if self._awaits():
                self._wake()

    def ended(self) -> None:
        """The outermost of the passes that are recorded has ended, and none is running."""
        self._told = self._every > 1 and not self._awaits()

    def stepped(self) -> None:
        """An optimizer has taken its step."""
        if self._told:
            self._rest()

    def _rest(self) -> None:
        self._told = False
        if not self.resting and self._session.engine.idle and not self._awaits():
            self.resting = True
            self._session.set_watching()

    def _wake(self) -> None:
        if self.resting:
            self.resting = False
            self._session.set_watching()
            self._session.catch_up(f"what every={self._every} left out")
