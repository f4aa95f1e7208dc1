"""Runs of the autograd engine: each becomes a pass, with a probe on every node while it runs."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import _engine_run_backward
from torch.autograd.variable import Variable

from tracer.capture import structure
from tracer.capture.core import PassState, RunBackward, enter_pass, let_go, pass_here
from tracer.capture.core import walk as core_walk
from tracer.capture.deep import make_room
from tracer.capture.engine_call import EngineCall, is_capturing, read_call
from tracer.capture.live_pass import LivePass
from tracer.capture.recorder import all_packed
from tracer.capture.rounds import SKIPPED, Skipped
from tracer.capture.uncounted import RunCounter
from tracer.records.events import Outcome, Pass

if TYPE_CHECKING:
    from tracer.capture.session import Session


_queue = Variable._execution_engine.queue_callback
_no_function, _no_dispatch = torch._C.DisableTorchFunction, torch._C._DisableTorchDispatch


class Unfollowed:
    """A run from a root without a node: the engine refuses it, or else it is counted as missed."""


UNFOLLOWED = Unfollowed()


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
            recorder.pid, may_run_there, recorder.writer.flush_bytes,
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
        ran, graphs = self.door.take_ran()
        if ran:
            self._session.recorder.writer.ran(ran, graphs)

    def inputs_text(self, inputs: tuple[str, ...]) -> object:
        """What the writer takes of the names given as `inputs=`, of a pass that ran in the core."""
        return self._session.recorder.writer.inputs_text(inputs)

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
        number = self.door.next_id()  # what the core knows of graphs may not hold from here on
        leaves = self._session.leaves_of(walk)
        graph = self._session.graphs.graph_of(walk, leaves)
        recorder = self._session.recorder
        state = PassState(recorder.tape, number, self.claim, recorder.fault)
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
