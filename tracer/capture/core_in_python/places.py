"""A frame in, the site of the user's line that led there out, and how often it ran."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import CodeType, FrameType

from tracer.capture.core_in_python.unseen import is_ours

_RAN_MOST = 10_000
_HERE = os.path.dirname(__file__) + os.sep


class _Runs:
    """How often one position in code ran in this round."""

    __slots__ = ("calls", "most", "round")

    def __init__(self) -> None:
        self.calls = self.round = self.most = 0

    def count(self, counted_in: int) -> int:
        if self.round != counted_in:
            self.round, self.calls = counted_in, 0
        self.calls += 1
        return self.calls

    def is_new(self) -> bool:
        """Whether it never ran as often in a round before; not asked without end."""
        if not self.most < self.calls <= _RAN_MOST:
            return False
        self.most = self.calls
        return True


class _Place(_Runs):
    """A position in the user's code: its site, and where in PyTorch's own it led to when it ran.

    A function of PyTorch's that runs many operations runs each of them once.
    """

    __slots__ = ("inner", "site")

    def __init__(self, site: int) -> None:
        super().__init__()
        self.site = site
        self.inner: dict[tuple[int, int], _Runs] = {}

    def runs(self, inner: FrameType | None) -> _Runs:
        """The count of what ran here, in the innermost frame, if that is not the user's."""
        if inner is None:
            return self
        return self.inner.setdefault((id(inner.f_code), inner.f_lasti), _Runs())


class Places:
    """Asks `is_user(code)` once for each code, `site(code, lasti, line)` once for each position.

    `ran(site, call)`, if set, is told when a position runs more often in a round than ever before.
    """

    def __init__(
        self, is_user: Callable[[CodeType], bool], site: Callable[[CodeType, int, int], int]
    ) -> None:
        self._is_user = is_user
        self._site = site
        # By the code's address, with the code, so that it stays its own: the positions seen in it;
        # None for code that is not the user's.
        self.ran: Callable[[int, int], object] | None = None
        self._codes: dict[int, tuple[CodeType, dict[int, _Place] | None]] = {}

    def find(self, frame: FrameType | None, counted_in: int = 0) -> tuple[int, int]:
        """The site of the nearest user frame, from this one outward; 0 for none.

        Where a round is given to be counted in, also how often it ran in that, else 0.
        """
        inner = None
        while frame is not None:
            places = self._places(frame.f_code)
            if places is not None:
                place = self._place(frame, places)
                return place.site, self._count(place, inner, counted_in) if counted_in else 0
            if inner is None and not _is_core(frame.f_code):
                inner = frame
            frame = frame.f_back
        return 0, 0

    def _count(self, place: _Place, inner: FrameType | None, counted_in: int) -> int:
        runs = place.runs(inner)
        calls = runs.count(counted_in)
        if self.ran is not None and runs.is_new():
            self.ran(place.site, calls)
        return calls

    def _places(self, code: CodeType) -> dict[int, _Place] | None:
        known = self._codes.get(id(code))
        if known is None:
            is_user = not _is_core(code) and self._is_user(code)
            known = self._codes.setdefault(id(code), (code, {} if is_user else None))
        return known[1]

    def _place(self, frame: FrameType, places: dict[int, _Place]) -> _Place:
        place = places.get(frame.f_lasti)
        if place is None:
            site = self._site(frame.f_code, frame.f_lasti, frame.f_lineno)
            place = places.setdefault(frame.f_lasti, _Place(site))
        return place


def _is_core(code: CodeType) -> bool:
    return is_ours(code) or code.co_filename.startswith(_HERE)
