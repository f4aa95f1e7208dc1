"""One of PyTorch's `has_torch_function` and our mode in, its answer as if without the mode out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tracer.capture.core_in_python.unseen import unseen

_count, _at = torch._C._len_torch_function_stack, torch._C._get_function_stack_at
_pop, _push = torch._C._pop_torch_function_stack, torch._C._push_on_torch_function_stack


class Unoverridden:
    """Stands in for a `has_torch_function`; whatever else is asked of it is that function's."""

    __slots__ = ("_function", "_mode")

    def __init__(self, function: Callable[..., bool], mode: object) -> None:
        self._function = function
        self._mode = mode

    @unseen
    def __call__(self, *args: Any, **kwargs: Any) -> bool:
        count = _count()
        if not count or _at(count - 1) is not self._mode:
            return self._function(*args, **kwargs)
        mode = _pop()
        try:
            return self._function(*args, **kwargs)
        finally:
            _push(mode)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)
