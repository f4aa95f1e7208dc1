"""Runs of the autograd engine: each becomes a pass, with a probe on every node while it runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tracer.capture import structure
from tracer.capture.core import NodeProbe, PassState
from tracer.capture.hooks import ACCUMULATE_HOOK, POSTHOOK, PREHOOK, TENSOR_HOOK, Wrapped
from tracer.capture.ledger import LeafState
from tracer.capture.readings import NONE
from tracer.capture.recorder import packed
from tracer.records.events import Accumulate, Outcome, Pass, PassBegin, PassEnd
from tracer.records.graph import Graph, NodeKind
from tracer.records.stream import ENTRY_SAME

if TYPE_CHECKING:
    from tracer.capture.session import Session

SAME = bytes([ENTRY_SAME])


class LeafProbe:
    """The prehook of one `AccumulateGrad`: what arrives, and what `.grad` held before."""

    __slots__ = (
        "accumulated",
        "before",
        "incoming",
        "leaf",
        "live",
        "node",
        "order",
        "same",
        "seq",
        "state",
        "t_ns",
    )

    def __init__(
        self, live: LivePass, node: int, leaf: Tensor, state: LeafState, *, same: bool
    ) -> None:
        self.live = live
        self.node = node
        self.leaf = leaf
        self.state = state
        self.same = same
        self.seq = 0

    def __call__(self, gradients: tuple[Tensor | None, ...]) -> None:
        live = self.live
        if not live.is_running_here():
            return
        try:
            with torch._C.DisableTorchFunction():
                self._begin(live, gradients[0])
        except Exception as error:
            live.session.recorder.fault(error)

    def _begin(self, live: LivePass, gradient: Tensor | None) -> None:
        recorder, state = live.session.recorder, live.state
        if self.seq:
            live.settle(self.node)
        self.before = live.session.ledger.before_accumulate(self.leaf, self.state)
        same = self.same and gradient is not None
        self.incoming = SAME if same else recorder.entry(gradient)
        tape = recorder.tape
        self.seq, self.t_ns = tape.next_seq(), tape.now()
        state.order += 1
        state.node_count += 1
        state.leaf_count += 1
        self.order = state.order
        self.accumulated = False
        live.unsettled[self.node] = self


class LivePass:
    """One engine run while it lasts: its probes, the hooks it wrapped, what is still to be entered."""

    def __init__(self, session: Session, record: Pass, graph: Graph, walk: structure.Walk) -> None:
        self.session = session
        self.record = record
        self.graph = graph
        self.walk = walk
        self.thread = threading.get_ident()
        self.state = PassState(
            session.recorder.tape, record.id, session.engine.claim, session.recorder.fault
        )
        self.wrapped = Wrapped()
        self.unsettled: dict[int, LeafProbe] = {}
        self.leaves: dict[int, tuple[Tensor, LeafState]] = {}
        self._handles: list[Any] = []
        self._pushed = 0

    # ---- probes

    def attach(self) -> None:
        """Put a probe on every node, and one around every user hook."""
        walk, into = self.walk, self.walk.into
        roots = {(root.node, root.input_nr) for root in walk.roots}
        for number, fn in enumerate(walk.fns):
            leaf = self.leaves.get(number)
            if leaf is not None:
                self._attach_leaf(number, fn, *leaf, same=self._is_same(number, 0, roots))
            else:
                inputs = max(len(self.graph.nodes[number].outputs), 1)
                hooked = self._wrap_outputs(number)
                same = bytes(
                    into.get((number, k), 0) == 1 and (number, k) not in roots and k not in hooked
                    for k in range(inputs)
                )
                self._attach_node(number, fn, same)

    def _is_same(self, number: int, k: int, roots: set[tuple[int, int]]) -> bool:
        return self.walk.into.get((number, k), 0) == 1 and (number, k) not in roots

    def _wrap_outputs(self, number: int) -> set[int]:
        """Wrap the tensor hooks on a node's outputs; which inputs have any."""
        book, sequence_nr = self.session.hooks, self.walk.sequence_nrs[number]
        hooked = set()
        if not self.session.saw_made(sequence_nr):
            return set(range(len(self.graph.nodes[number].outputs)))
        for k in range(len(self.graph.nodes[number].outputs)):
            for hooks in book.on_output(sequence_nr, k):
                book.wrap(self, hooks, TENSOR_HOOK, number, input_nr=k)
                hooked.add(k)
        return hooked

    def _attach_node(self, number: int, fn: Any, same: bytes) -> None:
        kind = self.graph.nodes[number].kind
        custom = kind is NodeKind.CUSTOM
        begins, ends = (self.user_code_begins, self.user_code_ends) if custom else (None, None)
        probe = NodeProbe(self.state, number, same, not custom, begins, ends)
        pre = fn.register_prehook(probe)
        hooks = pre.hooks_dict_ref()
        if len(hooks) > 1:
            self.session.hooks.wrap(self, hooks, PREHOOK, number)
            del hooks[pre.id]
            probe = NodeProbe(self.state, number, b"", not custom, begins, ends)
            pre = fn.register_prehook(probe)
        post = fn.register_hook(probe)
        if len(post.hooks_dict_ref()) > 1:
            self.session.hooks.wrap(self, post.hooks_dict_ref(), POSTHOOK, number)
        self._handles.append(pre)
        self._handles.append(post)

    def _attach_leaf(
        self, number: int, fn: Any, leaf: Tensor, state: LeafState, *, same: bool
    ) -> None:
        book = self.session.hooks
        if leaf._backward_hooks:
            same = book.wrap(self, leaf._backward_hooks, TENSOR_HOOK, number, input_nr=0) == 0
        probe = LeafProbe(self, number, leaf, state, same=same)
        handle = fn.register_prehook(probe)
        hooks = handle.hooks_dict_ref()
        if len(hooks) > 1 and book.wrap(self, hooks, PREHOOK, number):
            probe.same = False
        if leaf._post_accumulate_grad_hooks:
            book.wrap(self, leaf._post_accumulate_grad_hooks, ACCUMULATE_HOOK, number)
        self._handles.append(handle)

    def is_probe(self, function: object) -> bool:
        """Whether a hook is one of ours."""
        return isinstance(function, LeafProbe)

    def detach(self) -> None:
        """Leave nothing of ours on any node or tensor."""
        self.state.closed = 1
        self.wrapped.restore()
        for handle in self._handles:
            hooks = handle.hooks_dict_ref()
            if hooks is not None:
                hooks.pop(handle.id, None)
        self._handles.clear()

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
        torch._C._push_on_torch_function_stack(self.session.mode)
        self._pushed += 1
        self.state.guarded += 1

    def user_code_ends(self) -> None:
        """Take the function mode off again."""
        if self._pushed:
            self._pushed -= 1
            self.state.guarded -= 1
            torch._C._pop_torch_function_stack()

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
        probe = self.unsettled.pop(node, None)
        if probe is None:
            return
        recorder = self.session.recorder
        if probe.leaf.grad is None and probe.before == NONE:
            return  # a hook further on raised, or the gradient was undefined
        after = self.session.ledger.accumulated(probe.leaf, probe.state)
        recorder.emit(
            Accumulate(
                seq=probe.seq,
                t_ns=probe.t_ns,
                thread=recorder.tape.thread(),
                pass_id=self.state.id,
                leaf=probe.state.id,
                node=node,
                order=probe.order,
                before=packed(probe.before),
                incoming=packed(probe.incoming),
                after=packed(after),
            )
        )

    def settle_leaf(self, state: LeafState) -> None:
        """Enter what the engine added to a leaf before user code writes to its `.grad`."""
        for node, probe in list(self.unsettled.items()):
            if probe.state is state:
                self.settle(node)

    def resettle(self, node: int) -> None:
        """Take an accumulate hook's change of `.grad` as known: its own event tells it."""
        held = self.leaves.get(node)
        if held is not None:
            self.session.ledger.accumulated(*held)

    def finish(self, error: BaseException | None) -> None:
        """Enter what is still open and leave the graph as it was."""
        self._pushed = self.state.guarded = 0  # the engine itself restores the modes of a node
        for node in list(self.unsettled):
            self.settle(node)
        self.failed_at = max(
            self.state.open, key=lambda node: self.state.open[node].order, default=None
        )
        for probe in self.state.open.values():
            probe.abandon()
        self.state.open.clear()
        self.detach()


class Engine:
    """The door to the engine: `before` and `after` are called around every run of it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._running: dict[int, list[LivePass]] = {}
        self._tasks: dict[int, int] = {}
        self._count = 0

    def running(self) -> LivePass | None:
        """The innermost pass of the calling thread."""
        passes = self._running.get(threading.get_ident())
        return passes[-1] if passes else None

    def claim(self, state: Any, task: int) -> bool:
        """Whether the engine run numbered `task`, seen for the first time by `state`, is its own."""
        if task == -1 or task in self._tasks:
            return bool(self._tasks.get(task) == state.id)
        innermost = self.running()
        if innermost is None:  # a device thread: the newest pass that has not been seen yet
            waiting = [p for passes in self._running.values() for p in passes if p.state.task == -1]
            innermost = waiting[-1] if waiting else None
        if innermost is None or innermost.state.id != state.id:
            return False
        self._tasks[task] = state.id
        return True

    # ---- the door

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> LivePass | None:
        """A run begins: make the pass and put its probes in place."""
        session = self._session
        if session.recorder.failed or session.paused or not session.is_mine():
            return None
        try:
            with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
                return self._begin(_Call.read(args, kwargs or {}))
        except Exception as error:
            session.recorder.fault(error)
            return None

    def after(self, live: LivePass | None, result: object, error: BaseException | None) -> None:
        """A run ended: enter what happened and take the probes away."""
        if live is None:
            return
        try:
            with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
                self._end(live, error)
        except Exception as fault:
            self._session.recorder.fault(fault)
            live.detach()

    def _begin(self, call: _Call) -> LivePass | None:
        session = self._session
        recorder = session.recorder
        edges = structure.root_edges(call.outputs)
        if not edges:
            return None
        outer = self.running()
        if outer is not None and outer.state.task == -1:
            outer.is_running_here()  # inside a hook of the outer run: now its number can be known
        site = session.mode.here()
        walk = structure.walk(edges)
        leaves = session.leaves_of(walk)
        graph = session.graphs.graph_of(walk, leaves)
        self._count += 1
        record = Pass(
            id=self._count,
            graph=graph.id,
            kind="backward" if call.accumulates else "grad",
            site=recorder.site(site),
            roots=walk.roots,
            seeds=tuple(packed(recorder.entry(seed)) for seed in call.seeds),
            retain_graph=call.retain_graph,
            create_graph=call.create_graph,
            inputs=session.input_names(call.inputs),
            thread=recorder.tape.thread(),
            parent=outer.state.id if outer is not None else None,
            torchviz=session.likeness(call.outputs, walk),
        )
        live = LivePass(session, record, graph, walk)
        live.leaves = leaves
        self._running.setdefault(live.thread, []).append(live)
        recorder.current_pass.setdefault(live.thread, []).append(record.id)
        session.mode.set_pass(record.id)
        for tensor, state in leaves.values():
            session.ledger.check_data(tensor, state)
        live.attach()
        live.record = replace(record, begin_ns=recorder.tape.now())
        recorder.writer.put(live.record)
        recorder.emit(
            PassBegin(
                seq=recorder.tape.next_seq(),
                t_ns=live.record.begin_ns,
                thread=record.thread,
                pass_id=record.id,
            )
        )
        return live

    def _end(self, live: LivePass, error: BaseException | None) -> None:
        session = self._session
        recorder = session.recorder
        end_ns = recorder.tape.now()
        live.finish(error)
        self._tasks.pop(live.state.task, None)
        self._leave(live)
        recorder.emit(
            PassEnd(
                seq=recorder.tape.next_seq(),
                t_ns=end_ns,
                thread=live.record.thread,
                pass_id=live.record.id,
            )
        )
        recorder.writer.put(_ended(live, end_ns, error))
        if not self._running:
            session.round_ends()
        recorder.flush_if_due()

    def _leave(self, live: LivePass) -> None:
        passes = self._running[live.thread]
        passes.remove(live)
        ids = self._session.recorder.current_pass[live.thread]
        ids.remove(live.record.id)
        if not passes:
            del self._running[live.thread]
            del self._session.recorder.current_pass[live.thread]
        self._session.mode.set_pass(ids[-1] if ids else 0)


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


class _Call:
    """The arguments of `run_backward`, by name, as `torch.autograd` passes them."""

    __slots__ = ("accumulates", "create_graph", "inputs", "outputs", "retain_graph", "seeds")

    def __init__(
        self,
        outputs: Sequence[Any],
        seeds: Sequence[Tensor | None],
        *,
        retain_graph: bool,
        create_graph: bool,
        inputs: Sequence[Any] | None,
        accumulates: bool,
    ) -> None:
        self.outputs = outputs
        self.seeds = seeds
        self.retain_graph = retain_graph
        self.create_graph = create_graph
        self.inputs = inputs
        self.accumulates = accumulates

    @classmethod
    def read(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
        names = (
            "tensors",
            "grad_tensors",
            "keep_graph",
            "create_graph",
            "inputs",
            "allow_unreachable",
            "accumulate_grad",
        )
        given = dict(zip(names, args, strict=False)) | kwargs
        return cls(
            given["tensors"],
            given["grad_tensors"],
            retain_graph=bool(given.get("keep_graph")),
            create_graph=bool(given.get("create_graph")),
            inputs=given.get("inputs") or None,
            accumulates=bool(given.get("accumulate_grad")),
        )
