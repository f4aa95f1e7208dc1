"""Which engine runs are recorded where only every N-th is; the watchers rest through the others."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracer.capture.session import Session


class Skipped:
    """Stands for a run that is not recorded."""


SKIPPED = Skipped()


class Rounds:
    """Counts the outermost passes; those in them, in hooks, go as they do.

    A pass's story begins before it, with the operations that lead to it, and ends after it, with
    the optimizer's step: the watchers wake when the last pass before it has ended, and rest from
    the step on, or from the next pass where there is none.
    """

    def __init__(self, session: Session, every: int) -> None:
        self._session = session
        self._every = every
        self._begun = 0
        self._skipping: dict[int, int] = {}
        self._told = False
        self.resting = False

    def skips(self) -> bool:
        """Whether the run that begins is to be left out; if so, `skipped` must follow."""
        thread = threading.get_ident()
        depth = self._skipping.get(thread, 0)
        if not depth and self._session.live_pass() is None:
            self._begun += 1
            if (self._begun - 1) % self._every == 0:
                self._wake()
                return False
        elif not depth:
            return False
        self._skipping[thread] = depth + 1
        self._rest()
        self._session.recorder.writer.dropped(f"passes that every={self._every} leaves out")
        return True

    def skipped(self) -> None:
        """A run that was left out has ended."""
        thread = threading.get_ident()
        self._skipping[thread] -= 1
        if not self._skipping[thread]:
            del self._skipping[thread]
            if self._begun % self._every == 0:
                self._wake()

    def ended(self) -> None:
        """The outermost of the passes that are recorded has ended, and none is running."""
        self._told = self._begun % self._every != 0

    def stepped(self) -> None:
        """An optimizer has taken its step."""
        if self._told:
            self._rest()

    def _rest(self) -> None:
        self._told = False
        if not self.resting and self._session.engine.idle:
            self.resting = True
            self._session.set_watching()

    def _wake(self) -> None:
        if self.resting:
            self.resting = False
            self._session.set_watching()
            self._session.catch_up(f"what every={self._every} left out")
