"""Frames, events and records that name readings under way come in; in their order, with what came
of the readings, they go on to the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from tracer.capture.deferred import Deferred
from tracer.records.events import DataWrite, Event, GradWrite, HookRun, Leaf, Pass
from tracer.records.tensors import Gradient

if TYPE_CHECKING:
    from tracer.capture.recorder import Span, Writer

MOST_WAITING = 8 << 20
"""Bytes of frames that wait before the device is waited for."""
_EVENT_BYTES = 200

Decide = Callable[[Event], "Event | None"]
"""Makes of an event whose readings are known what is to be told: the event, another, or nothing."""


class Waiting:
    """The way to the store; without readings under way everything passes straight through."""

    def __init__(self, deferred: Deferred, writer: Writer) -> None:
        self._deferred = deferred
        self._writer = writer
        self._queue: deque[tuple[int, int, Callable[[], None]]] = deque()
        self._bytes = 0

    def frames(self, frames: bytes, span: Span | None) -> None:
        """Hand on packed frames."""
        known = self._deferred.known_frames
        if not self._deferred.last:
            self._writer.append(frames, span)
        else:
            self._put(lambda: self._writer.append(known(frames), span), len(frames))

    def event(self, event: Event, decide: Decide | None = None) -> None:
        """Hand on an event; `decide` is asked what to tell of it once its readings are known."""
        if self._deferred.last:
            self._put(lambda: self._tell(event, decide), _EVENT_BYTES)
        else:
            self._writer.event(event)

    def _tell(self, event: Event, decide: Decide | None) -> None:
        told: Event | None = self._known(event)
        if decide is not None and told is not None:
            told = decide(told)
        if told is not None:
            self._writer.event(told)

    def record(self, record: Leaf | Pass) -> None:
        """Hand on a record."""
        if self._deferred.last:
            self._put(lambda: self._writer.put(self.known(record)), _EVENT_BYTES)
        else:
            self._writer.put(record)

    def known(self, record: Leaf | Pass) -> Leaf | Pass:
        """A record with what is known in the place of the marks that its packed entries are."""
        if isinstance(record, Pass):
            return replace(record, seeds=self._entries(record.seeds))
        value, grad = self._entries((record.value, record.grad))
        return replace(record, value=value, grad=grad)

    def _known(self, event: Event) -> Event:
        if isinstance(event, HookRun):
            before, after = self._entries(event.before), self._entries(event.after)
            return replace(event, before=before, after=after)
        if isinstance(event, (GradWrite, DataWrite)):
            (one, other) = self._entries((event.before, event.after))
            return replace(event, before=one, after=other)
        return event

    def _entries(self, entries: Iterable[Gradient | None]) -> tuple[Gradient | None, ...]:
        """Entries, which events and records carry packed."""
        known = self._deferred.known
        packed = cast("Iterable[bytes | None]", entries)
        return cast("tuple[Gradient | None, ...]", tuple(one and known(one) for one in packed))

    # ---- waiting

    def _put(self, hand_on: Callable[[], None], size: int) -> None:
        self._queue.append((self._deferred.last, size, hand_on))
        self._bytes += size
        if self._bytes > MOST_WAITING:
            self._deferred.begin_copies()
            self.release(wait=True)

    def release(self, *, wait: bool = False) -> None:
        """Hand on what needs no reading that is still under way; or else wait for those copied."""
        if not self._queue:
            return
        self._deferred.collect(wait=wait)
        until = self._deferred.known_until
        while self._queue and self._queue[0][0] <= until:
            _, size, hand_on = self._queue.popleft()
            self._bytes -= size
            hand_on()
