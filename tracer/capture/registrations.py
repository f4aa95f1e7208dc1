"""Doors through which users register hooks, and remove them; those on tensors are functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd.function import _HookMixin
from torch.nn.modules import module as modules
from torch.utils.hooks import RemovableHandle

from tracer.capture import core
from tracer.capture.core import Around
from tracer.capture.hook_origins import MODULE_HOOK, MODULE_PREHOOK
from tracer.capture.hook_runs import POSTHOOK, PREHOOK

if TYPE_CHECKING:
    from tracer.capture.session import Session

_OF_MODULES = {
    "register_full_backward_hook": MODULE_HOOK,
    "register_backward_hook": MODULE_HOOK,
    "register_full_backward_pre_hook": MODULE_PREHOOK,
}
_OF_EVERY_MODULE = {
    "register_module_full_backward_hook": MODULE_HOOK,
    "register_module_backward_hook": MODULE_HOOK,
    "register_module_full_backward_pre_hook": MODULE_PREHOOK,
}


class Registrations:
    """Has the book of hooks hear of hooks on modules and on nodes, and of handles removed."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def install(self) -> None:
        """Begin to watch."""
        replace = self._session.replace
        for owner in (_HookMixin, torch.autograd.Function):  # where PyTorch looks for it first
            replace(owner, "_register_hook", staticmethod(core.register_hook))
        core.hears_of_hooks(self._on_node)
        self._session.undo.append(lambda: core.hears_of_hooks(None))
        remove = Around(RemovableHandle.remove, self._before_remove, _nothing)
        replace(RemovableHandle, "remove", remove)
        for name, kind in _OF_MODULES.items():
            self._watch(nn.Module, name, _OnModule(self._session, kind, of_one=True))
        for name, kind in _OF_EVERY_MODULE.items():
            self._watch(modules, name, _OnModule(self._session, kind, of_one=False))

    def _watch(self, owner: Any, name: str, watcher: _OnModule) -> None:
        around = Around(getattr(owner, name), watcher.before, watcher.after)
        self._session.replace(owner, name, around)

    def _before_remove(self, args: tuple[Any, ...], kwargs: Any) -> None:
        session = self._session
        try:
            if session.is_recording():
                with torch._C.DisableTorchFunction():
                    session.hooks.removed(args[0], session.mode.here())
        except Exception as fault:
            session.recorder.fault(fault)

    def _on_node(self, hooks: Any, handle: RemovableHandle) -> None:
        """PyTorch tells neither the node nor which of its two methods was called: the line may."""
        session = self._session
        try:
            if session.is_recording():
                here = session.mode.here()
                site = session.recorder.site(here)
                is_prehook = site is not None and "register_prehook" in site.statement
                kind = PREHOOK if is_prehook else POSTHOOK
                with torch._C.DisableTorchFunction():
                    session.hooks.added_to_node(hooks, handle, here, kind)
        except Exception as fault:
            session.recorder.fault(fault)


class _OnModule:
    """Hears of one way to register a hook on a module, or on every one."""

    def __init__(self, session: Session, kind: str, *, of_one: bool) -> None:
        self._session = session
        self._kind = kind
        self._of_one = of_one

    def before(self, args: tuple[Any, ...], kwargs: Any) -> nn.Module | None:
        """The hook is about to be registered."""
        return args[0] if self._of_one else None

    def after(self, module: nn.Module | None, handle: Any, error: BaseException | None) -> None:
        """It has been."""
        session = self._session
        if error is not None or not session.is_recording():
            return
        try:
            with torch._C.DisableTorchFunction():
                session.hooks.added_to_module(handle, self._kind, module, session.mode.here())
        except Exception as fault:
            session.recorder.fault(fault)


def _nothing(token: Any, result: object, error: BaseException | None) -> None:
    """Nothing is left to say."""
