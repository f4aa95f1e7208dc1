"""A strided CPU tensor in, the norm, extremes, mean and counts of its elements out.

Adds in the very order of `_statistics.h`, where it is explained, so that no bit differs: elements
as doubles, 16 lanes for a block of 4,096, then the lanes, then the blocks. `torch.cumsum` adds one
after another.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import torch

LANES = 16
BLOCK = 4096
_PIECE = 64 * BLOCK  # so many elements are held as doubles at once
_STATS = struct.Struct("<ddddQQQ")


@dataclass(slots=True)
class _Sums:
    squares: float = 0.0
    sum: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    zeros: int = 0
    nans: int = 0
    infs: int = 0


def read_with(threads: int) -> None:
    """Nothing: PyTorch's operations, which read here, know how many threads there are."""


def pack_statistics(tensor: Any) -> bytes:
    """Pack norm, min, max, mean, zeros, NaNs and Infs of a tensor with at least one element."""
    dense, repeat = distinct_elements(tensor)
    flat = dense.reshape(-1)
    sums = _add_up(flat)
    norm = math.sqrt(sums.squares * repeat)
    low, high, mean = sums.low, sums.high, sums.sum / flat.numel()
    if sums.nans:
        norm = low = high = mean = math.nan
    elif flat.dtype is torch.float64 and not sums.infs and (low != 0 or high != 0):
        fits = sums.squares > 1e-280 and math.isfinite(sums.squares * repeat)
        if not fits or not math.isfinite(sums.sum):
            norm, scaled_mean = _rescaled(flat, sums, repeat)
            mean = mean if math.isfinite(sums.sum) else scaled_mean
    numbers = [_plain(number) for number in (norm, low, high, mean)]
    return _STATS.pack(*numbers, sums.zeros * repeat, sums.nans * repeat, sums.infs * repeat)


def _plain(number: float) -> float:
    """One zero and one NaN: their signs and payloads differ between processors."""
    return math.nan if math.isnan(number) else number + 0.0


def distinct_elements(tensor: Any) -> tuple[Any, int]:
    """A view of the distinct elements in the order of memory, and how often each is shown."""
    pairs = [
        (stride, size)
        for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
        if size != 1
    ]
    repeat = math.prod(size for stride, size in pairs if stride == 0)
    dense = sorted((pair for pair in pairs if pair[0]), key=lambda pair: -pair[0])
    sizes, strides = [size for _, size in dense], [stride for stride, _ in dense]
    return tensor.as_strided(sizes, strides, tensor.storage_offset()), repeat


def _add_up(flat: Any, factors: tuple[float, float] = (1.0, 1.0)) -> _Sums:
    sums = _Sums()
    for piece in flat.split(_PIECE):
        values = _doubles(piece)
        if factors != (1.0, 1.0):
            values = values * factors[0] * factors[1]
        _add_piece(sums, values)
    return sums


def _doubles(piece: Any) -> Any:
    if not piece.is_complex():
        return piece.to(torch.float64)
    parts = torch.view_as_real(piece).to(torch.float64)
    squares = parts * parts
    sums = (squares[:, 0] + squares[:, 1]).tolist()
    # torch's own square root may be that of a library whose last bit is not always right
    return torch.tensor(list(map(math.sqrt, sums)), dtype=torch.float64)


def _add_piece(sums: _Sums, values: Any) -> None:
    low, high = values.aminmax()
    sums.low, sums.high = min(sums.low, float(low)), max(sums.high, float(high))
    sums.zeros += int((values == 0).sum())
    squares = _block_sums(values * values)
    if not all(map(math.isfinite, squares)):
        sums.nans += int(values.isnan().sum())
        sums.infs += int(values.isinf().sum())
    for square, total in zip(squares, _block_sums(values), strict=True):
        sums.squares += square
        sums.sum += total


def _block_sums(values: Any) -> list[float]:
    whole = values.numel() // BLOCK * BLOCK
    sums: list[float] = []
    if whole:
        sums += _lane_sums(values[:whole].view(-1, BLOCK // LANES, LANES))
    rest = values[whole:]
    if rest.numel():
        rows = -(-rest.numel() // LANES)
        padded = rest.new_zeros(rows * LANES)
        padded[: rest.numel()] = rest
        sums += _lane_sums(padded.view(1, rows, LANES))
    return sums


def _lane_sums(blocks: Any) -> list[float]:
    lanes = blocks.cumsum(1)[:, -1]
    sums: list[float] = lanes.cumsum(1)[:, -1].tolist()
    return sums


def _rescaled(flat: Any, sums: _Sums, repeat: int) -> tuple[float, float]:
    """Norm and mean of doubles whose squares or sum leave a double's range."""
    exponent = math.frexp(max(abs(sums.low), abs(sums.high)))[1]
    half = int(exponent / 2)
    scaled = _add_up(flat, (math.ldexp(1.0, -half), math.ldexp(1.0, half - exponent)))
    norm = _ldexp(math.sqrt(scaled.squares * repeat), exponent)
    return norm, _ldexp(scaled.sum / flat.numel(), exponent)


def _ldexp(number: float, exponent: int) -> float:
    try:
        return math.ldexp(number, exponent)
    except OverflowError:
        return math.copysign(math.inf, number)
