"""A trace in; for each of its passes what the engine added up and what was written after, out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from tracer.records.events import (
    Accumulate,
    DataWrite,
    Dropped,
    Event,
    HookAdded,
    HookRemoved,
    Pass,
    PassBegin,
    PassEnd,
    Pause,
)
from tracer.records.passes import find_pass
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord

_ASIDE = (HookAdded, HookRemoved, Pause, Dropped)
_KINDS = tuple(kind.kind for kind in (PassBegin, PassEnd, Accumulate, DataWrite, *_ASIDE))


@dataclass(slots=True)
class PassFacts:
    """One pass: what each leaf's `.grad` became, and each leaf's values, before and after."""

    record: Pass
    grads: dict[int, tuple[Accumulate, Accumulate]] = field(default_factory=dict)
    values: dict[int, tuple[Gradient | None, Gradient | None]] = field(default_factory=dict)
    squares: float = 0.0
    wrong: bool = False

    @property
    def norm(self) -> float | None:
        """The L2 norm of all that the leaves received, None where none received anything."""
        return math.sqrt(self.squares) if self.grads else None

    def add(self, event: Accumulate | DataWrite) -> None:
        """Take in what the engine added to a leaf, or what was written to one."""
        if isinstance(event, DataWrite):
            first = self.values.get(event.leaf, (event.before, None))[0]
            self.values[event.leaf] = first, event.after
            return
        self.grads[event.leaf] = self.grads.get(event.leaf, (event, event))[0], event
        incoming, after = event.incoming, event.after
        self.squares += (incoming.norm or 0.0) ** 2 if incoming is not None else 0.0
        self.wrong |= after is not None and bool(after.nans or after.infs)


def facts_of_passes(trace: TraceRecord) -> Iterator[PassFacts | Event]:
    """Yield each pass once the next has begun, in the order they began, and hooks in between.

    What is written to leaves counts to the pass that began last before it.
    """
    open_passes: dict[int, PassFacts] = {}
    running: set[int] = set()
    latest: PassFacts | None = None
    for event in trace.events.select(kinds=_KINDS):
        number = event.pass_id or 0
        if isinstance(event, PassBegin):
            if not running:
                yield from open_passes.values()
                open_passes.clear()
            running.add(number)
            latest = open_passes[number] = PassFacts(find_pass(trace, number))
        elif isinstance(event, PassEnd):
            running.discard(number)
        elif isinstance(event, Accumulate):
            if number in open_passes:
                open_passes[number].add(event)
        elif isinstance(event, DataWrite):
            if latest is not None:
                latest.add(event)
        else:
            yield event
    yield from open_passes.values()
