"""Chooses the compiled core, or the same in Python where none was built, and tells it about torch."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch.autograd.function import _HookMixin

from tracer.records.stream import DTYPE_CODES

try:
    from tracer.capture import _core as core

    COMPILED = True
except ImportError:
    from tracer.capture import core_in_python as core  # type: ignore[no-redef]

    COMPILED = False

Around = core.Around
Book = core.Book
Leaf = core.Leaf
LeafProbe = core.LeafProbe
NodeProbe = core.NodeProbe
ModeCore = core.ModeCore
Op = core.Op
PassState = core.PassState
Tape = core.Tape
attach = core.attach
detach = core.detach
register_hook = core.register_hook
walk = core.walk


def _dtypes() -> dict[torch.dtype, tuple[int, int]]:
    known = ((getattr(torch, name, None), code) for name, code in DTYPE_CODES.items())
    return {dtype: (code, dtype.itemsize) for dtype, code in known if dtype is not None}


core.setup(
    torch.Tensor,
    torch.nn.Parameter,
    torch.strided,
    torch._C._current_graph_task_id,
    torch._C._autograd._get_sequence_nr,
    torch.is_grad_enabled,
    OrderedDict,
    _HookMixin._register_hook,
    torch._C.DisableTorchFunction,
    _dtypes(),
)

