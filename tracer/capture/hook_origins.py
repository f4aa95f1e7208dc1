"""A function found in a node's hooks in, the user's own hook behind it out.

`register_multi_grad_hook` and modules' backward hooks put closures of PyTorch's own on tensors and
nodes (torch/autograd/graph.py, torch/utils/hooks.py); what a user wants to read is what they call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import nn
from torch.utils.hooks import BackwardHook

MULTI_GRAD_HOOK = "multi-grad hook"
MODULE_HOOK = "module backward hook"
MODULE_PREHOOK = "module backward prehook"


@dataclass(frozen=True, slots=True)
class HookOrigin:
    """The user's functions behind a hook, the kind they were registered as, and on which module."""

    functions: tuple[Callable[..., Any], ...]
    kind: str = ""
    module: nn.Module | None = None


def hook_origin(function: Callable[..., Any]) -> HookOrigin:
    """Find what a hook calls; a hook that is the user's own is its own origin."""
    if isinstance(function, FunctionType):
        held = _closure(function)
        if function.__module__ == "torch.autograd.graph" and callable(held.get("fn")):
            return HookOrigin((held["fn"],), MULTI_GRAD_HOOK)
        owner = held.get("self")
        if function.__module__ == "torch.utils.hooks" and isinstance(owner, BackwardHook):
            return _module_origin(function, owner)
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and _comes_from(function, "torch/autograd/graph.py"):
        return HookOrigin((wrapped,), MULTI_GRAD_HOOK)
    return HookOrigin((function,))


def _module_origin(function: FunctionType, owner: Any) -> HookOrigin:
    before = "setup_output_hook" in function.__qualname__ and bool(owner.user_pre_hooks)
    hooks = owner.user_pre_hooks if before else owner.user_hooks
    kind = MODULE_PREHOOK if before else MODULE_HOOK
    return HookOrigin(tuple(hooks) or (function,), kind, owner.module)


def _closure(function: FunctionType) -> dict[str, Any]:
    cells = function.__closure__ or ()
    held = {}
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        try:
            held[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    return held


def _comes_from(function: Any, file: str) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.replace("\\", "/").endswith(file)
