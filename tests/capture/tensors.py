"""Tensors of every dtype, size, layout and content, each the same in every run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tracer.records.stream import DTYPE_CODES

DTYPES = tuple(DTYPE_CODES)
SIZES = (None, 0, 1, 16, 17, 300, 4095, 4096, 5000)
"""Numbers of elements; None: one, without a dimension."""


def tensors(dtype: str) -> Iterator[tuple[str, Tensor]]:
    """Named tensors of one dtype."""
    for size in SIZES:
        for content, flat in contents(dtype, size):
            for layout, tensor in layouts(flat):
                yield f"{dtype} {size} {content} {layout}", tensor


def contents(dtype: str, size: int | None) -> Iterator[tuple[str, Tensor]]:
    """Flat tensors with ordinary and with awkward elements."""
    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    count = 1 if size is None else size
    plain = torch.randn(count, generator=generator, dtype=torch.float64) * 40
    shape = () if size is None else (size,)
    if not kind.is_floating_point and not kind.is_complex:
        yield "integers", plain.to(torch.int64).abs().remainder(127).to(kind).reshape(shape)
        if kind == torch.int64:  # beyond what a double holds exactly
            yield "large", (plain * 1e4).to(kind).pow(3).reshape(shape)
        return
    if kind.is_complex:
        plain = torch.complex(plain, plain.flip(0) / 3)
    for name, specials in _SPECIALS.items():
        values = plain.clone()
        for k, special in enumerate(specials):
            if k < count:
                values[(k * 37) % count] = special
        yield name, values.to(kind).reshape(shape)
    if kind in (torch.float32, torch.float64, torch.bfloat16, torch.complex64):
        for power in (30, -30, -41):
            yield f"1e{power}", (plain * 10.0**power).to(kind).reshape(shape)
    if kind == torch.float64:
        for power in (200, -200, -310, 306):
            yield f"1e{power}", (plain / 40 * 10.0**power).reshape(shape)


_NAN, _INF = float("nan"), float("inf")
_SPECIALS: dict[str, tuple[float, ...]] = {
    "plain": (),
    "zeros": (0.0, -0.0, 0.0),
    "denormal": (0.0, 1e-42, -1e-320, 6e-8),
    "nan": (_NAN, 1.0, -0.0),
    "inf": (_INF, 0.0),
    "-inf": (-_INF, -0.0),
    "all": (_INF, -_INF, _NAN, 0.0),
}


def layouts(flat: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The elements of a tensor, one after another and otherwise."""
    yield "contiguous", flat
    if flat.dim() == 0:
        yield "expanded", flat.expand(3, 7)
        return
    count = flat.numel()
    yield "every other", flat[::2]
    if count and count % 4 == 0:
        yield "transposed", flat.reshape(4, -1).t()
        yield "permuted", flat.reshape(2, 2, -1).permute(2, 0, 1)
        yield "columns", flat.reshape(4, -1)[:, 1:]
    yield "rows shown twice", flat.expand(2, count)
    yield "columns shown twice", flat.reshape(-1, 1).expand(count, 2)
    if flat.is_complex():
        yield "conjugate", flat.conj()
        yield "negative", flat.conj().imag
        yield "parts", torch.view_as_real(flat)
