"""Programs of unusual operations, each giving all that it computed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from tests.guarantees.unusual import leaf, program


@program
def functional_jacobians() -> Any:
    x = leaf()
    return (
        torch.autograd.functional.jacobian(lambda x: (x**2).sum() * x, x, create_graph=True),
        torch.autograd.functional.hvp(lambda x: (x**3).sum(), x, torch.ones(3)),
        torch.autograd.functional.vjp(lambda x: x.sin(), x, torch.ones(3)),
        torch.autograd.functional.jvp(lambda x: x.sin(), x, torch.ones(3)),
    )


@program
def a_parametrization() -> Any:
    class Sym(nn.Module):
        def forward(self, X):
            return X.triu() + X.triu(1).T

    m = nn.Linear(3, 3)
    parametrize.register_parametrization(m, "weight", Sym())
    m(torch.ones(2, 3)).square().sum().backward()
    return [p.grad for p in m.parameters()]


@program
def an_orthogonal_parametrization() -> Any:
    m = parametrizations.orthogonal(nn.Linear(3, 3))
    with parametrize.cached():
        (m(torch.ones(2, 3)) + m(torch.ones(2, 3))).square().sum().backward()
    return [p.grad for p in m.parameters()]


@program
def weight_norm() -> Any:
    m = parametrizations.weight_norm(nn.Linear(3, 2))
    m(torch.ones(1, 3)).sum().backward()
    return [p.grad for p in m.parameters()]


@program
def weight_norm_by_hooks() -> Any:
    m = nn.utils.weight_norm(nn.Linear(3, 2))
    m(torch.ones(1, 3)).sum().backward()
    return [p.grad for p in m.parameters()]


@program
def spectral_norm() -> Any:
    m = parametrizations.spectral_norm(nn.Linear(3, 2))
    for _ in range(2):
        m(torch.ones(1, 3)).sum().backward()
    return [p.grad for p in m.parameters()], m.parametrizations.weight[0]._u


@program
def spectral_norm_by_hooks() -> Any:
    m = nn.utils.spectral_norm(nn.Linear(3, 2))
    m(torch.ones(1, 3)).sum().backward()
    return [p.grad for p in m.parameters()]


@program
def einsum() -> Any:
    a, b = leaf(2, 3, 4), leaf(4, 3)
    torch.einsum("bij,ji->b", a, b).square().sum().backward()
    return a.grad, b.grad


@program
def index_put() -> Any:
    x, v = leaf(5), leaf(2)
    y = x * 1
    y.index_put_((torch.tensor([0, 0]),), v, accumulate=True)
    y[torch.tensor([True, False, True, False, False])] = 0
    y.sum().backward()
    return x.grad, v.grad


@program
def scatters() -> Any:
    x, v = leaf(3, 5), leaf(2, 5)
    i = torch.tensor([[0, 1, 2, 0, 0], [2, 0, 0, 1, 2]])
    y = x.scatter(0, i, v)
    z = x.scatter_add(0, i, v)
    w = x.scatter_reduce(0, i, v, "amax")
    (y * z * w).sum().backward()
    return x.grad, v.grad


@program
def gathers() -> Any:
    x = leaf(3, 5)
    (x.gather(1, torch.tensor([[0, 0], [1, 2], [4, 4]])) ** 2).sum().backward()
    (x.index_select(0, torch.tensor([0, 0]))).sum().backward()
    x.take(torch.tensor([1, 1])).sum().backward()
    return x.grad


@program
def embedding_bag() -> Any:
    e = nn.EmbeddingBag(10, 3, sparse=True, mode="sum")
    e(torch.tensor([1, 2, 4]), torch.tensor([0, 2])).sum().backward()
    return e.weight.grad


@program
def sparse_embedding() -> Any:
    e = nn.Embedding(10, 3, sparse=True)
    e(torch.tensor([1, 2, 2])).sum().backward()
    g = e.weight.grad.clone()
    e(torch.tensor([1])).sum().backward()
    return e.weight.grad, g


@program
def sparse_product() -> Any:
    a = torch.eye(3).to_sparse().requires_grad_()
    b = leaf(3, 3)
    torch.sparse.mm(a, b).sum().backward()
    return a.grad, b.grad


@program
def sparse_rows() -> Any:
    a = torch.eye(3).to_sparse_csr().requires_grad_()
    b = leaf(3, 3)
    (a @ b).sum().backward()
    return a.grad, b.grad


@program
def fourier_transforms() -> Any:
    x = leaf(8)
    y = torch.fft.rfft(x)
    torch.fft.irfft(y * y.conj()).sum().backward()
    torch.fft.fft2(leaf(4, 4)).abs().sum().backward()
    torch.stft(x.repeat(4), 8, window=torch.ones(8), return_complex=True).abs().sum().backward()
    return x.grad


@program
def linear_algebra() -> Any:
    a = leaf(3, 3)
    s = a @ a.T + 3 * torch.eye(3)
    (
        torch.linalg.cholesky(s).sum()
        + torch.linalg.svdvals(a).sum()
        + torch.linalg.eigvalsh(s).sum()
        + torch.linalg.det(s)
        + torch.linalg.solve(s, a).sum()
        + torch.linalg.inv(s).sum()
        + torch.linalg.qr(a)[1].abs().sum()
        + torch.linalg.matrix_exp(a).sum()
        + torch.logdet(s)
        + torch.linalg.pinv(a).sum()
    ).backward()
    u, d, v = torch.svd(a)
    (d * 2).sum().backward()
    return a.grad


@program
def cumulative_operations() -> Any:
    x = leaf(5)
    (x.cumsum(0) + x.cumprod(0) + x.cummax(0)[0] + x.logcumsumexp(0)).sum().backward()
    x.sort()[0].prod().backward()
    x.topk(2)[0].sum().backward()
    x.kthvalue(2)[0].backward()
    return x.grad


@program
def as_strided() -> Any:
    x = leaf(6)
    y = x.as_strided((3, 2), (1, 1))
    (y * y).sum().backward()
    z = (x * 1).unfold(0, 3, 1)
    z.prod(1).sum().backward()
    return x.grad


@program
def as_strided_in_place() -> Any:
    x = leaf(6)
    y = x * 1
    y.as_strided((3,), (2,)).mul_(2)
    y.sum().backward()
    return x.grad


@program
def operations_with_many_outputs() -> Any:
    x = leaf(6, 2)
    a, b, c = x.split(2)
    d = x.unbind(1)
    e = x.chunk(3)
    f = x.tensor_split(2)
    torch.stack([a * b, c, e[0]]).sum().backward()
    torch.cat([d[0], d[1] ** 2]).sum().backward()
    torch.hstack(f).max().backward()
    return x.grad


@program
def packed_gru() -> Any:
    g = nn.GRU(3, 4, 2, bidirectional=True)
    o, h = g(nn.utils.rnn.pack_sequence([torch.randn(3, 3), torch.randn(2, 3)]))
    o.data.sum().backward()
    return [p.grad for p in g.parameters()]


@program
def convolutions() -> Any:
    x = leaf(1, 2, 6, 6)
    y = nn.Conv2d(2, 4, 3, groups=2)(x)
    y = nn.ConvTranspose2d(4, 2, 3)(y)
    y = F.interpolate(y, scale_factor=2, mode="bilinear")
    y = F.grid_sample(y, torch.zeros(1, 2, 2, 2))
    y = F.adaptive_max_pool2d(y, 2)
    y.sum().backward()
    return x.grad


@program
def normalizations() -> Any:
    x = leaf(2, 4, 3)
    m = [
        nn.BatchNorm1d(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm1d(4),
        nn.LayerNorm(3),
        nn.LocalResponseNorm(2),
    ]
    sum(f(x).square().sum() for f in m).backward()
    return x.grad


@program
def losses() -> Any:
    x = leaf(4, 3)
    t = torch.tensor([0, 1, 2, 1])
    loss = (
        F.cross_entropy(x, t, label_smoothing=0.1)
        + F.nll_loss(x.log_softmax(1), t)
        + F.smooth_l1_loss(x, torch.zeros(4, 3))
        + F.kl_div(x, x.softmax(1).detach())
        + F.ctc_loss(leaf(5, 1, 3).log_softmax(2), torch.tensor([[1, 2]]), (5,), (2,))
        + F.triplet_margin_loss(x, x + 1, x - 1)
        + F.hinge_embedding_loss(x.sum(1), torch.tensor([1, -1, 1, -1]))
    )
    loss.backward()
    return x.grad


@program
def attention() -> Any:
    q = leaf(1, 2, 4, 8)
    F.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
    m = nn.MultiheadAttention(8, 2, dropout=0.1)
    m(*[torch.randn(3, 1, 8)] * 3)[0].sum().backward()
    return q.grad, m.in_proj_weight.grad


@program
def complex_layer() -> Any:
    m = nn.Linear(2, 2, dtype=torch.complex64)
    m(torch.ones(1, 2, dtype=torch.complex64)).abs().sum().backward()
    return m.weight.grad


@program
def conjugates() -> Any:
    x = leaf(3, dtype=torch.complex64)
    (x.conj().imag * 2).sum().backward()
    return x.grad


@program
def complex_numbers() -> Any:
    a = leaf(4, dtype=torch.complex64)
    b = torch.fft.fft(a)
    (b.abs() ** 2).sum().backward()
    torch.view_as_real(a * 2j).sum().backward()
    return a.grad


@program
def expanded_gradients() -> Any:
    x = leaf(3)
    y = x.expand(2, 3)
    y.sum().backward()
    z = leaf(1)
    z.expand(5).sum().backward()
    return x.grad, z.grad


@program
def empty_tensors() -> Any:
    x = torch.empty(0, 3, requires_grad=True)
    (x * 2).sum().backward()
    return x.grad


@program
def choices() -> Any:
    x = leaf()
    torch.where(x > 0, x, torch.zeros(())).sum().backward()
    x.clamp(min=0).sum().backward()
    torch.nan_to_num(x).sum().backward()
    x.masked_fill(x > 0, 0).sum().backward()
    return x.grad


@program
def random_numbers() -> Any:
    x = leaf(50)
    F.dropout(x, 0.5).sum().backward()
    torch.bernoulli(torch.full((3,), 0.5))
    F.gumbel_softmax(leaf(3)).sum().backward()
    return x.grad, torch.rand(3)


@program
def distributions() -> Any:
    m = torch.zeros(2, requires_grad=True)
    d = torch.distributions.Normal(m, torch.ones(2))
    d.log_prob(d.rsample()).sum().backward()
    torch.distributions.kl_divergence(
        d, torch.distributions.Normal(torch.ones(2), 1)
    ).sum().backward()
    return m.grad


@program
def every_optimizer() -> Any:
    out = []
    for n in [
        "SGD",
        "Adam",
        "AdamW",
        "Adagrad",
        "Adadelta",
        "Adamax",
        "ASGD",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Rprop",
        "Adafactor",
    ]:
        m = nn.Linear(3, 2)
        o = getattr(torch.optim, n)(m.parameters(), lr=0.1)
        for _ in range(2):
            o.zero_grad()
            m(torch.ones(1, 3)).square().sum().backward()
            o.step()
        out.append(m.weight)
    m = nn.Linear(3, 2, bias=False)
    o = torch.optim.Muon(m.parameters(), lr=0.1)
    m(torch.ones(1, 3)).sum().backward()
    o.step()
    out.append(m.weight)
    return out


@program
def sparse_adam() -> Any:
    e = nn.Embedding(5, 2, sparse=True)
    o = torch.optim.SparseAdam(e.parameters())
    for _ in range(2):
        o.zero_grad()
        e(torch.tensor([1, 2])).sum().backward()
        o.step()
    return e.weight


@program
def averaged_model() -> Any:
    m = nn.Linear(3, 1)
    a = torch.optim.swa_utils.AveragedModel(m)
    o = torch.optim.NAdam(m.parameters())
    for _ in range(3):
        o.zero_grad()
        m(torch.ones(1, 3)).sum().backward()
        o.step()
        a.update_parameters(m)
    return list(a.parameters())


@program
def fake_quantization() -> Any:
    x = leaf()
    y = torch.fake_quantize_per_tensor_affine(x, 0.1, 0, 0, 255)
    y.sum().backward()
    return x.grad


@program
def half_precision() -> Any:
    out = []
    for d in (torch.float16, torch.bfloat16):
        a = leaf(4).detach().to(d).requires_grad_()
        (a * 2).float().sum().backward()
        out.append(a.grad)
    return out


@program
def through_float8() -> Any:
    a = leaf(4)
    b = a.to(torch.float8_e4m3fn)
    c = b.to(torch.float32)
    (c * 3).sum().backward()
    return a.grad


@program
def float8_leaf() -> Any:
    a = torch.ones(4).to(torch.float8_e5m2).requires_grad_()
    c = a.to(torch.float32)
    (c * 3).sum().backward()
    return a.grad.float()


@program
def methods_that_warn_from_python() -> Any:
    x = leaf()
    y = (x * 2).resize(3, 1)
    z = y.resize_as(torch.ones(3))
    first, *_ = z
    (z.sum() + first).backward()
    return x.grad, len(z), x.detach().storage().size()
