"""A trace and what is asked of it (passes, kinds, names, modules, a mark) in; its events out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, singledispatchmethod

from tracer.errors import NotInTraceError, OptionError
from tracer.records import words
from tracer.records.events import (
    EVENT_KINDS,
    Accumulate,
    DataWrite,
    Event,
    Forward,
    GradMode,
    GradRead,
    GradWrite,
    Hook,
    HookAdded,
    HookRemoved,
    HookRun,
    Mark,
    NodeRun,
    OptimizerStep,
)
from tracer.records.graph import Node
from tracer.records.passes import find_pass, since_of, until_of
from tracer.records.trace import TraceRecord

CUT = "cut"
KINDS = tuple(sorted({*(kind.kind for kind in EVENT_KINDS), CUT}))
"""What can be asked for as a kind: those of events, and `cut`, a `forward` that loses history."""

_ASKED = ("kinds", "names", "modules")
_MOST_LOOKED_AT = 10_000
_END_OF_TIME = 2**63
_WILD = {"*": ".*", "?": "."}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are wanted: those that every field lets through; an empty one lets all through.

    `passes` are the first and the last pass, each with what led to it. `kinds` are of `KINDS`.
    `names` are of tensors, leaves, nodes (`MulBackward0`, or `Mul`), operations, hooks and what
    they are on; `modules` are paths, each with all that is in it. In both, `*` and `?` stand for
    any text and any character, and the beginning may be left out (`weight`). `since` is the
    text of a mark, or part of it. One string may stand for a tuple of one. Raises OptionError for a
    kind that is none.
    """

    passes: tuple[int, int] | int | None = None
    kinds: Sequence[str] = ()
    names: Sequence[str] = ()
    modules: Sequence[str] = ()
    since: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.passes, int):
            object.__setattr__(self, "passes", (self.passes, self.passes))
        for name in ("kinds", "names", "modules"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        for kind in self.kinds:
            if kind not in KINDS:
                near = get_close_matches(kind, KINDS, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KINDS)}"
                raise OptionError(f"no kind of event is called {kind!r}: {hint}")

    @property
    def range(self) -> tuple[int, int] | None:
        """The first and the last pass, None for all."""
        return None if self.passes is None or isinstance(self.passes, int) else self.passes

    @property
    def is_particular(self) -> bool:
        """Whether it asks for events of some sort, and not only for a part of the run."""
        return bool(self.kinds or self.names or self.modules)


EVERYTHING = Selection()


class Sieve:
    """Tells of each event of one trace whether it is wanted, as far as pass and mark leave it."""

    def __init__(self, trace: TraceRecord, selection: Selection) -> None:
        self._trace = trace
        self._kinds = frozenset(selection.kinds)
        self._names = [_pattern(name) for name in selection.names]
        self._modules = [_pattern(path, inside=True) for path in selection.modules]
        self._graph_of: tuple[int, Sequence[Node]] = (0, ())

    def lets_through(self, event: Event) -> bool:
        """Whether the event is of a wanted kind, name and module."""
        if self._kinds and not self._is_wanted_kind(event):
            return False
        if self._names and not _any_matches(self._names, self.names_of(event)):
            return False
        return not self._modules or _any_matches(self._modules, self._modules_of(event))

    def _is_wanted_kind(self, event: Event) -> bool:
        is_cut = CUT in self._kinds and isinstance(event, Forward) and event.cut is not None
        return event.kind in self._kinds or is_cut

    @singledispatchmethod
    def names_of(self, event: Event) -> Iterator[str]:
        """What the event can be asked for by."""
        return iter(())

    @names_of.register
    def _(self, event: Forward) -> Iterator[str]:
        yield event.op
        if event.site is not None:
            yield from event.site.targets
        yield from (tensor.name for tensor in (*event.inputs, *event.outputs) if tensor.name)
        if event.cut is not None:
            yield from event.cut.tensors

    @names_of.register
    def _(self, event: NodeRun) -> Iterator[str]:
        node = self._node(event.pass_id, event.node)
        if node is not None:
            yield from (node.name, words.op_name(node), node.op, *node.variables)

    @names_of.register(Accumulate)
    @names_of.register(GradWrite)
    @names_of.register(DataWrite)
    def _(self, event: Accumulate | GradWrite | DataWrite) -> Iterator[str]:
        leaf = self._trace.leaves.get(event.leaf)
        if leaf is not None:
            yield leaf.name

    @names_of.register(HookAdded)
    @names_of.register(HookRemoved)
    @names_of.register(HookRun)
    def _(self, event: HookAdded | HookRemoved | HookRun) -> Iterator[str]:
        hook: Hook = event.hook
        yield from (hook.text, hook.subject)

    @names_of.register
    def _(self, event: GradRead) -> Iterator[str]:
        yield event.tensor

    @names_of.register
    def _(self, event: OptimizerStep) -> Iterator[str]:
        yield event.optimizer

    @names_of.register
    def _(self, event: GradMode) -> Iterator[str]:
        yield event.mode

    @names_of.register
    def _(self, event: Mark) -> Iterator[str]:
        yield event.text

    def _modules_of(self, event: Event) -> Iterator[str]:
        if isinstance(event, Forward):
            yield event.module
        elif isinstance(event, (NodeRun, HookRun, Accumulate)):
            node = self._node(event.pass_id, event.node)
            if node is not None and node.module is not None:
                yield node.module.path
        if isinstance(event, (Accumulate, GradWrite, DataWrite)):
            yield from (name.rpartition(".")[0] for name in self.names_of(event))

    def _node(self, pass_id: int | None, number: int | None) -> Node | None:
        if pass_id is None or number is None:
            return None
        if self._graph_of[0] != pass_id:
            record = find_pass(self._trace, pass_id)
            self._graph_of = pass_id, self._trace.graphs[record.graph].unpacked.nodes
        nodes = self._graph_of[1]
        return nodes[number] if number < len(nodes) else None


@dataclass(frozen=True)
class Region:
    """The part of a trace that a selection's passes and mark leave: from one `seq` to another."""

    trace: TraceRecord
    selection: Selection

    @cached_property
    def since(self) -> int:
        """The first `seq` that is wanted. Raises `NotInTraceError`."""
        since = 0
        if self.selection.range is not None:
            since = since_of(self.trace, find_pass(self.trace, self.selection.range[0]))
        if self.selection.since:
            since = max(since, find_mark(self.trace, self.selection.since).seq)
        return since

    @cached_property
    def until(self) -> int:
        """The first `seq` behind what is wanted. Raises `NotInTraceError`."""
        if self.selection.range is None:
            return _END_OF_TIME
        return until_of(self.trace, find_pass(self.trace, self.selection.range[1]))

    def events(self, kinds: Sequence[str] = ()) -> Iterator[Event]:
        """The events in it, of the named kinds (or all)."""
        for event in self.trace.events.select(since=self.since, kinds=kinds):
            if event.seq >= self.until:
                return
            yield event


def select_events(trace: TraceRecord, selection: Selection) -> Iterator[Event]:
    """The events that are wanted, in order; raises `NotInTraceError` for a missing pass or mark."""
    sieve = Sieve(trace, selection)
    for event in Region(trace, selection).events(stored_kinds(selection.kinds)):
        if sieve.lets_through(event):
            yield event


def stored_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds to read for those that are asked for."""
    return tuple({Forward.kind if kind == CUT else kind for kind in kinds})


def find_mark(trace: TraceRecord, text: str) -> Mark:
    """Find the first mark of that text, or else the first that holds it.

    Raises `NotInTraceError` that says which marks there are.
    """
    marks = [event for event in trace.events.select(kinds=(Mark.kind,)) if isinstance(event, Mark)]
    for mark in marks:
        if mark.text == text:
            return mark
    for mark in marks:
        if text in mark.text:
            return mark
    if not marks:
        raise NotInTraceError(
            f"there is no mark {text!r} in this trace: tracer.mark({text!r}) makes one"
        )
    texts = list(dict.fromkeys(words.shorten(mark.text, 40) for mark in marks))
    near = get_close_matches(text, texts, n=1)
    there = f"did you mean {near[0]!r}?" if near else f"it has {_listed(texts)}"
    raise NotInTraceError(f"there is no mark {text!r} in this trace: {there}")


def nothing_matches(trace: TraceRecord, selection: Selection) -> str:
    """Say that nothing that is asked for is there, and what may have been meant."""
    asked = [f"--{what[:-1]} {text}" for what in _ASKED for text in getattr(selection, what)]
    nodes = [node for graph in trace.graphs.values() for node in graph.nodes[:_MOST_LOOKED_AT]]
    known = {
        "names": [leaf.name for leaf in trace.leaves.values()]
        + [name for node in nodes for name in (*node.variables, words.op_name(node))],
        "modules": [node.module.path for node in nodes if node.module is not None],
    }
    near = [
        name
        for what, there in known.items()
        for text in getattr(selection, what)
        for name in get_close_matches(text, dict.fromkeys(there), n=1)
    ]
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"no event of this trace matches {' '.join(asked)}{hint}"


def _listed(texts: Sequence[str]) -> str:
    shown = [repr(text) for text in texts]
    return ", ".join(shown if len(shown) <= 4 else [*shown[:2], "…", shown[-1]])


def _pattern(text: str, *, inside: bool = False) -> re.Pattern[str]:
    """What matches a name: as it is or with wildcards, its last parts, or all `inside` it."""
    body = "".join(_WILD.get(char) or re.escape(char) for char in text)
    rest = r"(?:[.\[].*)?" if inside else ""
    return re.compile(rf"(?:.*\.)?{body}{rest}", re.DOTALL)


def _any_matches(patterns: Sequence[re.Pattern[str]], names: Iterator[str]) -> bool:
    return any(pattern.fullmatch(name) for name in names if name for pattern in patterns)
