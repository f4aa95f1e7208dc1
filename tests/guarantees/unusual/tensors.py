"""Programs with tensors of other kinds, and with `torch.func`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.guarantees.unusual import leaf, program


class Sub(torch.Tensor):
    pass


class Log(torch.Tensor):
    @classmethod
    def __torch_function__(cls, f, t, a=(), k=None):
        return super().__torch_function__(f, t, a, k or {})


@program
def func_grad() -> Any:
    return torch.func.grad(lambda x: (x**3).sum())(torch.arange(3.0))


@program
def func_hessian() -> Any:
    return torch.func.hessian(lambda x: (x**3).sum())(torch.arange(3.0))


@program
def func_jacobians() -> Any:
    return torch.func.jacrev(lambda x: x.sin() * x.sum())(torch.arange(3.0)), torch.func.jacfwd(
        lambda x: x.sin()
    )(torch.arange(3.0))


@program
def func_vmap() -> Any:
    w = leaf(3)
    y = torch.vmap(lambda x: (x * w).sum())(torch.randn(4, 3))
    y.sum().backward()
    g = torch.func.vmap(torch.func.grad(lambda p, x: ((p * x).sum() - 1) ** 2), in_dims=(None, 0))(
        w.detach(), torch.randn(4, 3)
    )
    return w.grad, g


@program
def func_functional_call() -> Any:
    m = nn.Linear(3, 2)
    p = {k: v.detach() for k, v in m.named_parameters()}
    return torch.func.grad(lambda p, x: torch.func.functional_call(m, p, (x,)).sum())(
        p, torch.ones(1, 3)
    )["weight"]


@program
def func_vjp() -> Any:
    o, f = torch.func.vjp(lambda x: x.sin(), torch.arange(3.0))
    return f(torch.ones(3))


@program
def func_within_autograd() -> Any:
    x = leaf()
    y = torch.func.grad(lambda z: (z**3).sum())(x)
    y.sum().backward()
    return x.grad


@program
def batched_gradients() -> Any:
    x = leaf()
    y = x**2
    return torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True)


@program
def vectorized_jacobian() -> Any:
    x = leaf()
    return (
        torch.autograd.functional.jacobian(lambda x: x**2, x, vectorize=True),
        torch.autograd.functional.hessian(lambda x: (x**3).sum(), x),
        torch.autograd.functional.vhp(lambda x: (x**3).sum(), x, torch.ones(3)),
    )


@program
def subclass() -> Any:
    a = torch.ones(3).as_subclass(Sub).requires_grad_()
    b = (a * a).sum()
    b.backward()
    return type(a.grad).__name__, a.grad


@program
def subclass_with_torch_function() -> Any:
    a = torch.ones(3).as_subclass(Log).requires_grad_()
    b = torch.sin(a).sum()
    b.backward()
    return type(a.grad).__name__, a.grad


@program
def wrapper_subclass() -> Any:
    from torch.testing._internal.two_tensor import TwoTensor

    a = TwoTensor(torch.ones(3), torch.ones(3) * 2).requires_grad_()
    (a * a).sum().backward()
    return type(a.grad).__name__, a.grad.a, a.grad.b


@program
def logging_tensor() -> Any:
    from torch.testing._internal.logging_tensor import LoggingTensor

    a = LoggingTensor(torch.ones(3), requires_grad=True)
    (a * a).sum().backward()
    return str(type(a.grad))


@program
def masked_tensor() -> Any:
    from torch.masked import masked_tensor

    a = masked_tensor(
        torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, False, True]), requires_grad=True
    )
    (a * a).sum().backward()
    return a.grad.get_data()


@program
def nested_tensor() -> Any:
    a, b = leaf(2, 3), leaf(4, 3)
    n = torch.nested.as_nested_tensor([a, b], layout=torch.jagged)
    (n * 2).values().sum().backward()
    return a.grad, b.grad


@program
def nested_strided_tensor() -> Any:
    a, b = leaf(2, 3), leaf(4, 3)
    n = torch.nested.as_nested_tensor([a, b])
    nn.functional.softmax(n, -1).to_padded_tensor(0.0).square().sum().backward()
    return a.grad, b.grad


@program
def nested_leaf() -> Any:
    n = torch.nested.nested_tensor(
        [torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged, requires_grad=True
    )
    (n * n).values().sum().backward()
    return n.grad.values()


@program
def meta_tensor() -> Any:
    a = torch.ones(3, device="meta", requires_grad=True)
    (a * a).sum().backward()
    return a.grad.shape


@program
def fake_tensor_training() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        m = nn.Linear(3, 3)
        o = torch.optim.SGD(m.parameters(), lr=0.1)
        for _ in range(2):
            o.zero_grad()
            m(torch.ones(2, 3)).sum().backward()
            o.step()
        return str(m.weight.grad)


@program
def fake_tensor() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        a = torch.ones(3, requires_grad=True)
        (a * a).sum().backward()
        return str(a.grad)


@program
def forward_mode() -> Any:
    import torch.autograd.forward_ad as fw

    x = leaf()
    with fw.dual_level():
        d = fw.make_dual(x, torch.ones(3))
        y = d * d
        p, t = fw.unpack_dual(y)
        (t.sum() + p.sum()).backward()
    return x.grad
