"""Changes of the grad mode come in; an event for each that user code made goes out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import torch

from tracer.records.events import GradMode
from tracer.records.graph import Site

if TYPE_CHECKING:
    from tracer.capture.session import Session


class _Chosen(threading.local):
    """The mode that user code chose, by thread, and the site where."""

    mode = "grad"
    region = 0


class GradModes:
    """Knows which mode user code chose, as the engine and custom Functions choose others."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._chosen = _Chosen()

    def catch_up(self) -> None:
        """Take the mode that holds now for the user's, after nobody watched."""
        self._chosen.mode, self._chosen.region = current_grad_mode(), 0

    def chosen(self) -> tuple[str, int]:
        """The mode that user code of this thread chose, and where."""
        return self._chosen.mode, self._chosen.region

    def choose(self, mode: str, region: int) -> None:
        """Take up the mode again that held before a custom Function ran."""
        self._chosen.mode, self._chosen.region = mode, region

    def is_the_users(self, mode: str) -> bool:
        """Whether user code chose a mode, and not the engine or a custom Function for its code."""
        return mode in ("grad", self._chosen.mode)

    def region(self) -> Site | None:
        """Where the mode was chosen."""
        return self._session.recorder.site(self._chosen.region)

    def changed(self) -> None:
        """Enter a change of the mode, unless an optimizer made it, or it is none."""
        session, mode = self._session, current_grad_mode()
        if mode == self._chosen.mode or session.optimizer:
            return
        self.choose(mode, session.mode.here())
        recorder = session.recorder
        recorder.emit(GradMode(**recorder.stamp(), mode=mode, site=self.region()))


def current_grad_mode() -> str:
    """What holds in this thread: `grad`, `no_grad` or `inference`."""
    if torch.is_inference_mode_enabled():
        return "inference"
    return "grad" if torch.is_grad_enabled() else "no_grad"
