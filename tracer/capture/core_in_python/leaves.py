"""What the engine adds to a leaf's `.grad` comes in, what is known of each leaf goes out."""

from __future__ import annotations

import math
import struct
import weakref
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from tracer.capture.core_in_python.known import TORCH
from tracer.capture.core_in_python.probes import SAME, PassState
from tracer.capture.core_in_python.tape import NONE, Tape
from tracer.capture.readings import is_leaf
from tracer.records.events import EVENT_KINDS, Accumulate
from tracer.records.stream import ACCUMULATE, ENTRY_PARTIAL, ENTRY_STATS

_ACCUMULATE_CODE = EVENT_KINDS.index(Accumulate) + 1
_STATISTICS_AT = {ENTRY_STATS: 5, ENTRY_PARTIAL: 7}


class Leaf:
    """What was last observed of one leaf: entries of its `.grad` and values, and their mark.

    `mark` is the values' version and address; `meta` is that of both, 0 while it is what the trace
    says of the leaf. Its name, what `meta` 0 stands for and what is written to where its elements
    are is for the core in C, which tells more without asking.
    """

    __slots__ = (
        "data", "grad", "id", "mark", "meta", "meta_id", "name_id", "names", "ref", "target",
    )  # fmt: skip

    def __init__(
        self, id: int, ref: weakref.ref[Any], grad: bytes, data: bytes, mark: tuple[int, int]
    ) -> None:
        self.id = id
        self.ref = ref
        self.grad = grad
        self.data = data
        self.mark = mark
        self.meta = self.meta_id = self.name_id = 0
        self.names = self.target = None


class Book:
    """The leaves by identity, and the gradients and aliases that are theirs.

    `unseen(leaf, before, found)` is called for a write that nobody saw.
    """

    def __init__(self, unseen: Callable[[Leaf, bytes, bytes], object]) -> None:
        self.leaves: dict[int, Leaf] = {}
        self.grads: dict[int, Leaf] = {}
        self.aliases: dict[int, Any] = {}
        self.unseen = unseen

    def find(self, tensor: Any) -> Leaf | None:
        """The leaf that a tensor is, or None."""
        leaf = self.leaves.get(id(tensor))
        return leaf if leaf is not None and leaf.ref() is tensor else None

    def may_concern(self, tensor: Any) -> bool:
        """Whether writing to a tensor that is no leaf may write to one, or to its `.grad`."""
        if tensor._is_view():
            return True
        if not runs_own_code(tensor) and tensor.data_ptr() in self.aliases:
            return True
        return tensor._cdata in self.grads

    def compare_grad(self, leaf: Leaf, found: bytes) -> None:
        """Tell of a `.grad` that is not what was last observed, and take it for known."""
        if not same_entry(found, leaf.grad):
            self.unseen(leaf, leaf.grad, found)
            leaf.grad = found

    def follow_grads(self) -> None:
        """Forget the gradients that leaves no longer have."""
        self.grads.clear()
        for leaf in list(self.leaves.values()):
            tensor = leaf.ref()
            # Of what is a leaf no more PyTorch warns to ask, unless it keeps its gradient.
            if tensor is not None and (is_leaf(tensor) or tensor.retains_grad):
                grad = tensor.grad
                if grad is not None:
                    self.grads[grad._cdata] = leaf

    def states(
        self, variables: list[tuple[int, Any]], make: Callable[[Any], Leaf]
    ) -> dict[int, tuple[Any, Leaf]]:
        """Tensor and Leaf by number; `make` gives the Leaf of a tensor that is not among ours.

        One that is a leaf no more, or may not be asked, is left out.
        """
        return {
            number: (tensor, self.find(tensor) or make(tensor))
            for number, tensor in variables
            if is_leaf(tensor)
        }

    def changed(
        self, tape: Tape, leaves: dict[int, tuple[Any, Leaf]], first: int, count: int
    ) -> list[tuple[int, bytes]]:
        """Those leaves that hold something else than what was last observed, and what was found.

        A write that counted as a version shows at once; of `count` leaves from the `first` on,
        every element is read, as not every write counts. NONE stands for what is not watched.
        """
        return [
            (number, found)
            for place, (number, (tensor, leaf)) in enumerate(leaves.items())
            if leaf.data != NONE
            and (first <= place < first + count or read_mark(tensor) != leaf.mark)
            and (found := tape.entry(tensor, leaf.meta)) != leaf.data
        ]


def runs_own_code(tensor: Any) -> bool:
    """Whether asking for its address runs code of a tensor's class, or warns, as of a fake one."""
    kind = type(tensor)
    if kind is TORCH.tensor or kind is TORCH.parameter:
        return False
    return kind.__torch_dispatch__ is not TORCH.tensor.__torch_dispatch__


def read_mark(tensor: Any) -> tuple[int, int]:
    """Version and address of a tensor's values; zeros where it has none."""
    try:
        return tensor._version, 0 if runs_own_code(tensor) else tensor.data_ptr()
    except RuntimeError:
        return 0, 0


def same_entry(a: bytes, b: bytes) -> bool:
    """Whether two entries tell of the same tensor.

    Norm and mean may differ in their last digits, as a clone can lie in memory in another order;
    minimum, maximum and the counts may not.
    """
    if a == b:
        return True
    at = _STATISTICS_AT.get(a[0]) if a and b else None
    if at is None or len(a) != len(b) or a[0] != b[0]:
        return False
    if a[at + 8 : at + 24] != b[at + 8 : at + 24] or a[at + 32 : at + 56] != b[at + 32 : at + 56]:
        return False
    (norm, mean), (norm_b, mean_b) = _norm_and_mean(a, at), _norm_and_mean(b, at)
    near = 1e-5 * math.fabs(norm)
    return math.fabs(norm - norm_b) <= near and math.fabs(mean - mean_b) <= near


def _norm_and_mean(entry: bytes, at: int) -> tuple[float, float]:
    norm, _low, _high, mean = struct.unpack_from("<4d", entry, at)
    return norm, mean


class LeafProbe:
    """The prehook of one `AccumulateGrad`; `same`: it receives just what one edge sent."""

    def __init__(
        self, state: PassState, book: Book, node: int, tensor: Any, leaf: Leaf, same: bool
    ) -> None:
        self.state = state
        self.book = book
        self.node = node
        self.tensor = tensor
        self.leaf = leaf
        self.same = bool(same)
        self.sent = b""
        self._seq = self._begin = self._order = 0
        self._before = self._incoming = NONE

    def __call__(self, *args: Any) -> None:
        if len(args) == 1:  # among the posthooks it only marks the dict
            self.state.run(self._enter, *args)

    def _enter(self, gradients: tuple[Any, ...]) -> None:
        state, tape, (gradient, *_) = self.state, self.state.tape, gradients
        self.settle()
        self._before = tape.entry(self.tensor.grad, self.leaf.meta)
        self.book.compare_grad(self.leaf, self._before)
        same = self.same and gradient is not None
        self._incoming = SAME if same else tape.entry(gradient, self.leaf.meta)
        self._seq = tape.next_seq()
        state.order += 1
        state.node_count += 1
        state.leaf_count += 1
        self._order = state.order
        self._begin = monotonic_ns()
        state.unsettled.append(self)

    def settle(self) -> None:
        """Write what the engine added, now that it can be read.

        When `.grad` was None and one edge leads here, it is what that edge sent.
        """
        if not self._seq:
            return
        seq, self._seq = self._seq, 0
        tape, grad = self.state.tape, self.tensor.grad
        if grad is not None:
            self.book.grads[grad._cdata] = self.leaf
        taken = self._before == NONE and grad is not None and self._incoming == SAME
        taken = taken and bool(self.sent) and not self.leaf.meta
        after = self._incoming if taken else tape.entry(grad, self.leaf.meta)
        self.leaf.grad = self.sent if taken else after
        fixed = ACCUMULATE.pack(self.leaf.id, self.node, self._order, -1)
        payload = b"".join((fixed, self._before, self._incoming, after))
        tape.put_frame(_ACCUMULATE_CODE, self.state.id, seq, self._begin - tape.origin, payload)
