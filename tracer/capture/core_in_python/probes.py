"""A node's gradients before and after it runs come in, one frame on the tape goes out."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from tracer.capture.core_in_python.known import TORCH
from tracer.capture.core_in_python.tape import Tape
from tracer.records.events import EVENT_KINDS, NodeRun
from tracer.records.stream import ENTRY_RECEIVED, ENTRY_SAME, ENTRY_STATS, NODE

SAME = bytes([ENTRY_SAME])
_NODE_CODE = EVENT_KINDS.index(NodeRun) + 1
_MOST_TWINS = 200
_KNOWN = bytes([ENTRY_STATS]) + bytes(4)  # statistics, and the metadata that the structure says

USER_CODE, REARRANGES = 1, 2
"""What a node is beyond its edges: attach is told for each."""

Fault = Callable[[BaseException | None], object]


def hand_over(fault: Fault, error: Exception) -> None:
    """Tell of a failure of our own: it must not become the user's."""
    try:
        fault(error)
    except Exception:  # nor that of telling it
        return


class PassState:
    """What the probes of one pass share.

    `claim(state, task)` says whether the engine run numbered `task` is this pass; `key` is that of
    its probes in dicts of hooks, where nested passes meet; `made(node, low, high)` is told which
    nodes a node made, None where none can be made.
    """

    def __init__(
        self, tape: Tape, id: int, claim: Callable[[PassState, int], bool], fault: Fault
    ) -> None:
        self.tape = tape
        self.id = id
        self.key = f"tracer pass {id}"
        self.claim = claim
        self.fault = fault
        self.task = -1
        self.order = self.node_count = self.leaf_count = 0
        self.guarded = self.closed = 0
        self.open: dict[int, NodeProbe] = {}
        self.unsettled: list[Any] = []
        self.made: Callable[[int, int, int], object] | None = None

    def is_ours(self) -> bool:
        """Whether the engine run that is calling is this pass."""
        if self.closed:
            return False
        task = TORCH.task_id()
        if task == -1:  # no engine runs
            return False
        if self.task == -1 and self.claim(self, task):
            self.task = task
        return self.task == task

    def run(self, action: Callable[..., None], *args: Any) -> None:
        """Do a probe's work if the pass that calls is ours; a failure is handed over."""
        try:
            if self.is_ours():
                if self.guarded:
                    with TORCH.disable_torch_function():
                        action(*args)
                else:
                    action(*args)
        except Exception as error:
            hand_over(self.fault, error)
        self.tape.spill()


class NodeProbe:
    """The prehook and posthook of one node: reads gradients, writes one frame.

    `same` has a 1 for each input that receives just what one edge sent; `reuse` says that no
    user code runs in between: a returned tensor that is a received one is unchanged, and all have
    the metadata that the structure says. `begun()` and `ended()` are called around a custom
    Function.
    """

    def __init__(
        self,
        state: PassState,
        node: int,
        same: bytes,
        reuse: bool = True,
        begun: Callable[[], object] | None = None,
        ended: Callable[[], object] | None = None,
    ) -> None:
        self.state = state
        self.node = node
        self.same = same
        self.order = 0
        self.sinks: list[tuple[int, Any]] = []
        self.loose: set[int] = set()  # slots that lead nowhere: the structure has no metadata
        self.rearranges = False
        self.sent = b""  # what arrives, as its sender read it, where this node rearranges it
        self.reuse = reuse
        self._begun = begun
        self._ended = ended
        self._seq = self._begin = self._low = 0
        self._received: list[bytes] = []

    def __call__(self, *args: Any) -> None:
        self.state.run(self._enter if len(args) == 1 else self._leave, *args)

    def _enter(self, gradients: tuple[Any, ...]) -> None:
        state, tape, same = self.state, self.state.tape, self.same
        self._received = [
            SAME if k < len(same) and same[k] and gradient is not None else self._read(gradient)
            for k, gradient in enumerate(gradients)
        ]
        state.open[self.node] = self
        self._seq = tape.next_seq()
        state.order += 1
        state.node_count += 1
        self.order = state.order
        if state.made is not None:
            self._low = TORCH.sequence_nr()
        self._begin = monotonic_ns()
        if self._begun is not None:
            self._begun()

    def _leave(self, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        end = self.state.tape.now()
        if self.state.open.pop(self.node, None) is None:
            return
        if self._ended is not None:
            self._ended()
        if self.state.made is not None and TORCH.sequence_nr() > self._low:
            self.state.made(self.node, self._low, TORCH.sequence_nr())
        self._write(end, [self._sent(slot, one, outputs) for slot, one in enumerate(inputs)])

    def _sent(self, slot: int, gradient: Any, outputs: tuple[Any, ...]) -> bytes:
        is_known = slot not in self.loose
        if self.reuse and gradient is not None:
            for k, arrived in enumerate(outputs[:_MOST_TWINS]):
                if arrived is gradient:
                    self._hand_on(slot, b"" if k else self._arrived())
                    return bytes([ENTRY_RECEIVED, k])
        entry = b""
        if self.rearranges and self.reuse and is_known and gradient is not None:
            entry = self._arrived()
        entry = entry or self._read(gradient, is_known=is_known)
        self._hand_on(slot, entry)
        return entry

    def _arrived(self) -> bytes:
        """The statistics of what arrived first, if known, with metadata as the structure says."""
        entry = self._received[0] if self._received else b""
        entry = self.sent if entry == SAME else entry
        return entry if entry.startswith(_KNOWN) else b""

    def _hand_on(self, slot: int, entry: bytes) -> None:
        for sink, probe in self.sinks:
            if sink == slot and entry:
                probe.sent = entry

    def _read(self, gradient: Any, *, is_known: bool = True) -> bytes:
        """Pack a gradient; user code may hand over any shape and dtype, fitted only later."""
        tape = self.state.tape
        if (self.reuse and is_known) or gradient is None or tape.meta_of is None:
            return tape.entry(gradient)
        return tape.entry(gradient, tape.meta_of(gradient))

    def _write(self, end: int, returned: list[bytes]) -> None:
        tape = self.state.tape
        fixed = NODE.pack(self.node, self.order, end, len(self._received), len(returned))
        payload = b"".join((fixed, *self._received, *returned))
        tape.put_frame(_NODE_CODE, self.state.id, self._seq, self._begin - tape.origin, payload)

    def abandon(self) -> None:
        """Write the frame of a node that never ended."""
        self._write(-1, [])
