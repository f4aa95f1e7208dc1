"""Programs that PyTorch refuses, or warns of."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.guarantees.unusual import leaf, program


@program
def view_of_many_in_place() -> Any:
    x = leaf(4)
    y = x * 1
    a, b, c, d = y.unbind()
    try:
        a.mul_(2)
    except RuntimeError as e:
        return str(e)


@program
def failed_gradcheck() -> Any:
    class W(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 3

    return torch.autograd.gradcheck(
        W.apply, torch.randn(3, dtype=torch.float64, requires_grad=True)
    )


@program
def checkpoint_that_differs() -> Any:
    x = leaf()
    n = [0]

    def f(t):
        n[0] += 1
        return t.sin() if n[0] == 1 else (t.sin() * t.cos()).exp()

    checkpoint(f, x, use_reentrant=False).sum().backward()
    return x.grad


@program
def checkpoint_without_inputs_that_require_grad() -> Any:
    m = nn.Linear(3, 3)
    return checkpoint(m, torch.ones(1, 3), use_reentrant=True).requires_grad


@program
def full_hook_on_in_place_relu() -> Any:
    m = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    for layer in m:
        layer.register_full_backward_hook(lambda *a: None)
    m(torch.ones(1, 3)).sum().backward()


@program
def leaf_in_place() -> Any:
    x = leaf()
    x.add_(1)


@program
def saved_tensor_modified() -> Any:
    x = leaf()
    y = x.exp()
    y.add_(1)
    y.sum().backward()


@program
def backward_twice() -> Any:
    x = leaf()
    y = (x * x).sum()
    y.backward()
    y.backward()


@program
def root_without_gradient() -> Any:
    leaf().mul(2).backward()


@program
def gradient_of_wrong_shape() -> Any:
    leaf().mul(2).sum().backward(torch.ones(2))


@program
def gradient_of_another_dtype() -> Any:
    y = leaf().mul(2)
    y.backward(torch.ones(3, dtype=torch.float64))


@program
def root_of_none() -> Any:
    torch.autograd.backward([None])


@program
def root_of_text() -> Any:
    torch.autograd.backward("x")


@program
def integers_that_require_grad() -> Any:
    torch.ones(3, dtype=torch.int64, requires_grad=True)


@program
def no_inputs() -> Any:
    leaf().sum().backward(inputs=[])


@program
def hook_that_raises() -> Any:
    x = leaf()
    y = x * 2

    def h(g):
        raise KeyError("mine")

    y.register_hook(h)
    y.sum().backward()


@program
def hook_of_wrong_shape() -> Any:
    x = leaf()
    y = x * 2
    y.register_hook(lambda g: torch.ones(7))
    y.sum().backward()


@program
def function_with_too_few_gradients() -> Any:
    class W(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * y

        @staticmethod
        def backward(ctx, g):
            return g

    x = leaf()
    W.apply(x, x).sum().backward()


@program
def inference_tensor_used() -> Any:
    x = leaf()
    with torch.inference_mode():
        y = x * 2
    try:
        (y * x).sum().backward()
    except RuntimeError as e:
        return str(e)


@program
def unused_input() -> Any:
    x, y = leaf(), leaf()
    z = (x * 2).sum()
    r = torch.autograd.grad(z, [x, y], allow_unused=True, retain_graph=True)
    r2 = torch.autograd.grad(z, [x, y], materialize_grads=True, retain_graph=True)
    try:
        torch.autograd.grad(z, [x, y])
    except RuntimeError as e:
        return r, r2, str(e)


@program
def anomaly_mode() -> Any:
    with torch.autograd.detect_anomaly():
        x = torch.zeros(2, requires_grad=True)
        torch.where(x > 0, x.sqrt(), torch.zeros(2)).sum().backward()
        return x.grad
