"""Which operation made which nodes comes in, who made a node goes out."""

from __future__ import annotations

from bisect import bisect_right

MADE_MOST = 1 << 19
_NESTED_MOST = 16
_COMPACTED = 1 << 16

Made = tuple[int, int, int, int, int]
"""The operation that made a node: site, op, module, call, seq."""


class MadeLog:
    """Which operation made which nodes of one thread: the newest only, by where each began."""

    def __init__(self) -> None:
        self._items: list[tuple[int, int, Made]] = []
        self._start = 0

    def add(self, low: int, high: int, made: Made) -> int:
        """Enter who made the nodes from `low` to before `high`; how many old ones had to go."""
        items = self._items
        at = len(items)
        # a custom Function is logged after what its forward made, though it began before
        while at > self._start and items[at - 1][0] > low:
            at -= 1
        items.insert(at, (low, high, made))
        if len(items) - self._start <= MADE_MOST:
            return 0
        self._start += 1
        if self._start == _COMPACTED:
            del items[: self._start]
            self._start = 0
        return 1

    def find(self, number: int) -> Made | None:
        """Who made a node; what ran inside another operation began later and is asked first."""
        at = bisect_right(self._items, number, self._start, key=lambda item: item[0])
        for _low, high, made in reversed(self._items[max(self._start, at - _NESTED_MOST) : at]):
            if high > number:
                return made
        return None
