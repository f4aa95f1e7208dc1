"""Events in, packed or not; out, to whoever listens, what a reader is told of each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from tracer.records.events import Event, Forward
from tracer.records.graph import Site
from tracer.records.told import Told
from tracer.records.trace import EventLog


class Listener(Protocol):
    """Hears of events in their order. Of the kinds that nearly all are of, no record is made."""

    def node(
        self,
        t_ns: int,
        pass_id: int,
        node: int,
        ended: bool,
        received: Sequence[Told | None],
        returned: Sequence[Told | None],
    ) -> None:
        """A node ran (see `NodeRun`); its tensors are told in words."""

    def accumulate(
        self,
        t_ns: int,
        pass_id: int,
        leaf: int,
        node: int,
        entries: Sequence[Told | None],
    ) -> None:
        """A leaf's `.grad` was written to (see `Accumulate`): `before`, `incoming`, `after`."""

    def write(
        self,
        t_ns: int,
        pass_id: int,
        of_grad: bool,
        leaf: int,
        how: str,
        site: Site | None,
        entries: Sequence[Told | None],
    ) -> None:
        """A leaf's `.grad` or its values were changed by user code (see `GradWrite`, `DataWrite`):
        `before` and `after`."""

    def forward(self, t_ns: int, pass_id: int, like: Forward, module: str) -> None:
        """An operation ran, of which a reader is told the same as of the one that it is `like`, but
        for the module that it ran in."""

    def event(self, event: Event) -> None:
        """Anything else happened."""


@runtime_checkable
class TellingLog(Protocol):
    """An event log that tells without making a record of each event."""

    def tell(self, listener: Listener, *, since: int, until: int) -> Iterator[None]:
        """Tell of the events from `seq` `since` on, up to `until`, a few at a time."""
        ...


def tell(events: EventLog, listener: Listener, *, since: int, until: int) -> Iterator[None]:
    """Tell a listener of the events from `seq` `since` on, up to `until`, a few at a time."""
    if isinstance(events, TellingLog):
        yield from events.tell(listener, since=since, until=until)
        return
    for event in events.select(since=since):
        if event.seq >= until:
            return
        listener.event(event)
        yield
