"""Checkpointed regions come in; each time one runs again, a `recompute` event goes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils import checkpoint

from tracer.capture.core import Around
from tracer.capture.references import Known
from tracer.records.events import Recompute

if TYPE_CHECKING:
    from tracer.capture.session import Session

_Region = tuple[int, int]
"""Where a region began: a `seq` of its own, and the site of the call of `checkpoint`."""


class Recomputes:
    """Watches both kinds of checkpointing where they begin a region and where they repeat it.

    The reentrant kind is a `Function`; the other keeps a frame for each region, and repeats it from
    within an unpack hook, under a context of its own.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._regions: Known[Any, _Region] = Known()

    def install(self) -> None:
        """Watch from here on."""
        function, frame, hook = (
            getattr(checkpoint, name, None)
            for name in ("CheckpointFunction", "_CheckpointFrame", "_recomputation_hook")
        )
        if function is not None:
            self._around(function, "forward", self._begins, self._nothing, is_static=True)
            self._around(function, "backward", self._repeats, self._nothing, is_static=True)
        if frame is not None and hook is not None:
            self._around(frame, "__init__", self._begins, self._nothing)
            self._around(hook, "__init__", self._repeats_frame, self._repeating)
            self._around(hook, "__exit__", self._keep, self._repeated)

    def _around(
        self, owner: Any, name: str, before: Any, after: Any, *, is_static: bool = False
    ) -> None:
        changed = Around(getattr(owner, name), before, after)
        self._session.replace(owner, name, staticmethod(changed) if is_static else changed)

    def _keep(self, args: tuple[Any, ...], kwargs: Any) -> tuple[Any, ...]:
        return args

    def _nothing(self, token: Any, result: Any, error: BaseException | None) -> None:
        """Nothing is left to say."""

    def _begins(self, args: tuple[Any, ...], kwargs: Any) -> None:
        """A region begins: what comes next is in it. `args[0]` stands for it."""
        session = self._session
        if not session.is_recording():
            return
        try:
            self._regions[args[0]] = session.recorder.tape.next_seq(), session.mode.here()
        except Exception as fault:
            session.recorder.fault(fault)

    def _repeats(self, args: tuple[Any, ...], kwargs: Any) -> None:
        """The region that `args[0]` stands for runs again."""
        session = self._session
        if not session.is_recording():
            return
        try:
            forward, site = self._regions.get(args[0]) or (None, 0)
            recorder = session.recorder
            recorder.emit(Recompute(**recorder.stamp(), forward=forward, site=recorder.site(site)))
        except Exception as fault:
            session.recorder.fault(fault)

    def _repeats_frame(self, args: tuple[Any, ...], kwargs: Any) -> bool:
        frame = args[1]() if len(args) > 1 else kwargs["target_frame_ref"]()
        if frame is not None:
            self._repeats((frame,), None)
        return True

    def _repeating(self, token: Any, result: Any, error: BaseException | None) -> None:
        """Let the function mode see what is repeated: the engine called, with no mode on."""
        live = self._session.live_pass()
        if live is not None and error is None:
            live.user_code_begins()

    def _repeated(self, token: Any, result: Any, error: BaseException | None) -> None:
        live = self._session.live_pass()
        if live is not None:
            live.user_code_ends()
