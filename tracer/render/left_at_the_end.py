"""A trace in; what its events leave of leaves, hooks, cuts and pauses, added up, out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from tracer.records import words
from tracer.records.events import (
    Accumulate,
    DataWrite,
    Event,
    Forward,
    GradRead,
    GradWrite,
    Hook,
    HookAdded,
    HookRemoved,
    HookRun,
    Leaf,
    PassBegin,
    Pause,
)
from tracer.records.graph import Site
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord

FIRST_EVENTS = 10_000
LAST_EVENTS = 40_000
MOST_EVENTS = 300_000
_HOOKS = (HookAdded, HookRemoved, HookRun)
_WRITES = (Accumulate, GradWrite, DataWrite)
_KINDS = tuple(kind.kind for kind in (*_HOOKS, *_WRITES, Forward, GradRead, Pause))


@dataclass(slots=True)
class LeafNow:
    """A leaf as the trace leaves it, and how often it came to that."""

    value: Gradient | None
    grad: Gradient | None
    passes: int = 0
    cleared: int = 0
    grad_writes: int = 0
    writes: int = 0


@dataclass(slots=True)
class HookNow:
    """A hook as the trace leaves it."""

    hook: Hook
    runs: int = 0
    changed: int = 0
    raised: int = 0
    removed: bool = False
    removed_at: Site | None = None


@dataclass(slots=True)
class CutNow:
    """Cuts of one kind at one line: how many, of which tensors, and which of these are results.

    A leaf may have had another name where it was cut (`self.weight`) than in a pass.
    """

    kind: str
    site: Site | None
    count: int = 0
    names: dict[str, None] = field(default_factory=dict)
    results: set[str] = field(default_factory=set)


@dataclass(slots=True)
class PauseNow:
    """Pauses that began at one line: how many, and how long they were together."""

    site: Site | None
    count: int = 0
    ns: int = 0


@dataclass(slots=True)
class Seen:
    """What the events say in all; `cut_short` where there were too many to read."""

    leaves: dict[int, LeafNow] = field(default_factory=dict)
    hooks: dict[int, HookNow] = field(default_factory=dict)
    cuts: dict[tuple[str, str, int], CutNow] = field(default_factory=dict)
    reads: dict[tuple[str, str, int], GradRead] = field(default_factory=dict)
    pauses: dict[tuple[str, int], PauseNow] = field(default_factory=dict)
    cut_short: bool = False
    _paused: tuple[PauseNow, int] | None = None

    def of(self, leaf: Leaf) -> LeafNow:
        """A leaf as the events leave it, or as the trace first met it."""
        return self.leaves.get(leaf.id) or LeafNow(leaf.value, leaf.grad)

    def note(self, event: Event, leaves: Mapping[int, Leaf]) -> None:
        """Take in an event."""
        if isinstance(event, _HOOKS):
            self._note_hook(event)
        elif isinstance(event, _WRITES):
            leaf = leaves.get(event.leaf)
            if leaf is not None:
                _note_leaf(self.leaves.setdefault(leaf.id, self.of(leaf)), event)
        elif isinstance(event, Forward) and event.cut is not None:
            site = event.cut.region or event.site
            cut = self.cuts.setdefault(
                (event.cut.kind, *line_of(site)), CutNow(event.cut.kind, site)
            )
            cut.count += 1
            cut.names.update(dict.fromkeys(name for name in event.cut.tensors if name))
            if any(tensor.made_by is not None for tensor in event.inputs):
                cut.results.update(event.cut.tensors)
        elif isinstance(event, GradRead):
            self.reads.setdefault((event.tensor, *line_of(event.site)), event)
        elif isinstance(event, Pause):
            self._note_pause(event)

    def _note_hook(self, event: HookAdded | HookRemoved | HookRun) -> None:
        now = self.hooks.setdefault(event.hook.id, HookNow(event.hook))
        if isinstance(event, HookRun):
            now.runs += 1
            now.changed += event.changed
            now.raised += bool(event.raised)
        elif isinstance(event, HookRemoved):
            now.removed, now.removed_at = True, event.site

    def _note_pause(self, event: Pause) -> None:
        if not event.resumed:
            pause = self.pauses.setdefault(line_of(event.site), PauseNow(event.site))
            pause.count += 1
            self._paused = pause, event.t_ns
        elif self._paused is not None:
            pause, since = self._paused
            pause.ns += event.t_ns - since
            self._paused = None


def line_of(site: Site | None) -> tuple[str, int]:
    """The file and line of a place, by which what happens there is counted together."""
    return ("", 0) if site is None else (site.file, site.line)


def look_through(trace: TraceRecord) -> Seen:
    """Read the events that change what there is: all, or of many the first and the last."""
    first, last = FIRST_EVENTS, LAST_EVENTS
    seen = Seen(cut_short=len(trace.events) > first + last)
    since = _begin_of_the_end(trace, last) if seen.cut_short else 0
    for event in islice(trace.events.select(kinds=_KINDS), first if seen.cut_short else 0):
        if event.seq < since:
            seen.note(event, trace.leaves)
    for event in islice(trace.events.select(kinds=_KINDS, since=since), MOST_EVENTS):
        seen.note(event, trace.leaves)
    return seen


def _begin_of_the_end(trace: TraceRecord, last: int) -> int:
    """From which `seq` on to read: the last pass is among what is read, however large it is."""
    since = trace.events.last_seq - last
    if not trace.passes:
        return since
    begin = trace.events.select(pass_id=trace.passes[-1].id, kinds=(PassBegin.kind,))
    return min([since, *(event.seq for event in begin)])


def _note_leaf(leaf: LeafNow, event: Accumulate | GradWrite | DataWrite) -> None:
    if isinstance(event, DataWrite):
        leaf.value = event.after
        leaf.writes += 1
        return
    leaf.grad = event.after
    if isinstance(event, Accumulate):
        leaf.passes += 1
    elif event.after is None or words.is_zero(event.after):
        leaf.cleared += 1
    else:
        leaf.grad_writes += 1
