"""Who wrote what to a leaf's `.grad` and to its data: each write becomes one event."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from tracer.capture.core import Book, Leaf
from tracer.capture.core_in_python.leaves import same_entry
from tracer.capture.readings import NONE, meta_of
from tracer.capture.recorder import packed
from tracer.records import events
from tracer.records.tensors import TensorMeta

if TYPE_CHECKING:
    from tracer.capture.recorder import Recorder


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

    __slots__ = ("first", "named", "watched")
    first: First
    named: bool
    watched: bool


@dataclass(slots=True)
class _Target:
    """A leaf that an operation is about to write: its `.grad` or its data, and what is there."""

    state: LeafState
    is_grad: bool
    before: bytes = field(default=NONE)


class Ledger:
    """Knows every leaf that a pass has reached, without keeping any alive."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.book = Book(self._unseen)
        self._leaves: dict[int, LeafState] = self.book.leaves
        self._grads: dict[int, LeafState] = self.book.grads
        self._aliases: dict[int, tuple[weakref.ref[Tensor], LeafState, bool]] = self.book.aliases
        self._unwatched: dict[int, LeafState] = {}
        self._count = 0

    def leaf(self, tensor: Tensor) -> LeafState:
        """The state of a leaf, made on first sight."""
        state = self._leaves.get(id(tensor)) or self._unwatched.get(id(tensor))
        if state is None or state.ref() is not tensor:
            state = self._open(tensor)
        return state

    def find(self, tensor: Tensor) -> LeafState | None:
        """The state of a leaf that a pass has reached, or None."""
        state = self._leaves.get(id(tensor))
        return state if state is not None and state.ref() is tensor else None

    def _open(self, tensor: Tensor) -> LeafState:
        self._count += 1
        key, watched, unwatched = id(tensor), self._leaves, self._unwatched

        def forget(dead: weakref.ref[Tensor]) -> None:
            for leaves in (watched, unwatched):
                held = leaves.get(key)
                if held is not None and held.ref is dead:
                    del leaves[key]

        state = LeafState(self._count, weakref.ref(tensor, forget), NONE, NONE, (0, 0))
        state.named = state.watched = False
        unwatched[key] = state
        if self._recorder.watched.leaf(""):
            self._watch(tensor, state)
            self._put(state, "")
        return state

    def _watch(self, tensor: Tensor, state: LeafState) -> None:
        """Read what a leaf holds, and know of all writes to it from here on."""
        state.grad, state.data = self._recorder.entry(tensor.grad), self._recorder.entry(tensor)
        state.mark = _mark(tensor)
        state.first = First(meta_of(tensor), state.data, state.grad)
        state.watched = True
        del self._unwatched[id(tensor)]
        self._leaves[id(tensor)] = state
        self._follow_grad(state, tensor.grad)

    def _put(self, state: LeafState, name: str) -> None:
        self._recorder.writer.put(
            events.Leaf(
                state.id,
                name,
                state.first.meta,
                None,
                packed(state.first.data),
                packed(state.first.grad),
            )
        )

    def name(self, tensor: Tensor, state: LeafState, name: str) -> None:
        """Give a leaf the name its user gave it."""
        state.named = True
        if not state.watched and self._recorder.watched.leaf(name):
            self._watch(tensor, state)
        if state.watched:
            self._put(state, name)

    # ---- what user code writes

    def targets(self, tensors: Iterable[Tensor]) -> list[_Target]:
        """Which leaves an in-place operation on these tensors writes, and what they hold now."""
        found: dict[tuple[int, bool], _Target] = {}  # one leaf can be given twice, as views too
        for tensor in tensors:
            target = self._target(tensor)
            if target is not None and (target.state.id, target.is_grad) not in found:
                target.before = self._observed(target)
                found[target.state.id, target.is_grad] = target
        return list(found.values())

    def _target(self, tensor: Tensor) -> _Target | None:
        state = self.find(tensor)
        if state is not None:
            return _Target(state, False)
        alias = self._aliases.get(id(tensor))
        if alias is not None and alias[0]() is tensor:
            return _Target(alias[1], alias[2])
        if tensor._is_view():
            base = tensor._base
            if base is not None and not base._is_view():
                return self._target(base)
        state = self._grads.get(tensor._cdata)
        if state is not None:
            leaf = state.ref()
            if leaf is not None and leaf.grad is tensor:
                return _Target(state, True)
        return None

    def _observed(self, target: _Target) -> bytes:
        leaf = target.state.ref()
        if leaf is None:
            return NONE
        if target.is_grad:
            return self._recorder.entry(leaf.grad)
        if target.state.mark != _mark(leaf):
            return self._recorder.entry(leaf)
        return bytes(target.state.data)

    def written(self, targets: Iterable[_Target], how: str, site: int) -> None:
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
        self, leaf: Tensor, state: LeafState, how: str, site: int, *, before: bytes
    ) -> None:
        """Record that user code changed a leaf's `.grad`, or put another there."""
        after = self._recorder.entry(leaf.grad)
        self._follow_grad(state, leaf.grad)
        state.grad = after
        self._recorder.grad_write(state.id, how, before, after, site)

    def data_written(
        self, leaf: Tensor, state: LeafState, how: str, site: int, *, before: bytes
    ) -> None:
        """Record that user code changed a leaf's values."""
        after = self._recorder.entry(leaf)
        state.data, state.mark = after, _mark(leaf)
        self._recorder.data_write(state.id, how, before, after, site)

    def alias(self, alias: Tensor, original: Tensor) -> None:
        """Remember that writing to `alias` (`x.data`) writes to a leaf or its `.grad`."""
        target = self._target(original)
        if target is None or alias is original:
            return
        key, aliases = id(alias), self._aliases

        def forget(dead: weakref.ref[Tensor]) -> None:
            held = aliases.get(key)
            if held is not None and held[0] is dead:
                del aliases[key]

        aliases[key] = (weakref.ref(alias, forget), target.state, target.is_grad)

    # ---- what the engine writes

    def _unseen(self, state: LeafState, before: bytes, after: bytes) -> None:
        """Enter a change of a leaf's `.grad` that nobody saw."""
        state.grad = after
        self._recorder.grad_write(state.id, UNSEEN, before, after, 0)

    def observe_grad(self, leaf: Tensor, state: LeafState) -> None:
        """Take what `.grad` holds now as known: another event tells how it came about."""
        if state.watched:
            state.grad = self._recorder.entry(leaf.grad)
            self._follow_grad(state, leaf.grad)

    def catch_up(self, how: str) -> None:
        """Enter every change since a leaf was last looked at, of its `.grad` and its values."""
        for state in list(self._leaves.values()):
            leaf = state.ref()
            if leaf is None:
                continue
            before = bytes(state.grad)
            if not same_entry(self._recorder.entry(leaf.grad), before):
                self.grad_written(leaf, state, how, 0, before=before)
            if _mark(leaf) != state.mark:
                self.data_written(leaf, state, how, 0, before=bytes(state.data))

    def check_data(self, leaf: Tensor, state: LeafState) -> None:
        """Enter a change of the leaf's values that nobody saw."""
        mark = _mark(leaf)
        if mark != state.mark:
            before = state.data
            self.data_written(leaf, state, UNSEEN, 0, before=before)

    def _follow_grad(self, state: LeafState, grad: Tensor | None) -> None:
        if grad is None:
            return
        if len(self._grads) > 2 * len(self._leaves) + 1024:
            kept = {
                leaf.grad._cdata: held
                for held in self._leaves.values()
                if (leaf := held.ref()) is not None and leaf.grad is not None
            }
            self._grads.clear()
            self._grads.update(kept)
        self._grads[grad._cdata] = state


UNSEEN = "a write that could not be observed"


def _mark(tensor: Tensor) -> tuple[int, int]:
    """What changes when a tensor is written to, unless through another alias of its storage."""
    try:
        return tensor._version, tensor.data_ptr()
    except RuntimeError:  # inference tensors keep no version; wrappers and sparse have no pointer
        return 0, 0
