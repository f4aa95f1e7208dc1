"""`saved_tensors_hooks` of the user's in; what their functions compute, as operations, out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from tracer.capture.core import Around
from tracer.capture.functions import code_of, innermost
from tracer.capture.references import Known

if TYPE_CHECKING:
    from tracer.capture.session import Session


class SavedHooks:
    """Lets the function mode see the functions that pack and unpack what nodes keep.

    PyTorch calls them from within an operation or a node, where no mode is on. Those of PyTorch's
    own, as checkpointing has them, are left as they are.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._changed: Known[Any, list[str]] = Known()

    def install(self) -> None:
        """Watch those that are made from here on, until the recording ends."""
        made = saved_tensors_hooks.__dict__["__init__"]
        self._session.replace(saved_tensors_hooks, "__init__", Around(made, self._keep, self._made))
        self._session.undo.append(self._put_back)

    def _put_back(self) -> None:
        """Leave nothing of ours in those that the user keeps."""
        for hooks, names in self._changed.items():
            for name in names:
                function = getattr(hooks, name)
                if type(function) is Around:
                    setattr(hooks, name, function.__wrapped__)

    def _keep(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        return args[0]

    def _made(self, hooks: Any, result: object, error: BaseException | None) -> None:
        if error is not None or not self._session.is_recording():
            return
        changed = []
        for name in ("pack_hook", "unpack_hook"):
            function = getattr(hooks, name)
            code = code_of(innermost(function))
            if code is not None and self._session.sites.is_user(code):
                setattr(hooks, name, Around(function, self._begins, self._ends))
                changed.append(name)
        if changed:
            self._changed[hooks] = changed

    def _begins(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        """A function of the user's is called; what is to be undone after it."""
        session, depth = self._session, torch._C._len_torch_function_stack()
        if type(session).active is not session or not session.is_recording():
            return None
        if depth and torch._C._get_function_stack_at(depth - 1) is session.mode:
            return None
        live = session.live_pass()
        if live is not None:
            live.user_code_begins()
            return live.user_code_ends
        torch._C._push_on_torch_function_stack(session.mode)
        return torch._C._pop_torch_function_stack

    def _ends(self, undo: Any, result: object, error: BaseException | None) -> None:
        if undo is not None:
            undo()
