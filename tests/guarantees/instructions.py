"""What a random program may do: operations, custom Functions, a hook's effect on a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

SHAPES: tuple[tuple[int, ...], ...] = ((), (3,), (2, 1), (2, 3), (8, 2, 3))
"""Every two of them broadcast; the last has too many elements for its values to be kept."""

DTYPES = {"f32": torch.float32, "f64": torch.float64}


class Scaled(torch.autograd.Function):
    """Saves its input; its backward runs torch operations of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x * factor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grad * ctx.factor + 0 * x.sum(), None


class Split(torch.autograd.Function):
    """Three outputs, of which one is not differentiable, and an input that gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.shape = x.shape
        positive = x > 0
        ctx.mark_non_differentiable(positive)
        return x + y, x.clone(), positive

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        parts = [grad.sum_to_size(ctx.shape) for grad in gradients[:2] if grad is not None]
        return sum(parts[1:], parts[0]) if parts else None, None


class AddInPlace(torch.autograd.Function):
    """Changes its input and says so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.add_(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Inner(torch.autograd.Function):
    """Runs a backward pass inside its own backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            (inner,) = torch.autograd.grad(again.sin(), again, grad)
        return inner


class Gain(nn.Module):
    """The smallest module that has parameters and calls another one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.5))
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x * self.weight)


def _first(x: Tensor) -> Tensor:
    return x[0] if x.dim() else x.view_as(x)


def _narrow(x: Tensor) -> Tensor:
    return x[..., :1] if x.dim() else x.view_as(x)


def _block(x: Tensor) -> Tensor:
    return (x.sin() * x).tanh()


UNARY: dict[str, Callable[[Tensor], Any]] = {
    "neg": torch.neg,
    "sin": torch.sin,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sqrt": torch.sqrt,
    "square": lambda x: x**2,
    "clone": torch.clone,
    "softmax": lambda x: torch.softmax(x, -1),
    "layer_norm": lambda x: functional.layer_norm(x, x.shape[-1:]) if x.dim() else x * 1,
    "dropout": lambda x: functional.dropout(x, 0.5),
    "sum": torch.sum,
    "mean": torch.mean,
    "sum_last": lambda x: x.sum(-1, keepdim=True),
    "matmul": lambda x: (x @ x.mT).sum() if x.dim() > 1 else x @ x if x.dim() else x * x,
    "turned": lambda x: x.mT.clone().mT if x.dim() > 1 else x.clone(),
    "strided": lambda x: x.expand(2, *x.shape).transpose(0, -1).contiguous().transpose(0, -1)[0],
    "cat": lambda x: torch.cat([x.reshape(-1), x.reshape(-1)]).sum(),
    "first": _first,
    "narrow": _narrow,
    "view": lambda x: x.view_as(x),
    "f64": lambda x: x.double(),
    "f32": lambda x: x.float(),
    "bf16": lambda x: x.bfloat16().to(x.dtype),
    "complex": lambda x: torch.complex(x, x * 2).abs(),
    "detach": lambda x: x.detach(),
    "data": lambda x: x.data,
    "round": torch.round,
    "argmax": lambda x: x.argmax(),
    "new leaf": lambda x: x.detach().clone().requires_grad_(),
    "unbind": lambda x: list(x.unbind(0))[:2] if x.dim() else x.sin(),
    "std_mean": lambda x: list(torch.std_mean(x, -1, keepdim=True)),
    "max": lambda x: list(x.max(-1, keepdim=True)),
    "scaled": lambda x: Scaled.apply(x, 3.0),
    "inner": Inner.apply,
    "checkpoint": lambda x: checkpoint(_block, x, use_reentrant=False),
    "checkpoint reentrant": lambda x: checkpoint(_block, x, use_reentrant=True),
}

BINARY: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "where": lambda x, y: torch.where(x > y, x, y),
    "addcmul": lambda x, y: torch.addcmul(x, y, y, value=0.5),
    "split": lambda x, y: list(Split.apply(x, y)),
}

IN_PLACE: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add_": lambda x, y: x.add_(y),
    "iadd": lambda x, y: x.__iadd__(y),
    "mul_": lambda x, y: x.mul_(y),
    "copy_": lambda x, y: x.copy_(y),
    "relu_": lambda x, _: x.relu_(),
    "zero_": lambda x, _: x.zero_(),
    "dirty": lambda x, _: AddInPlace.apply(x),
    "setitem": lambda x, y: x.__setitem__((..., slice(0, 1)), y.sum()),
    "first.mul_": lambda x, _: _first(x).mul_(2),
    "narrow.add_": lambda x, _: _narrow(x).add_(1),
    "data.mul_": lambda x, _: x.data.mul_(0.5),
    "detach.add_": lambda x, _: x.detach().add_(1),
}

EFFECTS: dict[str, Callable[[Tensor], Tensor | None]] = {
    "observe": lambda _: None,
    "same": lambda grad: grad,
    "double": lambda grad: grad * 2,
    "square": lambda grad: grad * grad,
    "negate": torch.neg,
    "zero": torch.zeros_like,
    "nan": lambda grad: grad * float("nan"),
    "clone": torch.clone,
}
"""What a hook gives back for a gradient."""


def nested_pass() -> None:
    """A whole backward pass of its own, to be run inside a hook."""
    inner = torch.ones(2, requires_grad=True)
    (inner * 3).sum().backward()


def on_each(effect: str, gradients: Sequence[Tensor | None]) -> tuple[Tensor | None, ...] | None:
    """The effect on each gradient of a tuple that is one; None where it changes nothing."""
    function = EFFECTS[effect]
    if effect == "observe":
        return None
    return tuple(grad if grad is None else function(grad) for grad in gradients)
