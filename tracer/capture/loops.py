"""Sites as they run come in; where the loops around each stood at its n-th run goes out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Set

from tracer.capture.sites import SiteTable
from tracer.records.graph import Site

_MOST_KEPT = 200_000

Loops = tuple[tuple[str, str], ...]


class LoopBook:
    """Remembers, for each site and call number, the numbers and texts that its loops stood at.

    A call is told of once, when a site first runs so often in a round, so that a loop costs nothing
    from its second round on. What its variables held then is taken to be what they hold each time.
    """

    def __init__(self, sites: SiteTable, site_of: Callable[[int], Site | None]) -> None:
        self._sites = sites
        self._site_of = site_of
        self._stood: dict[tuple[int, int], Loops] = {}

    def ran(self, site_id: int, call: int) -> None:
        """A site runs for the `call`-th time in a round, which it never did before."""
        site = self._site_of(site_id)
        if site is None or (site_id, call) in self._stood or len(self._stood) >= _MOST_KEPT:
            return
        if self._sites.loops_around(site):
            values = self._sites.loop_values(sys._getframe(), site)
            if values:
                self._stood[site_id, call] = values

    def at(self, site: Site | None, call: int, under_way: Set[tuple[str, int]]) -> Loops:
        """Where the loops around a site stood at a call; not those that are still `under_way`, by
        file and line, since they stand elsewhere in the next pass."""
        if site is None or (site.id, call) not in self._stood:
            return ()
        lines = self._sites.loops_around(site)
        return tuple(
            (name, value)
            for name, value in self._stood[site.id, call]
            if (site.file, lines[name]) not in under_way
        )
