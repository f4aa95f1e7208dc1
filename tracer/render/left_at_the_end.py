"""A trace in; what its events leave of leaves, hooks, cuts and pauses, added up, out."""

from __future__ import annotations

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
    Pause,
)
from tracer.records.graph import Site
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord

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
    """Cuts of one kind at one line: how many, and of which tensors."""

    kind: str
    site: Site | None
    count: int = 0
    names: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class PauseNow:
    """Pauses that began at one line: how many, and how long they were together."""

    site: Site | None
    count: int = 0
    ns: int = 0


@dataclass(slots=True)
class Seen:
    """What the events say in all; `cut_short` where there were too many to read."""

    leaves: dict[int, LeafNow]
    hooks: dict[int, HookNow] = field(default_factory=dict)
    cuts: dict[tuple[str, str, int], CutNow] = field(default_factory=dict)
    reads: dict[tuple[str, str, int], GradRead] = field(default_factory=dict)
    pauses: dict[tuple[str, int], PauseNow] = field(default_factory=dict)
    cut_short: bool = False
    _paused: tuple[PauseNow, int] | None = None

    def note(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, _HOOKS):
            self._note_hook(event)
        elif isinstance(event, _WRITES):
            leaf = self.leaves.get(event.leaf)
            if leaf is not None:
                _note_leaf(leaf, event)
        elif isinstance(event, Forward) and event.cut is not None:
            site = event.cut.region or event.site
            cut = self.cuts.setdefault(
                (event.cut.kind, *line_of(site)), CutNow(event.cut.kind, site)
            )
            cut.count += 1
            cut.names.update(dict.fromkeys(name for name in event.cut.tensors if name))
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


def look_through(trace: TraceRecord, *, most: int = MOST_EVENTS) -> Seen:
    """Read the events that change what there is, so many of them at most."""
    seen = Seen({leaf.id: LeafNow(leaf.value, leaf.grad) for leaf in trace.leaves.values()})
    events = trace.events.select(kinds=_KINDS)
    for event in islice(events, most):
        seen.note(event)
    seen.cut_short = next(events, None) is not None
    return seen


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
