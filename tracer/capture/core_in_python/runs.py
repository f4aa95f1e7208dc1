"""The numbers that the engine gives its runs in, how many were entered since the first one out."""

from __future__ import annotations

import threading


class RunCount:
    """Counts the runs that were entered through Python."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entered = self._inside = self._alone = 0
        self._first: int | None = None
        self._entered_by_first = 0

    def enter(self) -> None:
        """A run is about to begin, whether or not it will be recorded."""
        with self._lock:
            self._entered += 1
            self._inside += 1
            self._alone = self._entered if self._inside == 1 else 0

    def leave(self) -> None:
        """A run has ended."""
        with self._lock:
            self._inside -= 1

    def began(self, task: int) -> None:
        """A run that was entered has this number.

        What other runs have is known where none was under way as it was entered, and none has been
        entered since: smaller ones.
        """
        if self._first is None and self._inside == 1 and self._alone == self._entered:
            self._first, self._entered_by_first = task, self._entered

    def forget(self) -> None:
        """Runs may begin that are not entered, and not to be counted as missed: begin anew."""
        self._first = None

    def since_first(self) -> tuple[int, int] | None:
        """The number of the first run that is known, and how many were entered after it."""
        if self._first is None:
            return None
        return self._first, self._entered - self._entered_by_first
