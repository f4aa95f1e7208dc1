"""One run of the autograd engine while it lasts: it puts probes on, and enters what they saw."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tracer.capture import structure
from tracer.capture.core import LeafProbe, NodeProbe, attach, detach, pass_here
from tracer.capture.core_in_python.probes import USER_CODE
from tracer.capture.graphs import Leaves
from tracer.capture.hook_runs import (
    ACCUMULATE_HOOK,
    POSTHOOK,
    PREHOOK,
    TENSOR_HOOK,
    RetainedProbe,
    Seat,
    Wrapped,
)
from tracer.capture.hooked_tensors import HookDict
from tracer.capture.ledger import LeafState
from tracer.capture.second_order import MadeInPass
from tracer.records.collection import no_collection
from tracer.records.events import Pass
from tracer.records.graph import Graph

if TYPE_CHECKING:
    from tracer.capture.session import Session

_no_function, _no_dispatch = torch._C.DisableTorchFunction, torch._C._DisableTorchDispatch


class LivePass:
    """One engine run while it lasts: its probes, the hooks it wrapped, what is still to enter."""

    def __init__(
        self, session: Session, state: Any, graph: Graph, walk: structure.Walk, leaves: Leaves
    ) -> None:
        self.session = session
        self.record = Pass(id=state.id, graph=graph.id)
        self.graph = graph
        self.walk = walk
        self.thread = threading.get_ident()
        self.outside = pass_here()
        self.state = state
        self.wrapped = Wrapped()
        self.at: Seat | None = None
        self.leaves = leaves
        self.failed_at: int | None = None
        self.made: MadeInPass | None = None
        self._held: list[HookDict] = []
        self._probes: list[NodeProbe | LeafProbe | None] = []
        self._pushed = 0

    # ---- probes

    def take_over(self, held: list[HookDict], probes: list[NodeProbe | LeafProbe | None]) -> None:
        """Take for its own the probes of a pass that the core began."""
        self._held, self._probes = held, probes

    def attach(self) -> None:
        """Put a probe on every node that is watched, and one around every user hook there."""
        with no_collection():
            self._attach()

    def _attach(self) -> None:
        walk = self.walk
        watched = self.session.watched.nodes(self.graph)
        natures = self.session.graphs.natures(self.graph)
        self._held, crowded, self._probes = attach(
            self.state,
            self.session.ledger.book,
            walk.fns,
            [b""] * len(walk.same) if 0 in watched else walk.same,  # the sender may be unwatched
            walk.links,
            natures,
            self.leaves,
            self.user_code_begins,
            self.user_code_ends,
            watched,
        )
        if crowded:
            self._wrap_node_hooks(crowded)
        number = natures.find(USER_CODE)
        while number >= 0:
            self._read_any(number)
            number = natures.find(USER_CODE, number + 1)
        self._wrap_output_hooks()
        for number, (leaf, _state) in self.leaves.items():
            if self._probes[number] is None:
                continue
            if leaf._backward_hooks or leaf._post_accumulate_grad_hooks:
                self._wrap_leaf_hooks(number, leaf)

    def _wrap_node_hooks(self, crowded: list[int]) -> None:
        """Wrap the prehooks and posthooks that users registered on nodes themselves."""
        book, dicts = self.session.hooks, self._dicts()
        for number in crowded:
            for hooks, kind in zip(dicts[number], (PREHOOK, POSTHOOK), strict=False):
                if book.wrap(self, hooks, kind, number) and kind is PREHOOK:
                    self._read_anew(self._probes[number])
            self._read_any(number)

    def _dicts(self) -> dict[int, list[HookDict]]:
        """The dicts that hold the probe of each node: of its prehooks, and of its posthooks."""
        dicts: dict[int, list[HookDict]] = {}
        for hooks in self._held:
            dicts.setdefault(hooks[self.state.key].node, []).append(hooks)  # type: ignore[attr-defined]
        return dicts

    def _wrap_output_hooks(self) -> None:
        """Wrap the tensor hooks on what nodes put out in forward, and see `.grad` being kept."""
        book, nrs = self.session.hooks, self.walk.sequence_nrs
        if min(nrs) < self.session.first_sequence_nr:
            book.search()
        tensors = book.tensors
        places, retained = tensors.places(), list(tensors.retained())
        if not places and not retained:
            return
        numbers = {nr: number for number, nr in enumerate(nrs) if self._probes[number] is not None}
        for sequence_nr, output_nr in places:
            number = numbers.get(sequence_nr)
            if number is not None:
                for hooks in tensors.hooks_at(sequence_nr, output_nr):
                    book.wrap(self, hooks, TENSOR_HOOK, number, input_nr=output_nr)
                    self._read_anew(self._probes[number])
        dicts = self._dicts() if retained else {}
        for sequence_nr, output_nr, tensor, hook in retained:
            number = numbers.get(sequence_nr)
            if number is not None:
                seat = Seat(self, number, output_nr)
                probe = RetainedProbe(self.session.recorder, seat, tensor, hook)
                self.wrapped.put_first(dicts[number][0], (self.state.key, output_nr), probe)

    def _wrap_leaf_hooks(self, number: int, leaf: Tensor) -> None:
        book = self.session.hooks
        hooks = leaf._backward_hooks
        if hooks and book.wrap(self, hooks, TENSOR_HOOK, number, input_nr=0):
            self._read_anew(self._probes[number])
        if leaf._post_accumulate_grad_hooks:
            book.wrap(self, leaf._post_accumulate_grad_hooks, ACCUMULATE_HOOK, number)

    def _read_anew(self, probe: NodeProbe | LeafProbe | None) -> None:
        """Have what arrives read: a hook stands between it and what was sent."""
        if probe is not None:
            probe.same = b"" if isinstance(probe, NodeProbe) else False

    def _read_any(self, number: int) -> None:
        """Have what user code returns read as it is: the engine then fits it to the next node."""
        probe = self._probes[number]
        if isinstance(probe, NodeProbe):
            probe.reuse = False
            for edge in self.graph.edges_from[number]:
                self._read_anew(self._probes[edge.target])

    def detach(self) -> None:
        """Leave nothing of ours on any node or tensor, and let go of the nodes."""
        self.state.closed = 1
        self.session.hooks.restore(self)
        detach(self.state, self._held, self.walk.fns)
        self._held.clear()
        self._probes.clear()
        self.state.unsettled.clear()
        self.state.open.clear()

    # ---- while it runs

    def is_running_here(self) -> bool:
        """Whether the engine run that calls is this pass, and not another over the same nodes."""
        if self.session.recorder.failed or self.state.closed:
            return False
        task = torch._C._current_graph_task_id()
        if self.state.task == -1 and self.session.engine.claim(self.state, task):
            self.state.task = task
        return bool(self.state.task == task)

    def user_code_begins(self) -> None:
        """Let the function mode see what a hook or a custom Function does."""
        if threading.get_ident() != self.thread:  # a device's
            self.session.mode.set_pass(self.state.id)
        torch._C._push_on_torch_function_stack(self.session.mode)
        self._pushed += 1
        self.state.guarded += 1

    def user_code_ends(self) -> None:
        """Take the function mode off again."""
        if self._pushed:
            self._pushed -= 1
            self.state.guarded -= 1
            torch._C._pop_torch_function_stack()

    def callback_begins(self) -> None:
        """A function that was to run at the end of the pass does: see what it does to leaves."""
        if self.state.closed:
            return
        try:
            with _no_function(), _no_dispatch():
                for probe in list(self.state.unsettled):
                    probe.settle()
        except Exception as fault:
            self.session.recorder.fault(fault)
        self.user_code_begins()

    def node_name(self, node: int) -> str:
        """The name a reader knows the node's tensor by."""
        record = self.graph.nodes[node]
        return record.variables[0] if record.variables else record.name

    def leaf(self, node: int) -> Tensor | None:
        """The leaf of an `AccumulateGrad`."""
        held = self.leaves.get(node)
        return held[0] if held is not None else None

    # ---- accumulation

    def settle(self, node: int) -> None:
        """Enter an accumulation whose result can now be read."""
        probe = self._probes[node]
        if isinstance(probe, LeafProbe):
            probe.settle()

    def settle_leaf(self, state: LeafState) -> None:
        """Enter what the engine added to a leaf before user code writes to its `.grad`."""
        for probe in self.state.unsettled:
            if probe.leaf is state:
                probe.settle()

    def settle_done(self) -> None:
        """Enter the accumulations that have happened while others are still to come."""
        node = torch._C._current_autograd_node()
        running = getattr(node, "variable", None)  # of an AccumulateGrad that may not have run yet
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            for probe in list(self.state.unsettled):
                if probe.tensor is not running:
                    probe.settle()

    def resettle(self, node: int) -> None:
        """Take an accumulate hook's change of `.grad` as known: its own event tells it."""
        held = self.leaves.get(node)
        if held is not None:
            self.session.ledger.observe_grad(*held)

    def finish(self, error: BaseException | None) -> None:
        """Enter what is still open and leave the graph as it was."""
        self._pushed = self.state.guarded = 0  # the engine itself restores the modes of a node
        for probe in self.state.unsettled:
            probe.settle()
        unended = self.state.open
        if self.failed_at is None:  # no hook raised
            self.failed_at = max(unended, key=lambda node: unended[node].order, default=None)
        for probe in unended.values():
            probe.abandon()
        if self.made is not None:
            self.made.ends()
        if error is not None:
            self.session.saved_writes.pass_raised(self, error)
        self.detach()
