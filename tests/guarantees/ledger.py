"""The fourth guarantee as assertions: for each leaf, a chain of what it and `.grad` held."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.guarantees.checks import bits, check_gradient, executions, tensor_of
from tests.guarantees.oracle import Observed
from tests.guarantees.programs import Frozen, Outcome
from tracer.records import (
    Accumulate,
    DataWrite,
    Event,
    Gradient,
    GradWrite,
    HookRun,
    Leaf,
    TraceRecord,
)

Entry = Accumulate | GradWrite | DataWrite | HookRun


def check_ledger(trace: TraceRecord, observed: Observed, outcome: Outcome) -> None:
    """Each entry begins with what the last one left, adds up, and the last is what there is."""
    idle = set(_additions_to_frozen_leaves(trace, observed))
    entries = _entries_by_leaf(trace)
    nested = {one.id for one in trace.passes if one.parent is not None}
    left = list(zip(outcome.grads, outcome.values, strict=True))
    for leaf in trace.leaves.values():
        chain = _Chain(leaf)
        for entry in entries[leaf.id]:
            chain.add(entry)
            if isinstance(entry, Accumulate) and entry.seq not in idle:
                check_balance(entry, chain.where(entry))
        if any(entry.pass_id not in nested for entry in entries[leaf.id]):
            _take_what_is_left(chain, left)


def _additions_to_frozen_leaves(trace: TraceRecord, observed: Observed) -> Iterator[int]:
    """The engine runs the node of a leaf that no longer asks for a gradient, and adds nothing."""
    for event, ran in zip(executions(trace), observed.ran, strict=True):
        if isinstance(event, Accumulate) and ran.was == ran.became:
            yield event.seq


def _entries_by_leaf(trace: TraceRecord) -> dict[int, list[Entry]]:
    events: list[Event] = list(trace.events)
    leaf_of = {
        (event.pass_id, event.node): event.leaf for event in events if isinstance(event, Accumulate)
    }
    entries: dict[int, list[Entry]] = defaultdict(list)
    for event in events:
        if isinstance(event, Accumulate | GradWrite | DataWrite):
            entries[event.leaf].append(event)
        elif isinstance(event, HookRun) and event.hook.kind == "accumulate hook":
            assert event.node is not None
            entries[leaf_of[event.pass_id, event.node]].append(event)
    return entries


class _Chain:
    """What one leaf and its `.grad` hold, as its entries tell it."""

    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf
        self.grad = leaf.grad
        self.data = leaf.value
        self._hook: HookRun | None = None

    def where(self, entry: Entry) -> str:
        """Where a reader finds the entry."""
        return f"leaf {self.leaf.id}, event {entry.seq}: {entry}"

    def add(self, entry: Entry) -> None:
        """Go on from what there was to what the entry leaves."""
        if isinstance(entry, DataWrite):
            assert_same(entry.before, self.data, self.where(entry))
            self.data = entry.after
            return
        before = entry.before[0] if isinstance(entry, HookRun) else entry.before
        if not self._is_inside_hook(entry) or not is_same(before, self.grad):
            self.end_hook()  # what it changed in ways that nobody saw is told by its run alone
        assert_same(before, self.grad, self.where(entry))
        if isinstance(entry, HookRun):
            self._hook = entry
        else:
            self.grad = entry.after

    def _is_inside_hook(self, entry: Entry) -> bool:
        """Whether the accumulate hook told last may have made this write: it is entered first."""
        hook = self._hook
        return hook is not None and isinstance(entry, GradWrite) and entry.pass_id == hook.pass_id

    def end_hook(self) -> None:
        """An accumulate hook's run tells what it left, its writes to `.grad` how that came."""
        if self._hook is not None and self._hook.after:
            self.grad = self._hook.after[0]
        self._hook = None


def _take_what_is_left(chain: _Chain, left: list[tuple[Frozen, Frozen]]) -> None:
    """Strike out a tensor that holds at the end what the chain says."""
    chain.end_hook()
    for number, (grad, value) in enumerate(left):
        if _holds(chain.grad, grad) and _holds(chain.data, value):
            del left[number]
            return
    raise AssertionError(f"no leaf is what {chain.leaf} came to: {chain.grad}, {chain.data}")


def _holds(recorded: Gradient | None, real: Frozen) -> bool:
    try:
        check_gradient(recorded, real, "")
    except AssertionError:
        return False
    return True


def is_same(one: Gradient | None, other: Gradient | None) -> bool:
    """Equal, all NaNs being alike."""
    return repr(one) == repr(other)


def assert_same(one: Gradient | None, other: Gradient | None, where: str) -> None:
    """Equal, all NaNs being alike."""
    assert is_same(one, other), f"{where}: {one} is not {other}"


def check_balance(event: Accumulate, where: str) -> None:
    """after = before + incoming, in the dtype of `.grad`."""
    before, incoming, after = (
        tensor_of(one) for one in (event.before, event.incoming, event.after)
    )
    if after is None or incoming is None or (before is None and event.before is not None):
        return  # too many elements to have been kept
    total = incoming if before is None else before + incoming
    assert bits(total.reshape(-1).tolist()) == bits(after.reshape(-1).tolist()), where
