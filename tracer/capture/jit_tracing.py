"""Keeps our watchers out of `torch.jit.trace`, which takes down each operation that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tracer.capture.core import Around

if TYPE_CHECKING:
    from tracer.capture.session import Session

_DOORS = (
    (torch._C, "_create_graph_by_tracing"),
    (torch._C, "_create_function_from_trace"),
    (torch._C, "_create_function_from_trace_with_dict"),
    (torch._C.ScriptModule, "_create_method_from_trace"),
    (torch._C.ScriptModule, "_create_method_from_trace_with_dict"),
)


class JitTracing:
    """Stops recording for as long as TorchScript traces a function, and counts that it did."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def install(self) -> None:
        """Watch for it from here on."""
        for owner, name in _DOORS:
            traced = getattr(owner, name, None)
            if traced is not None:
                self._session.replace(owner, name, Around(traced, self._begins, self._ends))

    def _begins(self, args: tuple[Any, ...], kwargs: Any) -> bool | None:
        session = self._session
        if not session.is_recording():
            return None
        session.recorder.writer.dropped("what torch.jit.trace traced")
        session.stop()
        return session.take_mode_off()

    def _ends(self, was_on: bool | None, result: object, error: BaseException | None) -> None:
        session = self._session
        if was_on is None:
            return
        session.paused = False
        session.set_watching()
        if was_on:
            torch._C._push_on_torch_function_stack(session.mode)
