"""Tensors that are swapped while a recording lasts: let it happen, and enter it in the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tracer.capture.core import Around
from tracer.capture.ledger import LeafState
from tracer.capture.references import WithoutOurs

if TYPE_CHECKING:
    from tracer.capture.session import Session


class Swaps:
    """Watches `torch.utils.swap_tensors`, which a weak reference of ours must not stop."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def install(self) -> None:
        """Begin to watch."""
        session = self._session
        session.replace(torch.utils, "weakref", WithoutOurs("weakref"))
        swap = Around(torch._C._swap_tensor_impl, self._before, self._after)
        session.replace(torch._C, "_swap_tensor_impl", swap)

    def _before(self, args: tuple[Any, ...], kwargs: Any) -> list[LeafState]:
        session = self._session
        if not session.is_recording():
            return []
        return [state for tensor in args if (state := session.ledger.find(tensor)) is not None]

    def _after(self, states: list[LeafState], result: Any, error: BaseException | None) -> None:
        if error is not None or not states:
            return
        session = self._session
        try:
            with torch._C.DisableTorchFunction():
                session.ledger.swapped(states, session.mode.here())
        except Exception as fault:
            session.recorder.fault(fault)
