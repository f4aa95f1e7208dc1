"""Leaves as they come into being in; what the line that made each called it goes out.

It is asked for where no variable leads to a leaf any more: its function has returned.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from tracer.capture.contents import entries_of, namespace_of
from tracer.capture.core_in_python.unseen import UNSEEN_FILE
from tracer.capture.loops import Stood
from tracer.capture.references import OurRef
from tracer.capture.user_code import TRACER
from tracer.records.words import in_loops

if TYPE_CHECKING:
    from tracer.capture.session import Session


class _Birth(NamedTuple):
    ref: OurRef
    name: str
    file: str
    stood: Stood


class Births:
    """Knows what leaves were called where they were made, and holds them weakly."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[int, _Birth] = {}
        self._most = 1024

    def note(self, leaf: Tensor, site_id: int) -> None:
        """Know a leaf by what a line of the user's has just bound it to."""
        session = self._session
        site = session.recorder.site(site_id)
        if site is not None and site.targets and session.sites.is_user(_caller().f_code):
            stood = session.loops.standing(site)
            self._keep(leaf, _Birth(OurRef(leaf), site.targets[0], site.file, stood))

    def note_parameters(self, modules: Iterable[tuple[str, nn.Module]], root: str) -> None:
        """Know the parameters of modules by their paths below one that is called `root`."""
        for path, module in modules:
            prefix = f"{root}.{path}" if path else root
            for name, leaf in entries_of(namespace_of(module).get("_parameters")):
                if isinstance(leaf, Tensor) and leaf.requires_grad:
                    self._keep(leaf, _Birth(OurRef(leaf), f"{prefix}.{name}", "", ()))

    def _keep(self, leaf: Tensor, birth: _Birth) -> None:
        if len(self._known) >= self._most:
            self._known = {k: known for k, known in self._known.items() if known.ref() is not None}
            self._most = max(1024, 2 * len(self._known))
        self._known[id(leaf)] = birth

    def name_of(self, leaf: Tensor) -> str:
        """What a leaf was called, empty where that is not known."""
        birth = self._known.get(id(leaf))
        if birth is None or birth.ref() is not leaf:
            return ""
        if not birth.stood:
            return birth.name
        under_way = self._session.sites.loops_under_way(sys._getframe())
        loops = [
            one for line, ones in birth.stood if (birth.file, line) not in under_way for one in ones
        ]
        return in_loops(birth.name, loops)


def _caller() -> FrameType:
    """The innermost frame that is none of ours."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith((TRACER, UNSEEN_FILE)):
        frame = frame.f_back
    return frame
