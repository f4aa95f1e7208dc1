"""Programs that run backward in unusual ways, each giving all that it computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from tests.guarantees.unusual import leaf, program


class NoMat(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.set_materialize_grads(False)
        m = x > 0
        ctx.mark_non_differentiable(m)
        return x * 2, y * 3, m

    @staticmethod
    def backward(ctx, a, b, c):
        return (None if a is None else a * 2), (None if b is None else b * 3)


class Setup(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, i, o):
        ctx.save_for_backward(*i)

    @staticmethod
    def vjp(ctx, g):
        return g * ctx.saved_tensors[0].cos()

    @staticmethod
    def vmap(info, dims, x):
        return Setup.apply(x), dims[0]


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * 2


@program
def checkpointed_sequentials() -> Any:
    m = nn.Sequential(
        *[nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Dropout(0.5)) for _ in range(4)]
    )
    x = leaf(2, 3)
    checkpoint_sequential(m, 2, x, use_reentrant=True).sum().backward()
    checkpoint_sequential(m, 2, x, use_reentrant=False).sum().backward()
    return x.grad, [p.grad for p in m.parameters()]


@program
def nested_checkpoints() -> Any:
    x = leaf()

    def inner(t):
        return (t.sin() * t).exp()

    def outer(t):
        return checkpoint(inner, t * 2, use_reentrant=False) + t

    checkpoint(outer, x, use_reentrant=False).sum().backward()
    return x.grad


@program
def selective_checkpoint() -> Any:
    import functools

    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    x = leaf(3, 3)
    checkpoint(
        lambda t: (t @ t).sin() @ t,
        x,
        use_reentrant=False,
        context_fn=functools.partial(
            create_selective_checkpoint_contexts, [torch.ops.aten.mm.default]
        ),
    ).sum().backward()
    return x.grad


@program
def gradient_of_a_checkpoint() -> Any:
    x = leaf()
    y = checkpoint(lambda t: (t**3).sum(), x, use_reentrant=False)
    (g,) = torch.autograd.grad(y, x, create_graph=True)
    g.sum().backward()
    return x.grad


@program
def data_replaced() -> Any:
    p = nn.Parameter(torch.ones(3))
    (p * 2).sum().backward()
    p.data = torch.zeros(3)
    p.grad = None
    (p * p).sum().backward()
    p.data.add_(1)
    return p.grad, p


@program
def hooks_of_all_kinds() -> Any:
    x = leaf()
    y = x * 2
    out = []
    y.register_hook(lambda g: g * 2)
    y.retain_grad()
    x.register_post_accumulate_grad_hook(lambda p: out.append(p.grad.clone()))
    y.grad_fn.register_prehook(lambda g: (g[0] * 3,))
    y.grad_fn.register_hook(lambda i, o: (i[0] + 1,) + tuple(i[1:]))
    y.sum().backward()
    return x.grad, y.grad, out


@program
def module_hooks() -> Any:
    m = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    out = []
    m.register_full_backward_hook(lambda m, i, o: out.append((i[0] is None, o[0].sum().item())))
    m[0].register_full_backward_pre_hook(lambda m, o: (o[0] * 2,))
    m(torch.ones(1, 3)).sum().backward()
    m(leaf(1, 3)).sum().backward()
    return out


@program
def inputs_that_are_no_leaves() -> Any:
    x = leaf()
    y = x * 2
    z = y.sum()
    z.backward(inputs=[y, x])
    return y.grad, x.grad


@program
def engine_callback() -> Any:
    x = leaf()
    y = x * 2
    out = []
    y.register_hook(
        lambda g: torch.autograd.Variable._execution_engine.queue_callback(
            lambda: out.append(x.grad.sum())
        )
    )
    y.sum().backward()
    return out


@program
def function_without_materialized_gradients() -> Any:
    x, y = leaf(), leaf()
    a, b, m = NoMat.apply(x, y)
    (a * 1).sum().backward()
    return x.grad, y.grad, m


@program
def function_with_setup_context() -> Any:
    x = leaf()
    Setup.apply(x).sum().backward()
    return x.grad, torch.func.grad(lambda z: Setup.apply(z).sum())(x.detach())


@program
def once_differentiable() -> Any:
    x = leaf()
    (g,) = torch.autograd.grad(Once.apply(x).sum(), x, create_graph=True)
    g.sum().backward()
    return x.grad


@program
def function_in_place() -> Any:
    class D(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = leaf()
    y = x * 1
    D.apply(y).sum().backward()
    return x.grad


@program
def function_that_returns_none() -> Any:
    class W(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, n):
            return x * n

        @staticmethod
        def backward(ctx, g):
            return None, None

    x = leaf()
    (W.apply(x, 3) + x).sum().backward()
    return x.grad


@program
def function_that_differentiates() -> Any:
    class A(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            with torch.enable_grad():
                z = x.detach().requires_grad_()
                y = (z**2).sum()
            (g,) = torch.autograd.grad(y, z)
            ctx.save_for_backward(g)
            return y.detach()

        @staticmethod
        def backward(ctx, g):
            return ctx.saved_tensors[0] * g

    x = leaf()
    A.apply(x).backward()
    return x.grad


@program
def saved_tensors_hooks() -> Any:
    x = leaf()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: t.detach().numpy(), lambda n: torch.from_numpy(n)
    ):
        (x * x).exp().sum().backward()
    y = leaf()
    with torch.autograd.graph.save_on_cpu():
        z = (y * y).exp().sum()
    z.backward()
    return x.grad, y.grad


@program
def without_saved_tensors_hooks() -> Any:
    with torch.autograd.graph.disable_saved_tensors_hooks("no"):
        x = leaf()
        (x * x).sum().backward()
        return x.grad


@program
def copies_and_checkpoints_of_models() -> Any:
    import copy
    import io

    m = nn.Linear(3, 3)
    m(torch.ones(1, 3)).sum().backward()
    c = copy.deepcopy(m)
    b = io.BytesIO()
    torch.save(m.state_dict(), b)
    b.seek(0)
    c.load_state_dict(torch.load(b))
    c(torch.ones(1, 3)).sum().backward()
    return c.weight.grad


@program
def default_device() -> Any:
    torch.set_default_device("cpu")
    try:
        x = leaf()
        (x * torch.ones(3)).sum().backward()
        return x.grad
    finally:
        torch.set_default_device(None)


@program
def function_mode_of_the_users() -> Any:
    from torch.overrides import TorchFunctionMode

    seen = []

    class M(TorchFunctionMode):
        def __torch_function__(self, f, t, a=(), k=None):
            seen.append(getattr(f, "__name__", "?"))
            return f(*a, **(k or {}))

    with M():
        x = leaf()
        (x * 2).sum().backward()
    return seen


@program
def dispatch_mode_of_the_users() -> Any:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class M(TorchDispatchMode):
        def __torch_dispatch__(self, f, t, a=(), k=None):
            seen.append(str(f))
            return f(*a, **(k or {}))

    with M():
        x = leaf()
        (x * 2).sum().backward()
    return seen


@program
def generator() -> Any:
    def gen(x):
        for _ in range(3):
            x = x * 2
            yield x

    x = leaf()
    sum(gen(x)).sum().backward()
    return x.grad


@program
def coroutines() -> Any:
    import asyncio

    async def f(x):
        await asyncio.sleep(0)
        (x * 2).sum().backward()
        return x.grad

    async def main():
        return await asyncio.gather(*[f(leaf()) for _ in range(3)])

    return asyncio.run(main())


@program
def distributed_data_parallel() -> Any:
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    # Gloo's threads can deadlock with the interpreter when the reducer is the last to hold them.
    dist.init_process_group("fake", rank=0, world_size=1, store=FakeStore())
    try:
        m = nn.parallel.DistributedDataParallel(
            nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)), find_unused_parameters=True
        )
        o = torch.optim.SGD(m.parameters(), lr=0.1)
        for _ in range(2):
            o.zero_grad()
            m(torch.ones(2, 3)).sum().backward()
            o.step()
        with m.no_sync():
            m(torch.ones(2, 3)).sum().backward()
        return [p.grad for p in m.parameters()]
    finally:
        dist.destroy_process_group()


@program
def hooks_on_accumulate_grad() -> Any:
    x = leaf()
    a = x.expand_as(x).grad_fn.next_functions[0][0]
    out = []
    a.register_hook(lambda *g: out.append(len(g)))
    a.register_prehook(lambda g: (g[0] * 2,))
    (x * 2).sum().backward()
    return out, x.grad


@program
def gradients_assigned() -> Any:
    x = leaf()
    x.grad = torch.ones(3)
    (x * 2).sum().backward()
    g = x.grad
    g.zero_()
    (x * 3).sum().backward()
    del x.grad
    (x * 4).sum().backward()
    return x.grad, g


@program
def one_gradient_of_two_leaves() -> Any:
    x, y = leaf(), leaf()
    g = torch.ones(3)
    x.grad = g
    y.grad = g
    (x * 2 + y).sum().backward()
    return x.grad, y.grad


@program
def multi_grad_hook() -> Any:
    x, y = leaf(), leaf()
    seen = []
    h = torch.autograd.graph.register_multi_grad_hook((x, y), lambda gs: seen.append(len(gs)))
    (x * y).sum().backward()
    h.remove()
    return seen, x.grad


@program
def gradient_edges() -> Any:
    x = leaf()
    y = x * 2
    e = torch.autograd.graph.get_gradient_edge(y)
    z = (y * 3).sum()
    return (
        torch.autograd.grad(z, e, retain_graph=True),
        torch.autograd.backward(e, torch.ones(3)),
        x.grad,
    )


@program
def gradchecks() -> Any:
    def f(x):
        return (x.sin() * x).sum()

    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    return (
        torch.autograd.gradcheck(f, x),
        torch.autograd.gradgradcheck(f, x),
        torch.autograd.gradcheck(f, x, fast_mode=True),
        torch.autograd.gradcheck(f, x, check_forward_ad=True, check_batched_grad=True),
    )


@program
def automatic_mixed_precision() -> Any:
    m = nn.Linear(3, 3)
    s = torch.amp.GradScaler("cpu")
    o = torch.optim.SGD(m.parameters(), lr=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = m(torch.ones(2, 3)).sum()
    s.scale(loss).backward()
    s.step(o)
    s.update()
    return m.weight


@program
def parameters_swapped() -> Any:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model = nn.Linear(3, 3)
        model(torch.ones(1, 3)).sum().backward()
        model.double()
        model(torch.ones(1, 3, dtype=torch.double)).sum().backward()
        return model.weight.grad
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


@program
def vmap_over_rows() -> Any:
    x = leaf(2, 3)
    torch.vmap(lambda row: row.cumsum(0).prod())(x).sum().backward()
    return x.grad
