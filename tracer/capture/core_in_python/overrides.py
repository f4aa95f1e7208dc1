"""One of PyTorch's `has_torch_function` and our mode in, its answer as if without the mode out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracer.capture.core_in_python.unseen import unseen


class Unoverridden:
    """Stands in for a `has_torch_function`; whatever else is asked of it is that function's."""

    __slots__ = ("_at", "_count", "_function", "_mode", "_pop", "_push")

    def __init__(
        self,
        function: Callable[..., bool],
        mode: object,
        count: Callable[[], int],
        at: Callable[[int], object],
        pop: Callable[[], Any],
        push: Callable[[Any], None],
    ) -> None:
        self._function = function
        self._mode = mode
        self._count = count
        self._at = at
        self._pop = pop
        self._push = push

    @unseen
    def __call__(self, *args: Any, **kwargs: Any) -> bool:
        count = self._count()
        if not count or self._at(count - 1) is not self._mode:
            return self._function(*args, **kwargs)
        mode = self._pop()
        try:
            return self._function(*args, **kwargs)
        finally:
            self._push(mode)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)
