"""Keeps our watchers out of `torch.compile`: compiled code runs, and is made, as if untraced.

Dynamo guards on the stack of function modes and inlines `Module.__call__`; were ours there, code
would be compiled again or break into pieces; and it inlines the hooks of optimizers' steps. So the
mode is off and these hooks are removed while compiled code runs, and all that we replaced is put
back while code is being compiled. What ran in between is one opaque node.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from tracer.capture.core import Around

if TYPE_CHECKING:
    from tracer.capture.session import Session

_next_sequence_nr = torch._C._autograd._get_sequence_nr
_set_eval_frame = torch._C._dynamo.eval_frame.set_eval_frame
_OP = "torch.compile"
_EVAL_FRAME = "torch._dynamo.eval_frame"


class CompiledRegions:
    """Watches Dynamo from the moment it is imported.

    Within `with` on it Dynamo looks at no frame of the thread: between compiled pieces it would
    compile our own code, and what that calls.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._inside = threading.local()
        self._watching = False

    def __enter__(self) -> None:
        if self._watching:
            self._aside().append(_set_eval_frame(None))

    def __exit__(self, *_: object) -> None:
        before = self._aside()
        if before:
            _set_eval_frame(before.pop())

    def _aside(self) -> list[Any]:
        """What Dynamo did in this thread before it was put aside, the outermost first."""
        try:
            found: list[Any] = self._inside.aside
        except AttributeError:
            found = self._inside.aside = []
        return found

    def install(self) -> None:
        """Watch Dynamo now, or from the first use of `torch.compile` on."""
        if _EVAL_FRAME in sys.modules:
            self._watch()
        else:
            changed = Around(torch.compile, self._nothing, self._after_compile)
            self._session.replace(torch, "compile", changed)

    def _nothing(self, args: tuple[Any, ...], kwargs: Any) -> bool:
        return True

    def _after_compile(self, token: Any, result: object, error: BaseException | None) -> None:
        if not self._watching and _EVAL_FRAME in sys.modules:
            self._watch()

    def _watch(self) -> None:
        self._watching = True
        session = self._session
        session.engine.door.compiles()
        self._skip_ours()
        frames = sys.modules[_EVAL_FRAME]
        setter = frames.__dict__["_maybe_set_eval_frame"]
        session.replace(frames, "_maybe_set_eval_frame", Around(setter, self._keep, self._switched))
        wrapper = import_module("torch._dynamo.convert_frame").CatchErrorsWrapper
        changed = Around(wrapper.__call__, self._before_conversion, self._after_conversion)
        session.replace(wrapper, "__call__", changed)

    def _skip_ours(self) -> None:
        """Have Dynamo run our own code as it is where it comes between compiled pieces."""
        rules = import_module("torch._dynamo.trace_rules")
        before = len(rules.SKIP_DIRS)
        rules.add(__package__.partition(".")[0])
        added = rules.SKIP_DIRS[before:]

        def undo() -> None:
            rules.SKIP_DIRS[:] = [folder for folder in rules.SKIP_DIRS if folder not in added]
            rules._recompile_re()

        self._session.undo.append(undo)

    def _keep(self, args: tuple[Any, ...], kwargs: Any) -> tuple[Any, ...]:
        return args

    def _switched(self, args: Any, result: object, error: BaseException | None) -> None:
        """Compiled code is about to run in this thread, or has."""
        inside = callable(args[0])
        if inside == getattr(self._inside, "yes", False) or error is not None:
            return
        self._inside.yes = inside
        callback = _set_eval_frame(None)  # what we do now is not to be compiled
        try:
            self._switch(inside)
        finally:
            _set_eval_frame(callback)

    def _switch(self, inside: bool) -> None:
        session = self._session
        self._enter_nodes()
        if inside:
            session.leave_steps()
            self._inside.modes = session.take_mode_off()
        else:
            session.watch_steps()
            if self._inside.modes:
                torch._C._push_on_torch_function_stack(session.mode)

    def _enter_nodes(self) -> None:
        """Enter the newest nodes, if nobody knows what made them, as made by compiled code.

        What it runs is not compiled in all its parts, so that it is entered and left several times
        on the way to the node that it makes.
        """
        session = self._session
        high = low = _next_sequence_nr()
        if not session.is_recording():
            return
        try:
            since = getattr(self._inside, "since", high)
            while low > since and session.made_by(low - 1) is None:
                low -= 1
            if low < high:
                tape = session.recorder.tape
                op = session.recorder.writer.string(_OP)
                session.name_op(op, _OP)
                with self:
                    session.mode.log_forward(op, low, high, tape.next_seq(), tape.now())
            self._inside.since = high
        except Exception as fault:
            session.recorder.fault(fault)

    def _before_conversion(self, args: tuple[Any, ...], kwargs: Any) -> bool:
        self._session.put_originals()
        self._session.engine.counter.count.forget()  # the compiler runs the engine itself, unseen
        return True

    def _after_conversion(self, token: Any, result: object, error: BaseException | None) -> None:
        self._session.put_replacements()
