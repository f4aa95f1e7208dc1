"""Who wrote what to a leaf's `.grad` and to its data: each write becomes one event."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from torch import Tensor

from tracer.capture.core import Book, Leaf
from tracer.capture.core_in_python.leaves import same_entry
from tracer.capture.readings import NONE, address_of, grad_of, may_ask_for_grad, meta_of
from tracer.capture.recorder import packed
from tracer.capture.references import OurRef
from tracer.records import events
from tracer.records.events import UNSEEN, DataWrite, Event, GradWrite
from tracer.records.stream import ENTRY_UNREAD
from tracer.records.tensors import TensorMeta

if TYPE_CHECKING:
    from tracer.capture.graphs import Leaves
    from tracer.capture.recorder import Recorder


_WINDOW = 64


@dataclass(frozen=True, slots=True)
class First:
    """What a leaf was when it was first met."""

    meta: TensorMeta
    data: bytes
    grad: bytes


class LeafState(Leaf):  # type: ignore[misc]
    """What is known of one live leaf: its id, and its `.grad` and data as last observed.

    Of one that is not `watched` only its name is known, and nothing that is written to it.
    """

    __slots__ = ("first", "name", "watched")
    first: First
    name: str
    watched: bool


@dataclass(slots=True)
class Target:
    """A leaf that an operation is about to write: its `.grad` or its data, and what is there."""

    state: LeafState
    is_grad: bool
    before: bytes = field(default=NONE)

    def tensor(self) -> Tensor | None:
        """What is written to, as far as it is there."""
        leaf: Tensor | None = self.state.ref()
        return grad_of(leaf) if self.is_grad and leaf is not None else leaf


class Ledger:
    """Knows the leaves that passes reached or that were given a `.grad`, and keeps none alive."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.book = Book(self._unseen)
        self._leaves: dict[int, LeafState] = self.book.leaves
        self._grads: dict[int, LeafState] = self.book.grads
        self._by_address: dict[int, Target] = self.book.aliases
        self._unwatched: dict[int, LeafState] = {}
        self._dead: list[weakref.ref[Tensor]] = []
        self._count = 0
        self._window = 0

    def leaf(self, tensor: Tensor) -> LeafState:
        """The state of a leaf, made on first sight."""
        state = self._leaves.get(id(tensor)) or self._unwatched.get(id(tensor))
        if state is None or state.ref() is not tensor:
            state = self._open(tensor)
        return state

    def states(self, variables: list[tuple[int, Tensor]]) -> Leaves:
        """The leaves of nodes by number, each with its state."""
        states: Leaves = self.book.states(variables, self.leaf)
        return states

    def find(self, tensor: Tensor) -> LeafState | None:
        """The state of a leaf that is known, or None."""
        state = self._leaves.get(id(tensor))
        return state if state is not None and state.ref() is tensor else None

    def _open(self, tensor: Tensor) -> LeafState:
        self._count += 1
        self._forget_dead()
        ref = OurRef(tensor, self._dead.append)
        ref.key = id(tensor)
        state = LeafState(self._count, ref, NONE, NONE, (0, 0))
        state.name, state.watched = "", False
        self._unwatched[ref.key] = state
        if self._recorder.watched.leaf(""):
            self._watch(tensor, state)
            self._put(state)
        return state

    def _forget_dead(self) -> None:
        """Drop the leaves that are gone."""
        while self._dead:
            dead = self._dead.pop()
            assert isinstance(dead, OurRef)
            for leaves in (self._leaves, self._unwatched):
                held = leaves.get(dead.key)
                if held is not None and held.ref is dead:
                    del leaves[dead.key]
                    held.target = None  # which leads back to it
                    self._recorder.writer.lost_leaf(held.id)

    def _watch(self, tensor: Tensor, state: LeafState) -> None:
        """Read what a leaf holds, and know of all writes to it from here on."""
        grad = grad_of(tensor)
        state.grad, state.data = self._recorder.entry(grad), self._recorder.entry(tensor)
        state.mark = _mark(tensor)
        state.first = First(meta_of(tensor), state.data, state.grad)
        state.watched = True
        state.target, state.meta_id = Target(state, False), self._recorder.meta_id(tensor)
        del self._unwatched[id(tensor)]
        self._leaves[id(tensor)] = state
        self._follow_data(state, tensor)
        self._follow_grad(state, grad)

    def _put(self, state: LeafState) -> None:
        self._recorder.put(
            events.Leaf(
                state.id,
                state.name,
                state.first.meta,
                None,
                packed(state.first.data),
                packed(state.first.grad),
            )
        )

    def name(self, tensor: Tensor, state: LeafState, name: str) -> None:
        """Give a leaf the name its user gave it."""
        state.name = name
        state.names, state.name_id = (name,), self._recorder.writer.string(name)
        if not state.watched and self._recorder.watched.leaf(name):
            self._watch(tensor, state)
        if state.watched:
            self._put(state)

    # ---- what user code writes

    def targets(self, tensors: Iterable[Tensor]) -> list[Target]:
        """Which leaves an in-place operation on these tensors writes."""
        found: dict[tuple[int, bool], Target] = {}  # one leaf can be given twice, as views too
        for tensor in tensors:
            target = self._target(tensor)
            if target is not None:
                found.setdefault((target.state.id, target.is_grad), target)
        return list(found.values())

    def read(self, targets: Iterable[Target], *, alone: bool) -> None:
        """Read what is about to be written to; `alone`: no pass is running that may write too."""
        for target in targets:
            target.before = self._observed(target)
            if alone:
                self._enter_unseen(target)

    def _enter_unseen(self, target: Target) -> None:
        """Enter what nobody saw being written since a leaf was last looked at."""
        state, now = target.state, target.before
        known = bytes(state.grad if target.is_grad else state.data)
        if state.ref() is None or same_entry(now, known):
            return
        if target.is_grad:
            self._unseen(state, known, now)
        else:
            self._enter(DataWrite, state, UNSEEN, known, now, is_sure=False)

    def _target(self, tensor: Tensor) -> Target | None:
        state = self.find(tensor)
        if state is not None:
            return Target(state, False)
        if tensor._is_view():
            base = tensor._base
            if base is not None and not base._is_view():
                return self._target(base)
        state = self._grads.get(tensor._cdata)
        if state is not None:
            leaf = state.ref()
            if leaf is not None and grad_of(leaf) is tensor:
                return Target(state, True)
        return self._with_elements_of(tensor)

    def _with_elements_of(self, tensor: Tensor) -> Target | None:
        """What has its elements where this tensor has them: `x.data`, `x.detach()`."""
        address = address_of(tensor)
        target = self._by_address.get(address)
        if target is None:
            return None
        there = target.tensor()
        if there is None or address_of(there) != address:
            del self._by_address[address]
            return None
        return Target(target.state, target.is_grad)

    def _observed(self, target: Target) -> bytes:
        leaf = target.state.ref()
        if leaf is None:
            return NONE
        if target.is_grad:
            return self._recorder.entry(grad_of(leaf), target.state.meta)
        if target.state.mark != _mark(leaf):
            return self._recorder.entry(leaf, target.state.meta)
        return bytes(target.state.data)

    def written(self, targets: Iterable[Target], how: str, site: int) -> None:
        """Record what an in-place operation left in the leaves it wrote."""
        for target in targets:
            leaf = target.state.ref()
            if leaf is None:
                continue
            if target.is_grad:
                self.grad_written(leaf, target.state, how, site, before=target.before)
            else:
                self.data_written(leaf, target.state, how, site, before=target.before)

    def grad_written(
        self,
        leaf: Tensor,
        state: LeafState,
        how: str,
        site: int,
        *,
        before: bytes,
        is_sure: bool = True,
    ) -> None:
        """Record that user code changed a leaf's `.grad`, or put another there."""
        after = self._recorder.entry(grad_of(leaf), state.meta)
        self._follow_grad(state, grad_of(leaf))
        state.grad = after
        self._enter(GradWrite, state, how, before, after, site, is_sure=is_sure)

    def data_written(
        self,
        leaf: Tensor,
        state: LeafState,
        how: str,
        site: int,
        *,
        before: bytes,
        found: bytes | None = None,
    ) -> None:
        """Record that user code changed a leaf's values, maybe to those of another dtype.

        `found`: what a look at them found, where nobody saw a write.
        """
        is_as_it_was = meta_of(leaf) == state.first.meta
        meta = 0 if is_as_it_was else self._recorder.meta_id(leaf)
        is_known = found is not None and meta == state.meta
        after = found if found and is_known else self._recorder.entry(leaf, meta)
        state.meta, state.data, state.mark = meta, after, _mark(leaf)
        self._follow_data(state, leaf)
        self._enter(DataWrite, state, how, before, after, site, is_sure=found is None)

    def _enter(
        self,
        kind: type[GradWrite | DataWrite],
        state: LeafState,
        how: str,
        before: bytes,
        after: bytes,
        site: int = 0,
        *,
        is_sure: bool,
    ) -> None:
        """Enter a write; one that is not sure only if its entries, maybe known later, differ."""
        recorder = self._recorder
        if is_sure or not recorder.deferred.last:
            enter = recorder.grad_write if kind is GradWrite else recorder.data_write
            enter(state.id, how, before, after, site)
        else:
            write = kind(**recorder.stamp(), leaf=state.id, how=how)
            recorder.emit(replace(write, before=packed(before), after=packed(after)), _if_any)

    def follow_alias(self, alias: Tensor, original: Tensor) -> None:
        """Know a `.grad` by where its elements are, as another tensor has them too now."""
        target = self._target(original)
        if target is not None and target.is_grad:
            self._at(alias, target)

    def swapped(self, states: Iterable[LeafState], site: int) -> None:
        """Record that what tensors are was swapped, `.grad` and all."""
        for state in states:
            leaf, data, grad = state.ref(), state.data, state.grad
            if leaf is not None:
                self.data_written(leaf, state, "swap_tensors", site, before=data)
                if grad != NONE or grad_of(leaf) is not None:
                    self.grad_written(leaf, state, "swap_tensors", site, before=grad)

    # ---- what nobody saw

    def _unseen(self, state: LeafState, before: bytes, after: bytes) -> None:
        """Enter a change of a leaf's `.grad` that nobody saw."""
        state.grad = after
        self._enter(GradWrite, state, UNSEEN, before, after, is_sure=False)

    def check_data(self, leaves: Leaves, how: str = UNSEEN, *, all_of_them: bool = False) -> None:
        """Enter changes of these leaves' values that nobody saw.

        Every pass reads a window of the leaves whole, another each time; the rest only where their
        version or address shows a write.
        """
        first, count = self._window, len(leaves) if all_of_them else _WINDOW
        first = 0 if all_of_them or first >= len(leaves) else first
        self._window = first + count
        for number, found in self.book.changed(self._recorder.tape, leaves, first, count):
            leaf, state = leaves[number]
            self.data_written(leaf, state, how, 0, before=bytes(state.data), found=found)

    def catch_up(self, how: str) -> None:
        """Enter every change since a leaf was last looked at, of its `.grad` and its values."""
        live = {state.id: (leaf, state) for leaf, state in self._live()}
        for leaf, state in live.values():
            before = bytes(state.grad)
            if not may_ask_for_grad(leaf):
                continue
            if not same_entry(self._recorder.entry(grad_of(leaf), state.meta), before):
                self.grad_written(leaf, state, how, 0, before=before, is_sure=False)
        self.check_data(live, how, all_of_them=True)

    def observe_grad(self, leaf: Tensor, state: LeafState) -> None:
        """Take what `.grad` holds now as known: another event tells how it came about."""
        if state.watched:
            state.grad = self._recorder.entry(grad_of(leaf), state.meta)
            self._follow_grad(state, grad_of(leaf))

    # ---- by what a leaf is known

    def _live(self) -> list[tuple[Tensor, LeafState]]:
        known = [(state.ref(), state) for state in list(self._leaves.values())]
        return [(leaf, state) for leaf, state in known if leaf is not None]

    def _follow_data(self, state: LeafState, leaf: Tensor) -> None:
        self._at(leaf, state.target)

    def _follow_grad(self, state: LeafState, grad: Tensor | None) -> None:
        if grad is not None:
            self._grads[grad._cdata] = state

    def _at(self, tensor: Tensor, target: Target) -> None:
        address = address_of(tensor)
        if address:
            self._by_address[address] = target

    def forget_gone(self) -> None:
        """Drop what is kept of leaves and gradients that are gone, and readings of long ago."""
        self._forget_dead()
        deferred = self._recorder.deferred
        if deferred.is_full():
            for state in self._leaves.values():
                state.grad, state.data = map(deferred.if_known, (state.grad, state.data))
            deferred.forget()
        if len(self._grads) > 2 * len(self._leaves) + 1024:
            self.book.follow_grads()
        if len(self._by_address) > 4 * len(self._leaves) + 1024:
            for address, target in list(self._by_address.items()):
                there = target.tensor()
                if there is None or address_of(there) != address:
                    del self._by_address[address]


def _if_any(write: Event) -> Event | None:
    """A write that nobody saw, unless there was the same before and after it: there was none."""
    assert isinstance(write, (GradWrite, DataWrite))
    before, after = (cast("bytes", entry) for entry in (write.before, write.after))
    if ENTRY_UNREAD in (before[0], after[0]):  # nobody knows, as while a CUDA graph was captured
        return None
    is_same = same_entry(before, after) if isinstance(write, GradWrite) else before == after
    return None if is_same else write


def _mark(tensor: Tensor) -> tuple[int, int]:
    """What changes when a tensor is written to, unless through another alias of its storage."""
    try:
        return tensor._version, address_of(tensor)
    except RuntimeError:  # inference tensors keep no version; wrappers and sparse have no pointer
        return 0, 0
