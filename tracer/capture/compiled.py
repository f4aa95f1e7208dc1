"""Keeps our watchers out of `torch.compile`: compiled code runs, and is made, as if untraced.

Dynamo guards on the stack of function modes and inlines `Module.__call__`; were ours there, code
would be compiled again or break into pieces. So the mode is off while compiled code runs, and all
that we replaced is put back while code is being compiled. What ran in between is one opaque node.
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

_EVAL_FRAME = "torch._dynamo.eval_frame"


class CompiledRegions:
    """Watches Dynamo from the moment it is imported."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._inside = threading.local()
        self._watching = False

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
        frames = sys.modules[_EVAL_FRAME]
        setter = frames.__dict__["_maybe_set_eval_frame"]
        session.replace(frames, "_maybe_set_eval_frame", Around(setter, self._keep, self._switched))
        wrapper = import_module("torch._dynamo.convert_frame").CatchErrorsWrapper
        changed = Around(wrapper.__call__, self._before_conversion, self._after_conversion)
        session.replace(wrapper, "__call__", changed)

    def _keep(self, args: tuple[Any, ...], kwargs: Any) -> tuple[Any, ...]:
        return args

    def _switched(self, args: Any, result: object, error: BaseException | None) -> None:
        """Compiled code is about to run in this thread, or has."""
        inside = callable(args[0])
        if inside == getattr(self._inside, "yes", False) or error is not None:
            return
        self._inside.yes = inside
        if inside:
            self._inside.modes = self._session.take_mode_off()
        elif self._inside.modes:
            torch._C._push_on_torch_function_stack(self._session.mode)

    def _before_conversion(self, args: tuple[Any, ...], kwargs: Any) -> bool:
        self._session.put_originals()
        self._session.engine.counter.forget()  # the compiler runs the engine itself, unseen
        return True

    def _after_conversion(self, token: Any, result: object, error: BaseException | None) -> None:
        self._session.put_replacements()
