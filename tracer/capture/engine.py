"""Runs of the autograd engine: each becomes a pass, with a probe on every node while it runs."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.autograd.variable import Variable

from tracer.capture import structure
from tracer.capture.core import LeafProbe, NodeProbe, PassState, RunBackward, attach, detach, let_go
from tracer.capture.core import walk as core_walk
from tracer.capture.deep import make_room
from tracer.capture.engine_call import EngineCall, is_capturing, read_call
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
from tracer.capture.pass_here import enter_pass, pass_here
from tracer.capture.recorder import all_packed
from tracer.capture.rounds import SKIPPED, Skipped
from tracer.capture.second_order import MadeInPass
from tracer.capture.uncounted import RunCounter
from tracer.records.events import Outcome, Pass
from tracer.records.graph import Graph

if TYPE_CHECKING:
    from tracer.capture.session import Session


_queue = Variable._execution_engine.queue_callback
_no_function, _no_dispatch = torch._C.DisableTorchFunction, torch._C._DisableTorchDispatch


class Unfollowed:
    """A run from a root without a node: the engine refuses it, or else it is counted as missed."""


UNFOLLOWED = Unfollowed()


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
        walk = self.walk
        watched = self.session.watched.nodes(self.graph)
        custom = self.session.graphs.custom_nodes(self.graph)
        self._held, crowded, self._probes = attach(
            self.state,
            self.session.ledger.book,
            walk.fns,
            [b""] * len(walk.same) if 0 in watched else walk.same,  # the sender may be unwatched
            walk.links,
            custom,
            self.leaves,
            self.user_code_begins,
            self.user_code_ends,
            watched,
        )
        if crowded:
            self._wrap_node_hooks(crowded)
        number = custom.find(1)
        while number >= 0:
            self._read_any(number)
            number = custom.find(1, number + 1)
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
        if self.failed_at is None:  # no hook raised
            self.failed_at = max(
                self.state.open, key=lambda node: self.state.open[node].order, default=None
            )
        for probe in self.state.open.values():
            probe.abandon()
        if self.made is not None:
            self.made.ends()
        if error is not None:
            self.session.saved_writes.pass_raised(self, error)
        self.detach()


class Engine:
    """The door to the engine: `before` and `after` are called around every run of it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._running: dict[int, list[LivePass]] = {}
        self._tasks: dict[int, int] = {}
        self.unrecorded = 0
        self.counter = RunCounter()
        self.door: Any = None

    def open_door(self, run_backward: Any, *, may_run_there: bool) -> Any:
        """What stands in for the engine's `run_backward`: it records each run.

        A pass of which Python need not be asked runs in the core alone, if any may; see `take_over`
        and `collect`. Of all others `before` and `after` are called.
        """
        session = self._session
        graphs, recorder = session.graphs, session.recorder
        self.door = RunBackward(
            run_backward, self, session.mode, graphs.by_structure, graphs.plain, graphs.signatures,
            self._running, self._tasks, self.counter.count, recorder.lock,
            session.hooks.tensors.known(), _engine_run_backward.__code__, session.modules.stack,
            session.names.meanwhile, session.first_sequence_nr,
            recorder.pid, may_run_there,
        )  # fmt: skip
        recorder.collect = self.collect
        return self.door

    @property
    def idle(self) -> bool:
        """Whether no pass that is recorded is running, in any thread."""
        return not self._running and bool(self.door.is_idle)

    def running(self) -> LivePass | None:
        """The innermost pass of the calling thread, be it one of the engine's own."""
        self.awaken()
        number = pass_here()
        passes = (live for passes in list(self._running.values()) for live in passes)
        return next((live for live in passes if live.state.id == number), None)

    def claim(self, state: Any, task: int) -> bool:
        """Whether the engine run numbered `task`, which `state` sees first, is its own."""
        if task == -1 or task in self._tasks:
            return bool(self._tasks.get(task) == state.id)
        if pass_here() != state.id:
            return False
        self._tasks[task] = state.id
        self.counter.count.began(task)
        return True

    # ---- passes that run in the core alone

    def awaken(self) -> None:
        """Know of a pass that runs in the core alone."""
        if self.door.runs:
            self.take_over()

    def take_over(self) -> None:
        """Make of a pass that runs in the core alone what `before` would have made of it."""
        session, recorder = self._session, self._session.recorder
        (
            state, graph, walk, leaves, held, probes, kind, site, seeds, retain, inputs, thread,
            ident, begin_ns,
        ) = self.door.begun()  # fmt: skip
        live = LivePass(session, state, graph, structure.Walk(*walk), leaves)
        live.take_over(held, probes)
        live.thread, live.outside = ident, None
        live.record = Pass(
            id=state.id,
            graph=graph.id,
            kind=kind,
            site=recorder.site(site),
            roots=live.walk.root_records(),
            seeds=all_packed(seeds),
            retain_graph=bool(retain),
            inputs=inputs,
            thread=thread,
            begin_ns=begin_ns,
        )
        self.door.becomes(live)
        if state.task != -1:
            self._tasks[state.task] = state.id
        self._running[ident] = [live]
        recorder.writer.graph(graph)
        recorder.put(live.record)

    def collect(self) -> None:
        """Hand on what is known of passes that run, or ran, in the core alone."""
        self.awaken()
        ran = self.door.take_ran()
        if ran:
            self._session.recorder.writer.ran(ran)

    def look(self) -> None:
        """See whether there is enough to write, or much to forget."""
        deferred = self._session.recorder.deferred
        if deferred.last:
            deferred.begin_copies()
        self._session.forget_gone()
        self._session.recorder.flush_if_due()

    def could_not_record(self, error: BaseException | None) -> None:
        """A fault of our own came between in the core."""
        self._session.recorder.fault(error)
        enter_pass(None)
        self.unrecorded += 1

    # ---- the door

    def before(
        self, args: tuple[Any, ...], kwargs: dict[str, Any] | None
    ) -> LivePass | Unfollowed | Skipped | None:
        """A run begins: make the pass and put its probes in place."""
        session = self._session
        self.counter.count.enter()
        if not session.is_on():
            self.unrecorded += bool(session.recorder.failed) and session.is_mine()
            return None
        try:
            with self._alone(), session.compiled, _no_function(), _no_dispatch():
                self._forget_broken_off()
                if session.rounds.skips():
                    self.door.next_id()
                    return SKIPPED
                return self._begin(read_call(args, kwargs or {}))
        except Exception as error:
            session.recorder.fault(error)
            self.unrecorded += 1
            return None

    def after(
        self,
        live: LivePass | Unfollowed | Skipped | None,
        result: object,
        error: BaseException | None,
    ) -> None:
        """A run ended: enter what happened and take the probes away."""
        session = self._session
        self.counter.count.leave()
        if live is None:
            return
        if isinstance(live, Skipped):
            self._skipped()
            return
        if isinstance(live, Unfollowed):
            if error is None:
                session.recorder.writer.dropped("passes whose root has no node to be found")
            return
        try:
            with self._alone(), session.compiled, _no_function(), _no_dispatch():
                self._end(live, error)
        except Exception as fault:
            session.recorder.fault(fault)
            enter_pass(live.outside)
            live.detach()
        self.unrecorded += bool(self._session.recorder.failed)

    def before_queueing(self, args: tuple[Any, ...], kwargs: Any) -> LivePass | None:
        """A callback for the end of the running pass is queued: one of ours comes before it."""
        live = self.running()
        if live is not None:
            _queue(live.callback_begins)
        return live

    def after_queueing(
        self, live: LivePass | None, result: object, error: BaseException | None
    ) -> None:
        """And another after it."""
        if live is not None:
            _queue(live.user_code_ends)

    def _skipped(self) -> None:
        try:
            with self._alone():
                self._session.rounds.skipped()
        except Exception as fault:
            self._session.recorder.fault(fault)

    def _forget_broken_off(self) -> None:
        """Leave the passes that a Ctrl-C has broken off while we began or ended them."""
        ident = threading.get_ident()
        if ident not in self._running or torch._C._current_graph_task_id() != -1:
            return  # within an engine run, those are its own
        for live in list(self._running[ident]):
            self._tasks.pop(live.state.task, None)
            self._leave(live)
            live.detach()
            self._session.recorder.writer.dropped("the ends of passes that Ctrl-C broke off")

    def _alone(self) -> threading.RLock:
        """Let passes of several threads begin and end one after another: ids are counted there."""
        return self._session.recorder.lock

    def _begin(self, call: EngineCall) -> LivePass | Unfollowed | None:
        session = self._session
        recorder = session.recorder
        if is_capturing():
            recorder.writer.dropped("passes captured into a CUDA graph, which runs them unseen")
            return None
        edges = structure.root_edges(call.outputs)
        if not edges:
            return None
        if any(fn is None for fn, _ in edges):
            return UNFOLLOWED
        outer = self.running()
        if outer is not None and outer.state.task == -1:
            outer.is_running_here()  # inside a hook of the outer run: now its number can be known
        site = session.mode.here()
        signatures = session.graphs.signatures
        found = self.door.take_walk() or core_walk(session.mode, edges, signatures, True)
        walk = structure.Walk(*found)
        try:
            live = self._live_pass(walk)
        except BaseException:
            let_go(walk.fns)
            raise
        if call.create_graph:
            live.state.made = live.made = session.second_order.follow(live.graph, site)
        self._enter(live)
        try:
            self._put_in_place(live, call, site, outer)
        except BaseException:
            self._leave(live)
            live.detach()
            raise
        return live

    def _live_pass(self, walk: structure.Walk) -> LivePass:
        make_room(len(walk.fns))
        leaves = self._session.leaves_of(walk)
        graph = self._session.graphs.graph_of(walk, leaves)
        recorder = self._session.recorder
        state = PassState(recorder.tape, self.door.next_id(), self.claim, recorder.fault)
        return LivePass(self._session, state, graph, walk, leaves)

    def _put_in_place(
        self, live: LivePass, call: EngineCall, site: int, outer: LivePass | None
    ) -> None:
        """Put the probes of a pass on its nodes, and enter that it begins."""
        session, recorder = self._session, self._session.recorder
        session.ledger.check_data(live.leaves)
        live.attach()
        record = live.record = Pass(
            id=live.state.id,
            graph=live.graph.id,
            kind=call.kind,
            site=recorder.site(site),
            roots=live.walk.root_records(),
            seeds=all_packed(tuple(recorder.entry(seed) for seed in call.seeds)),
            retain_graph=call.retain_graph,
            create_graph=call.create_graph,
            inputs=session.input_names(call.inputs),
            thread=recorder.tape.thread(),
            parent=outer.state.id if outer is not None else None,
            torchviz=session.likeness(call.outputs, live.walk),
            begin_ns=recorder.tape.now(),
        )
        recorder.put(record)
        recorder.pass_begins(record.id)
        session.saved_writes.pass_begins(live)

    def _enter(self, live: LivePass) -> None:
        session = self._session
        self._running.setdefault(live.thread, []).append(live)
        enter_pass(live.state.id)
        session.mode.set_pass(live.state.id)

    def _end(self, live: LivePass, error: BaseException | None) -> None:
        session = self._session
        recorder = session.recorder
        end_ns = recorder.tape.now()
        live.finish(error)
        if not session.watched.accumulates:
            for leaf, state in live.leaves.values():
                session.ledger.observe_grad(leaf, state)
        self._tasks.pop(live.state.task, None)
        self._leave(live)
        recorder.pass_ends(live.record.id)
        recorder.waiting.record(_ended(live, end_ns, error))
        if not self._running:
            session.round_ends()
            session.forget_gone()
        recorder.flush_if_due()

    def _leave(self, live: LivePass) -> None:
        passes = self._running[live.thread]
        passes.remove(live)
        if not passes:
            del self._running[live.thread]
        enter_pass(live.outside)
        self._session.mode.set_pass(live.outside or 0)


def _ended(live: LivePass, end_ns: int, error: BaseException | None) -> Pass:
    outcome = Outcome()
    if error is not None:
        outcome = Outcome(type(error).__name__, str(error), live.failed_at)
    state = live.state
    return replace(
        live.record,
        end_ns=end_ns,
        outcome=outcome,
        node_count=state.node_count,
        leaf_count=state.leaf_count,
    )
