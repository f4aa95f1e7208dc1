"""The session's mode in; PyTorch's own question for overrides answered as if it were not there."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from types import CellType, FunctionType, MethodDescriptorType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.jit import _builtins

from tracer.capture.core import Method, Unoverridden

if TYPE_CHECKING:
    from tracer.capture.session import Session

_ASKED = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")

# Of `torch._tensor` only what warns and counts frames: what its functions do inside (printing,
# pickling) would be recorded, and what some of them are (`register_hook`) would not. Nor
# `torch.autograd`: it is entered without mode. Attention asks `torch.overrides` itself; so does
# `torch.nn.init`, in the two other ways: each of its functions stays one operation.
_ASKING = (
    (torch.overrides, _ASKED[:1]),
    (torch.functional, _ASKED),
    (torch.nn.functional, _ASKED),
)


_WARNING = ("storage", "resize", "resize_as", "__len__", "__iter__")
_ONE_OPERATION = ("__pow__",)
"""Methods that do no more than call one which the mode sees under the same name."""


class Overrides:
    """Keeps functions that are written in Python from running as overridden because of our mode."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def install(self) -> None:
        """Answer for PyTorch until the recording ends."""
        answers = {name: self._answer(getattr(torch._C, f"_{name}")) for name in _ASKED}
        for module, names in _ASKING:
            for name in names:
                self._session.replace(module, name, answers[name])
        namespace = {**vars(torch._tensor), **answers}
        for name in (*_WARNING, *_ONE_OPERATION):
            method = torch.Tensor.__dict__[name]
            self._session.replace(torch.Tensor, name, _within(method, namespace, self._quick))

    def _quick(self, one: Any) -> Any:
        """What does for the mode what PyTorch's own method would ask of it."""
        if Method is None or type(one) is not MethodDescriptorType:
            return one
        return Method(one, self._session.mode, one)

    def _answer(self, asked: Any) -> Unoverridden:
        answer = Unoverridden(asked, self._session.mode)
        # TorchScript knows the functions that it need not compile by identity.
        known: dict[int, str] = _builtins._get_builtin_table()  # type: ignore[no-untyped-call]
        known[id(answer)] = known[id(asked)]
        self._session.undo.append(lambda: known.pop(id(answer), None))
        return answer


def _within(
    function: FunctionType, namespace: dict[str, Any], instead: Callable[[Any], Any]
) -> FunctionType:
    """The same code with other globals, and with `instead` of what it closes over."""
    closure = tuple(CellType(instead(cell.cell_contents)) for cell in function.__closure__ or ())
    copy = FunctionType(
        function.__code__, namespace, function.__name__, function.__defaults__, closure or None
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return cast(FunctionType, update_wrapper(copy, function))
