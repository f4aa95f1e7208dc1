"""Chooses the compiled core, or the same in Python where none was built, and tells it about torch.

`TRACER_CORE=python` in the environment asks for the one in Python.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch.autograd.function import _HookMixin

from tracer.records.stream import DTYPE_CODES


def _choose() -> ModuleType:
    if os.environ.get("TRACER_CORE") != "python":
        try:
            return import_module("tracer.capture._core")
        except ImportError:  # there was no compiler
            pass
    return import_module("tracer.capture.core_in_python")


core: Any = _choose()

Around = core.Around
Attribute = getattr(core, "Attribute", None)
Book = core.Book
Leaf = core.Leaf
LeafProbe = core.LeafProbe
NodeProbe = core.NodeProbe
Method = getattr(core, "Method", None)
ModeCore = core.ModeCore
Modeless = core.Modeless
ModuleCall = core.ModuleCall
ModulePath = core.ModulePath
ModuleStack = core.ModuleStack
Op = core.Op
PassState = core.PassState
RunBackward = core.RunBackward
RunCount = core.RunCount
Tape = core.Tape
Unoverridden = core.Unoverridden
attach = core.attach
detach = core.detach
enter_pass: Callable[[int | None], None] = core.enter_pass
let_go = core.let_go
pass_here: Callable[[], int | None] = core.pass_here
read_with = core.read_with
register_hook = core.register_hook
walk = core.walk


_listener: Callable[[Any, Any], None] | None = None


def hears_of_hooks(listener: Callable[[Any, Any], None] | None) -> None:
    """Have `listener(dict of hooks, handle)` called for each hook that is registered on a node."""
    global _listener
    _listener = listener


def _tell(token: None, registered: Any, error: BaseException | None) -> None:
    if error is None and _listener is not None:
        _listener(*registered)


torch_register_hook = Around(_HookMixin._register_hook, lambda args, kwargs: None, _tell)


class HookDict(dict[Any, Any]):
    """What holds the hooks of a node that we were the first to put one on.

    Made and freed in a third of an OrderedDict's time, and `RemovableHandle` can refer to it weakly
    all the same.
    """

    __slots__ = ("__weakref__",)


def _dtypes() -> dict[torch.dtype, int]:
    known = ((getattr(torch, name, None), code) for name, code in DTYPE_CODES.items())
    return {dtype: code for dtype, code in known if dtype is not None}


def set_up(*, reads: object = torch.strided) -> None:
    """Tell the core about torch; tensors whose layout is not `reads` it leaves to others."""
    core.setup(
        torch.Tensor,
        torch.nn.Parameter,
        reads,
        torch._C._current_graph_task_id,
        torch._C._autograd._get_sequence_nr,
        torch.is_grad_enabled,
        HookDict,
        torch_register_hook,
        torch._C.DisableTorchFunction,
        _dtypes(),
        getattr(torch.Tensor, "__dlpack_c_exchange_api__", None),
    )


set_up()
