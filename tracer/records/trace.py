"""The whole of one recording: what ran, its sources, graphs, passes, leaves and events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from tracer.records.events import Event, Leaf, Pass
from tracer.records.graph import Graph


@dataclass(frozen=True, slots=True)
class Run:
    """What ran, where and with what; `started` is seconds since the epoch.

    `limits` are the words that say what was asked of the recording, empty for all there is.
    """

    script: str = ""
    argv: tuple[str, ...] = ()
    started: float = 0.0
    host: str = ""
    pid: int = 0
    rank: int = 0
    world_size: int = 1
    versions: tuple[tuple[str, str], ...] = ()
    limits: str = ""
    outcome: str = ""


class EventLog(Protocol):
    """Events in order of `seq`, readable as often as wanted without holding them all."""

    def __iter__(self) -> Iterator[Event]: ...

    def __len__(self) -> int: ...

    @property
    def last_seq(self) -> int:
        """The greatest `seq` of all events, 0 where there is none."""
        ...

    def select(
        self, *, pass_id: int | None = None, kinds: Sequence[str] = (), since: int = 0
    ) -> Iterator[Event]:
        """The events of one pass (or all), of the named kinds (or all), from `seq` `since` on."""
        ...


@runtime_checkable
class NamedLeaves(Protocol):
    """Leaves that know their names without one being made of each."""

    def name(self, number: int) -> str:
        """The name of a leaf, "" of one that there is not."""
        ...


def names_of_leaves(leaves: Mapping[int, Leaf]) -> Callable[[int], str]:
    """What gives the name of a leaf by its id: "" of one that has none, or that there is not."""
    if isinstance(leaves, NamedLeaves):
        return leaves.name
    return lambda number: leaves[number].name if number in leaves else ""


@dataclass(frozen=True, slots=True)
class EventList:
    """An event log held in memory."""

    events: tuple[Event, ...] = ()

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    @property
    def last_seq(self) -> int:
        """The greatest `seq` of all events, 0 where there is none."""
        return self.events[-1].seq if self.events else 0

    def select(
        self, *, pass_id: int | None = None, kinds: Sequence[str] = (), since: int = 0
    ) -> Iterator[Event]:
        """The events of one pass (or all), of the named kinds (or all), from `seq` `since` on."""
        for event in self.events:
            if event.seq < since or (kinds and event.kind not in kinds):
                continue
            if pass_id is None or event.pass_id == pass_id:
                yield event


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """One recording. `graphs` and `leaves` are by id; `sources` is file to text; `dropped` is what
    was left out by reason; `complete` is False for a trace whose process did not close it."""

    run: Run = Run()
    sources: Mapping[str, str] = field(default_factory=dict)
    graphs: Mapping[int, Graph] = field(default_factory=dict)
    passes: Sequence[Pass] = ()
    leaves: Mapping[int, Leaf] = field(default_factory=dict)
    events: EventLog = EventList()
    dropped: Mapping[str, int] = field(default_factory=dict)
    complete: bool = True
