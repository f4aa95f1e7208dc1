"""Puts the watchers in place for as long as a recording lasts, and takes every one away again."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.variable import Variable
from torch.optim import optimizer as optimizers
from torch.overrides import TorchFunctionMode

from tracer.capture import attributes, structure
from tracer.capture.births import Births
from tracer.capture.compiled import CompiledRegions
from tracer.capture.core import Around, ModeCore, Modeless, read_with
from tracer.capture.engine import Engine
from tracer.capture.forward import Operations
from tracer.capture.functions import code_of, innermost
from tracer.capture.graphs import GraphBook, Leaves
from tracer.capture.hooks import HookBook
from tracer.capture.jit_tracing import JitTracing
from tracer.capture.ledger import LeafState, Ledger
from tracer.capture.live_pass import LivePass
from tracer.capture.loops import LoopBook
from tracer.capture.modules import Modules
from tracer.capture.names import NameBook
from tracer.capture.overrides import Overrides
from tracer.capture.readings import settled_node
from tracer.capture.recompute import Recomputes
from tracer.capture.recorder import Recorder, Writer
from tracer.capture.registrations import Registrations
from tracer.capture.rounds import Rounds
from tracer.capture.saved_hooks import SavedHooks
from tracer.capture.saved_writes import SavedWrites
from tracer.capture.second_order import SecondOrder
from tracer.capture.sites import SiteTable
from tracer.capture.swaps import Swaps
from tracer.capture.writers import function_that_writes
from tracer.records.events import UNSEEN, Mark, OptimizerStep, Pause
from tracer.records.graph import Site
from tracer.records.limits import ALL_THERE_IS, Limits

_next_sequence_nr = torch._C._autograd._get_sequence_nr
_INHERITED = object()
DrawLikeness = Callable[[Sequence[Any], structure.Walk], tuple[str, str]]


class _Mode(ModeCore, TorchFunctionMode):  # type: ignore[misc]
    """Sees every `torch` call of user code, in C."""

    def __init__(self, *_core: Any) -> None:
        TorchFunctionMode.__init__(self)


class _Door:
    """Stands in for the engine: the same object to its callers, with two methods watched."""

    def __init__(self, engine: Any, run_backward: Any, queue_callback: Any) -> None:
        self._engine = engine
        self.run_backward = run_backward
        self.queue_callback = queue_callback

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Session:
    """One recording: owns the recorder and all watchers.

    Only one session records at a time in a process: a second one raises RuntimeError.
    """

    active: Session | None = None

    def __init__(
        self,
        writer: Writer,
        *,
        limits: Limits = ALL_THERE_IS,
        draw_likeness: DrawLikeness | None = None,
        library_frames: bool = False,
    ) -> None:
        self.recorder = Recorder(writer, limits=limits, name_of=self._tensor_name)
        self.watched = self.recorder.watched
        self.sites = SiteTable(show_library=library_frames)
        self.ledger = Ledger(self.recorder)
        self.modules = Modules(self)
        self.hooks = HookBook(self.recorder, self.sites, self.modules.path_of)
        self.graphs = GraphBook(self)
        self.rounds = Rounds(self, limits.every)
        self.engine = Engine(self)
        self.saved_writes = SavedWrites(self)
        self.operations = Operations(self)
        self.names = NameBook(self.sites.is_user)
        self.births = Births(self)
        self.compiled = CompiledRegions(self)
        self.second_order = SecondOrder(self)
        self.recomputes = Recomputes(self)
        self.optimizer: list[str] = []
        self.paused = False
        self.first_sequence_nr = 0
        self._draw_likeness = draw_likeness
        bounded = limits.every > 1 or limits.last or limits.max_bytes
        self._records_all = self.watched.everything and not (bounded or draw_likeness)
        self._codes: list[Any] = []
        self._steps: list[Any] = []
        self._taken_off: dict[int, int] = {}
        self._op_names: dict[int, str] = {}
        self.undo: list[Callable[[], object]] = []
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        self.mode = _Mode(
            self.recorder.tape,
            self.operations.describe,
            self._is_user,
            self._site_of,
            self.operations.cuts.plain,
            self.recorder.fault,
        )

        self.loops = LoopBook(self.sites, self.recorder.site, lambda: self.mode.round)
        self.mode.ran = self.loops.ran
        self.mode.book = self.ledger.book
        self.mode.kept = self.operations.cuts.kept()
        self.mode.severed = self.operations.cuts.severed.known
        self.mode.derived = self.operations.cuts.derived
        self.modules.follow(self.mode)
        self.recorder.stop = self.stop
        self.recorder.text_of = self.sites.text_of

    # ---- installing

    def install(self) -> None:
        """Begin to watch."""
        if Session.active is not None:
            raise RuntimeError("a trace is already being recorded in this process")
        Session.active = self
        read_with(torch.get_num_threads())
        self.first_sequence_nr = _next_sequence_nr()
        real, ours = Variable._execution_engine, self.engine
        run = ours.open_door(real.run_backward, may_run_there=self._records_all)
        queue = Around(real.queue_callback, ours.before_queueing, ours.after_queueing)
        self.replace(Variable, "_execution_engine", _Door(real, run, queue))
        call = torch.nn.Module.__call__
        self.replace(
            torch.nn.Module,
            "__call__",
            Around(call, self.modules.stack.before, self.modules.stack.after),
        )
        apply = torch.autograd.Function.__dict__["apply"].__func__
        self.replace(
            torch.autograd.Function,
            "apply",
            classmethod(Around(apply, self._before_apply, self._after_apply)),
        )
        self.watch_steps()
        self.undo.append(self.leave_steps)
        for name in ("__enter__", "__exit__"):
            method = getattr(torch.inference_mode, name)
            changed = Around(
                method, self.operations.before_inference, self.operations.after_inference
            )
            self.replace(torch.inference_mode, name, changed)
        make = torch.nn.Parameter.__dict__["__new__"].__func__
        changed = Around(make, self.operations.before_parameter, self.operations.after_parameter)
        self.replace(torch.nn.Parameter, "__new__", staticmethod(changed))
        bootstrap = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]
        self.replace(
            threading.Thread,
            "_bootstrap_inner",
            Around(bootstrap, self._before_thread, self._after_thread),
        )
        for owner, name in (
            (torch.Tensor, "backward"),
            (torch.autograd, "backward"),
            (torch.autograd, "grad"),
        ):
            call = owner.__dict__[name]
            changed = Modeless(
                call, self._before_backward, self._after_backward, self.mode, self._taken_off
            )
            self.replace(owner, name, changed)
        self.recomputes.install()
        Overrides(self).install()
        Swaps(self).install()
        JitTracing(self).install()
        SavedHooks(self).install()
        Registrations(self).install()
        attributes.install(self)
        self.compiled.install()
        self.operations.cuts.modes.catch_up()
        torch._C._push_on_torch_function_stack(self.mode)

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Put ours in the place of an attribute of a class or module, until the recording ends."""
        self._replaced.append((owner, name, owner.__dict__.get(name, _INHERITED), value))
        setattr(owner, name, value)

    def watch_steps(self) -> None:
        """See every step of an optimizer."""
        if Session.active is self and not self._steps:
            self._steps = [
                optimizers.register_optimizer_step_pre_hook(self._before_step),
                optimizers.register_optimizer_step_post_hook(self._after_step),
            ]

    def leave_steps(self) -> None:
        """See no step of an optimizer."""
        while self._steps:
            self._steps.pop().remove()

    def follow(self) -> None:
        """Hand on each event as it happens."""

        def settle() -> None:
            live = self.engine.running()
            if live is not None and not live.state.closed:
                live.settle_done()

        self.recorder.follow(settle)

    def put_originals(self) -> None:
        """Put back all that we replaced, for as long as code is being compiled."""
        for owner, name, original, _value in reversed(self._replaced):
            if original is not _INHERITED:
                setattr(owner, name, original)
            elif name in owner.__dict__:
                delattr(owner, name)

    def put_replacements(self) -> None:
        """Put ours in place again, unless the recording has ended meanwhile."""
        if Session.active is self:
            for owner, name, _original, value in self._replaced:
                setattr(owner, name, value)

    def _before_backward(self, args: tuple[Any, ...], kwargs: Any) -> bool:
        """Take the mode off: seeing it, PyTorch would call itself again through a frame of Python,
        and a warning that counts frames (`stacklevel`) would name another line than the user's."""
        depth = torch._C._len_torch_function_stack()
        if not depth or torch._C._get_function_stack_at(depth - 1) is not self.mode:
            return False
        torch._C._pop_torch_function_stack()
        return True

    def _after_backward(self, taken: bool, result: object, error: BaseException | None) -> None:
        """Put the mode on again, unless the watchers rest: then it stays off until they wake.

        It goes back only to the depth it was taken from, under no mode of the user's.
        """
        if Session.active is not self:
            return
        thread, depth = threading.get_ident(), torch._C._len_torch_function_stack()
        if taken and self.rounds.resting:
            self._taken_off[thread] = depth
        elif taken or (not self.rounds.resting and self._taken_off.get(thread) == depth):
            self._taken_off.pop(thread, None)
            torch._C._push_on_torch_function_stack(self.mode)

    def _before_thread(self, args: tuple[Any, ...], kwargs: Any) -> bool:
        self.mode.begin_thread()
        self.modules.stack.begin_thread()
        torch._C._push_on_torch_function_stack(self.mode)
        return True

    def _after_thread(self, token: Any, result: object, error: BaseException | None) -> None:
        """The thread ends, and its stack of modes with it."""

    def abandon(self) -> None:
        """Stop watching in a fork of the recording process, and touch nothing that is its."""
        self.stop()
        self.uninstall()

    def uninstall(self) -> None:
        """Stop watching and leave torch as it was."""
        if Session.active is not self:
            return
        self.mode.paused = 1
        self.take_mode_off()
        self.put_originals()
        self._replaced.clear()
        while self.undo:
            self.undo.pop()()
        Session.active = None
        if self.is_mine():
            self._observe_at_last()
            if self.mode.evicted:
                self.recorder.writer.dropped(
                    "operations too long ago to say which line made their nodes", self.mode.evicted
                )
            if self.recorder.failed:
                missing = self.engine.unrecorded
                what = "passes, in whole or in part" if missing else "the end of the run"
                why = f"{what}: the recording had stopped ({self.recorder.failed})"
                self.recorder.writer.dropped(why, missing or 1)
            missed = self.engine.counter.missed(Variable._execution_engine.run_backward)
            if missed:
                self.recorder.writer.dropped(
                    "passes that C++ code began, as TorchScript and distributed autograd do", missed
                )
            self.recorder.close()

    def _observe_at_last(self) -> None:
        """Enter what nobody saw being written since it was last looked at."""
        if not self.is_recording():
            return
        try:
            with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
                self.ledger.catch_up(UNSEEN)
        except Exception as fault:
            self.recorder.fault(fault)

    def take_mode_off(self) -> bool:
        """Take our mode off the thread's stack and leave the user's; whether it was on it."""
        above = []
        found = False
        while not found and torch._C._len_torch_function_stack():
            top = torch._C._pop_torch_function_stack()
            found = top is self.mode
            if not found:
                above.append(top)
        for mode in reversed(above):
            torch._C._push_on_torch_function_stack(mode)
        return found

    def is_recording(self) -> bool:
        """Whether what happens now is to be recorded, in this process."""
        return self.is_on() and not self.rounds.resting

    def is_on(self) -> bool:
        """Whether passes that begin now are to be counted, in this process."""
        return not (self.paused or self.recorder.failed) and self.is_mine()

    def is_mine(self) -> bool:
        """Whether this is the process that began the recording, and not a fork of it."""
        return os.getpid() == self.recorder.pid

    # ---- what the watchers ask of each other

    def _is_user(self, code: Any) -> bool:
        self._codes.append(code)
        return self.sites.is_user(code)

    def _site_of(self, code: Any, lasti: int, line: int) -> int:
        return self.recorder.add_site(self.sites.lookup(code, lasti, line))

    def made_by(self, sequence_nr: int) -> Any:
        """(site, op, module, call, seq) of the operation that made a node, or None."""
        return self.mode.made_by(sequence_nr)

    def op_name(self, op: int) -> str:
        """The qualified name of an operation's id."""
        return (
            self.operations.name_of(op) or self._op_names.get(op, "") or self.second_order.name(op)
        )

    def name_op(self, op: int, name: str) -> None:
        """Say what to call an operation that no function of torch's is."""
        self._op_names[op] = name

    def defined_at(self, function: object) -> Site | None:
        """The site where a function of the user's was written, stored; None for other functions."""
        code = code_of(innermost(function))
        if code is None or not self.sites.is_user(code):
            return None
        site = self.sites.function_site(function)[0]
        self.recorder.add_site(site)
        return site

    def live_pass(self) -> LivePass | None:
        """The pass that runs in the calling thread."""
        return self.engine.running()

    def settle(self, state: LeafState) -> None:
        """Enter what the running pass added to a leaf, before user code changes it."""
        live = self.engine.running()
        if live is not None:
            live.settle_leaf(state)

    def leaves_of(self, walk: structure.Walk) -> Leaves:
        """The leaves a walk reached, each with its state and, where it can be found, its name.

        A tensor that was frozen and then became an operation's result still has its node.
        """
        leaves = self.ledger.states(walk.variables)
        self._name(leaves)
        return leaves

    def _name(self, leaves: Leaves) -> None:
        unnamed = {state.id: leaf for leaf, state in leaves.values() if not state.name}
        if not unnamed:
            return
        found = self.names.names(unnamed, sys._getframe(), first=self.modules.running_scope())
        for leaf, state in leaves.values():
            if not state.name:
                name = found.get(state.id) or self.births.name_of(leaf)
                if name:
                    self.ledger.name(leaf, state, name)

    def leaf_name(self, state: LeafState) -> str:
        """The name of a leaf, empty where none was found."""
        return state.name

    def _tensor_name(self, tensor: Tensor) -> str:
        """The name a reader knows a tensor by: a leaf's, or what its operation was bound to."""
        state = self.ledger.find(tensor)
        if state is not None and self.leaf_name(state):
            return self.leaf_name(state)
        fn = settled_node(tensor)
        if fn is not None:
            made = self.made_by(fn._sequence_nr())
            site = self.recorder.site(made[0]) if made is not None else None
            if site is not None and site.targets:
                return site.targets[0]
            return self.names.variable_of(tensor, sys._getframe())
        scope = self.modules.running_scope()
        return self.names.name_now(tensor, sys._getframe(), first=scope)

    def input_names(self, inputs: Sequence[Any] | None) -> tuple[str, ...] | None:
        """The names of the tensors given as `inputs=`."""
        if inputs is None:
            return None
        return tuple(
            self._tensor_name(given) if isinstance(given, Tensor) else type(given.node).__name__
            for given in inputs
        )

    def round_ends(self) -> None:
        """The outermost pass ended: what runs from here on leads to the next one."""
        self.mode.round += 1
        self.modules.stack.round_ends()
        self.names.round_ends()
        self.rounds.ended()

    def forget_gone(self) -> None:
        """Drop what is kept of tensors and hooks that are gone, where that has become much."""
        self.hooks.forget_dead()
        self.ledger.forget_gone()

    def likeness(self, outputs: Sequence[Any], walk: structure.Walk) -> str:
        """torchviz's own picture of the roots, where it was asked for."""
        if self._draw_likeness is None:
            return ""
        dot, reason = self._draw_likeness(outputs, walk)
        if reason:
            self.recorder.writer.dropped(reason)
        return dot

    # ---- custom Functions, handles, optimizers

    def _before_apply(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        return (
            _next_sequence_nr(),
            self.recorder.tape.now(),
            args[0],
            self.operations.cuts.modes.chosen(),
        )

    def _after_apply(self, token: Any, result: Any, error: BaseException | None) -> None:
        low, begin, cls, chosen = token
        self.operations.cuts.modes.choose(*chosen)
        if error is not None or self.mode.paused or _next_sequence_nr() == low:
            return
        try:
            name = f"{cls.__qualname__}.apply"
            op = self.recorder.writer.string(name)
            self.name_op(op, name)
            self.mode.log_forward(op, low, low + 1, self.recorder.tape.next_seq(), begin)
        except Exception as fault:
            self.recorder.fault(fault)

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        name = type(optimizer).__name__
        self.optimizer.append(name)
        self.mode.stepping = self.saved_writes.id_of(f"{name}.step")

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        try:
            name = self.optimizer.pop() if self.optimizer else type(optimizer).__name__
            outer = self.optimizer[-1:]
            self.mode.stepping = self.saved_writes.id_of(f"{outer[0]}.step") if outer else 0
            if self.is_recording():
                with torch._C.DisableTorchFunction():
                    self._enter_step(optimizer, name)
                self.rounds.stepped()
        except Exception as fault:
            self.recorder.fault(fault)

    def _enter_step(self, optimizer: Any, name: str) -> None:
        recorder = self.recorder
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        wanting = [p for p in parameters if p.requires_grad and self.ledger.find(p) is None]
        if wanting:  # no pass has reached them: that is worth telling
            self._name({k: (p, self.ledger.leaf(p)) for k, p in enumerate(wanting)})
        states = [self.ledger.find(parameter) for parameter in parameters]
        recorder.emit(
            OptimizerStep(
                **recorder.stamp(),
                optimizer=name,
                site=recorder.site(self.mode.here()),
                leaves=tuple(state.id for state in states if state is not None),
            )
        )

    def in_optimizer(self) -> bool:
        """Whether an optimizer's own operations run (not its closure, which enables gradients)."""
        return bool(self.optimizer) and not torch.is_grad_enabled()

    def writer_name(self, how: str) -> str:
        """Who writes: the optimizer while it steps, else a function of PyTorch's that writes to
        many, else the operation."""
        if self.in_optimizer():
            return f"{self.optimizer[-1]}.step"
        return function_that_writes(sys._getframe()) or how

    # ---- what user code may say

    def mark(self, text: str) -> None:
        """Enter a mark."""
        if not self.paused:
            self._enter(Mark, text=text)

    def pause(self) -> None:
        """Record nothing until `resume`, and say so."""
        if not self.paused:
            self._enter(Pause, resumed=False)
            self.stop()

    def stop(self) -> None:
        """Record nothing more."""
        self.paused = True
        self.set_watching()

    def resume(self) -> None:
        """Record again."""
        if self.paused and not self.recorder.failed:
            self.paused = False
            self.set_watching()
            self._enter(Pause, resumed=True)
            self.catch_up("while the recording was paused")

    def _enter(self, kind: type[Mark] | type[Pause], **said: Any) -> None:
        """Enter what user code says of the recording."""
        recorder = self.recorder
        try:
            site = recorder.site(self.mode.here())
            recorder.emit(kind(**recorder.stamp(), **said, site=site))
        except Exception as fault:
            recorder.fault(fault)

    def set_watching(self) -> None:
        """Have the function mode pass everything on, or watch again."""
        self.mode.paused = 0 if self.is_recording() else 1

    def catch_up(self, how: str) -> None:
        """Enter what became of leaves while nobody watched, as one write to each."""
        if self.is_recording():
            with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
                self.ledger.catch_up(how)
            self.operations.cuts.modes.catch_up()


def _after_fork() -> None:
    if Session.active is not None:
        Session.active.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
