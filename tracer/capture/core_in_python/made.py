"""Which operation made which nodes comes in, who made a node goes out."""

from __future__ import annotations

from array import array
from bisect import bisect_right

MADE_MOST = 1 << 18
_NESTED_MOST = 16
_COMPACTED = 1 << 16

Made = tuple[int, int, int, int, int]
"""The operation that made a node: site, op, module, call, seq."""


class MadeLog:
    """Which operation made which nodes of one thread: the newest only, by where each began.

    As many are kept as by the core in C, so in columns of plain numbers: 40 bytes each.
    """

    def __init__(self) -> None:
        self._lows, self._highs = array("Q"), array("Q")
        self._made = tuple(array(code) for code in "IIIIQ")
        self._start = 0

    def add(self, low: int, high: int, made: Made) -> int:
        """Enter who made the nodes from `low` to before `high`; how many old ones had to go."""
        lows = self._lows
        at = len(lows)
        # a custom Function is logged after what its forward made, though it began before
        while at > self._start and lows[at - 1] > low:
            at -= 1
        columns = (lows, self._highs, *self._made)
        for column, value in zip(columns, (low, high, *made), strict=True):
            column.insert(at, value)
        if len(lows) - self._start <= MADE_MOST:
            return 0
        self._start += 1
        if self._start == _COMPACTED:
            for column in columns:
                del column[: self._start]
            self._start = 0
        return 1

    def find(self, number: int) -> Made | None:
        """Who made a node; what ran inside another operation began later and is asked first."""
        end = bisect_right(self._lows, number, self._start)
        for at in reversed(range(max(self._start, end - _NESTED_MOST), end)):
            if self._highs[at] > number:
                site, op, module, call, seq = (column[at] for column in self._made)
                return site, op, module, call, seq
        return None
