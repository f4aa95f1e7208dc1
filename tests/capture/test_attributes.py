"""What is asked of tensors is as untraced, though the mode sees it without PyTorch's round."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import tracer
from tests.capture.cores import compiled
from tests.capture.test_backward_frames import both
from tracer.capture.attributes import _ATTRIBUTES, _METHODS, _OPERATORS
from tracer.records.events import Forward

NAMES = [*_ATTRIBUTES, *_OPERATORS, *_METHODS]


class Counting(Tensor):
    """A subclass that sees the functions called with it."""

    seen: list[Any]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(func)
        return super().__torch_function__(func, types, args, kwargs)


class Watching(TorchFunctionMode):
    """A mode of the user's that lists what it is called with."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def use(x: Tensor) -> list[Any]:
    """Read, call and combine, in ways that fail too; what each gives."""
    y = torch.arange(2.0)
    calls = [
        lambda: x.shape, lambda: x.grad, lambda: x - y, lambda: y - x, lambda: x * 2, lambda: 3 * x,
        lambda: x / y.add_(1), lambda: x.sum(), lambda: x.view(2, 1).size(), lambda: x @ y,
        lambda: x - "y", lambda: x.sum("y"), lambda: setattr(x, "shape", 3), lambda: x.add_(1),
        lambda: setattr(x, "grad", 3), lambda: y.__iadd__("y"), lambda: Tensor.add_(),
        lambda: x.sum.__self__ is x, lambda: delattr(x, "shape"), lambda: y.__isub__(1).tolist(),
    ]  # fmt: skip
    given: list[Any] = []
    for call in calls:
        try:
            result = call()
        except Exception as error:
            result = (type(error), str(error))
        given.append(result.tolist() if isinstance(result, Tensor) else result)
    return given


def test_what_is_asked_of_a_tensor_gives_what_it_gives_untraced() -> None:
    plain, traced = both(lambda: use(torch.ones(2, requires_grad=True)))
    assert any(isinstance(result, tuple) for result in plain)
    assert traced == plain


def test_a_subclass_sees_the_same_functions() -> None:
    def program() -> list[Any]:
        Counting.seen = []
        use(torch.ones(2).as_subclass(Counting))
        return Counting.seen

    plain, traced = both(program)
    assert len(plain) > 10
    assert traced == plain


def test_a_mode_sees_the_same_functions_whether_it_is_above_ours_or_below() -> None:
    def above() -> list[Any]:
        with Watching() as mode:
            use(torch.ones(2))
        return mode.seen

    plain, traced = both(above)
    assert len(plain) > 10
    assert traced == plain
    with Watching() as mode, tracer.trace():
        mode.seen.clear()
        use(torch.ones(2))
        below = [func for func in mode.seen if func in plain]
    assert below == plain


def test_asked_of_the_class_they_are_pytorchs_own_and_nothing_stays() -> None:
    before = {name: inspect.getattr_static(Tensor, name) for name in NAMES}
    own = {name: getattr(Tensor, name) for name in NAMES}
    with tracer.trace():
        during = {name: getattr(Tensor, name) for name in NAMES}
    assert all(during[name] is own[name] for name in NAMES)
    assert {name: inspect.getattr_static(Tensor, name) for name in NAMES} == before


def test_functions_that_are_disabled_are_not_seen() -> None:
    x = torch.ones(2, requires_grad=True)
    with tracer.trace() as trace, torch._C.DisableTorchFunction():
        x.data.add_(1)
        x - 1
    assert not [event for event in trace.record.events if isinstance(event, Forward)]


@compiled
def test_an_operation_is_told_by_the_name_that_modes_are_given() -> None:
    x = torch.ones(2, requires_grad=True)
    with tracer.trace() as trace:
        y = x * 1
        y += x
        (y - 1).sum()
    operations = [event.op for event in trace.record.events if isinstance(event, Forward)]
    assert operations == ["Tensor.mul", "Tensor.add_", "Tensor.sub", "Tensor.sum"]
