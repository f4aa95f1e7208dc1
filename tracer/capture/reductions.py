"""A tensor in, operations on its device that put what it holds into memory there: nothing waits.

No copy of a large tensor is made: it is taken as doubles in pieces of a bounded size.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import starmap
from typing import Any

import torch
from torch import Tensor

from tracer.capture.differences import bits_of
from tracer.records.stream import ENTRY_STATS

_SUMS = ("squares", "sum", "least", "greatest", "shift")
"""What is put first: the sums are of elements divided by two to the power of the shift."""
_COUNTS = ("zeros", "NaNs", "Infs")

_STATS = struct.Struct("<BIddddQQQ")
_PIECE = 1 << 21
FUSED_ON = {"cuda"}
"""Types of device that Triton may be there for; a test adds the CPU, which it then plays."""
_WITHOUT_DOUBLES = ("mps",)


@dataclass(frozen=True, slots=True)
class Layout:
    """How numbers lie in memory: sums in the widest floats that a device has, then counts."""

    wide: torch.dtype
    bytes: struct.Struct
    most_shift: int

    def parts(self, slot: Tensor) -> tuple[Tensor, Tensor]:
        """The places of the sums and of the counts in the bytes of `slot`."""
        size = len(_SUMS) * self.wide.itemsize
        return slot[:size].view(self.wide), slot[-8 * len(_COUNTS) :].view(torch.int64)


DOUBLES = Layout(torch.float64, struct.Struct("<5d3q"), 1000)
FLOATS = Layout(torch.float32, struct.Struct("<5f4x3q"), 100)


def layout_on(device: torch.device) -> Layout:
    """How numbers are taken on a device."""
    return FLOATS if device.type in _WITHOUT_DOUBLES else DOUBLES


class _Fused:
    """One kernel instead of a dozen operations, for tensors that there is one for."""

    def __init__(self) -> None:
        self._module: Any = None
        self._is_there = True

    def put(self, dense: Tensor, sums: Tensor, counts: Tensor) -> bool:
        """Put the numbers of a tensor by one kernel; whether that could be done."""
        if not self._is_there or not dense.is_contiguous():
            return False
        try:
            self._module = self._module or import_module("tracer.capture.fused")
            if dense.dtype not in self._module.DTYPES:
                return False
            cuda: Any = torch.cuda
            with cuda.device_of(dense):  # one that is not of CUDA leaves all as it is
                self._module.put_numbers(dense, sums, counts)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # there is no Triton, or no compiler that it needs
            self._is_there = False
        return self._is_there


_FUSED = _Fused()


def put_values(tensor: Tensor, slot: Tensor) -> None:
    """Copy every element of a small tensor, in row-major order, into the bytes of `slot`."""
    flat = tensor.detach().resolve_conj().resolve_neg().reshape(-1).contiguous()
    # a single element may have any stride, and `view` insists on 1
    slot.copy_(flat.as_strided((flat.numel(),), (1,)).view(torch.uint8))


def put_numbers(dense: Tensor, slot: Tensor, layout: Layout) -> None:
    """Put the numbers of a tensor with at least one element into the bytes of `slot`."""
    sums, counts = layout.parts(slot)
    if dense.device.type in FUSED_ON and _FUSED.put(dense, sums, counts):
        return
    shift = sums.new_zeros(())
    if layout is FLOATS or dense.dtype in (torch.float64, torch.complex128):  # squares may overflow
        extremes = [_as_numbers(piece, layout).aminmax() for piece in _pieces(dense)]
        shift = _shift_of(extremes, layout)
    rows = [_read(_as_numbers(piece, layout), shift) for piece in _pieces(dense)]
    if len(rows) == 1:
        torch.stack(rows[0][0], out=sums)
        torch.stack(rows[0][1], out=counts)
        return
    squares, total, low, high, _ = zip(*(row[0] for row in rows), strict=True)
    added = [torch.stack(column).sum() for column in (squares, total)]
    torch.stack([*added, torch.stack(low).amin(), torch.stack(high).amax(), shift], out=sums)
    torch.sum(torch.stack([torch.stack(row[1]) for row in rows]), dim=0, out=counts)


def _read(values: Tensor, shift: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    low, high = values.aminmax()
    counts = [(values == 0).sum(), values.isnan().sum(), values.isinf().sum()]
    scaled = values * torch.exp2(-shift)
    return [(scaled * scaled).sum(), scaled.sum(), low, high, shift], counts


def _shift_of(extremes: Sequence[tuple[Tensor, Tensor]], layout: Layout) -> Tensor:
    """The exponent of the greatest absolute value, as far as dividing by it stays in range."""
    greatest = torch.stack([torch.maximum(low.abs(), high.abs()) for low, high in extremes]).amax()
    exponent = torch.frexp(greatest).exponent.to(layout.wide)
    exponent = torch.where(greatest.isfinite(), exponent, torch.zeros_like(exponent))
    return exponent.clamp(-layout.most_shift, layout.most_shift)


def _as_numbers(piece: Tensor, layout: Layout) -> Tensor:
    """Elements in the widest floats of the device; of complex ones the absolute value."""
    if piece.dtype is torch.complex64:
        parts = torch.view_as_real(piece.resolve_conj()).to(layout.wide)
        return (parts * parts).sum(-1).sqrt()
    return piece.abs() if piece.is_complex() else piece.to(layout.wide)


def _pieces(dense: Tensor) -> Iterator[Tensor]:
    """Views of a tensor that are small enough to be taken as doubles."""
    if dense.numel() <= _PIECE:
        yield dense
        return
    rows = _PIECE // (dense.numel() // dense.shape[0])
    for part in torch.split(dense, rows) if rows else dense.unbind():
        yield from _pieces(part)


def put_number_of_differences(left: Tensor, given: Tensor, slot: Tensor) -> None:
    """Count into `slot`, the bytes of an int64, where the bits of two tensors differ."""
    pairs = zip(_pieces(bits_of(left)), _pieces(bits_of(given)), strict=True)
    counts = torch.stack(list(starmap(_differences, pairs)))
    torch.sum(counts, dim=0, keepdim=True, out=slot.view(torch.int64))


def _differences(left: Tensor, given: Tensor) -> Tensor:
    return (left != given).sum()


def pack_numbers(
    raw: bytes, layout: Layout, meta: int, *, numel: int, stored: int, repeat: int = 1
) -> bytes:
    """Pack the entry of a tensor of `numel` elements from the numbers of those in memory.

    Each shows `repeat` times, `stored` elements in all; the rest, in a sparse tensor, are zeros.
    """
    squares, total, low, high, shift, *counts = layout.bytes.unpack(raw)
    zeros, nans, infs = (count * repeat for count in counts)
    norm = _shifted(math.sqrt(squares * repeat), shift)
    mean = _shifted(total / (numel // repeat), shift) if numel else math.nan
    if stored < numel:
        low, high = min(low, 0.0), max(high, 0.0)
    if nans:
        norm = low = high = mean = math.nan
    plain = (number + 0.0 for number in (norm, low, high, mean))  # the sign of zero is no news
    return _STATS.pack(ENTRY_STATS, meta, *plain, zeros + numel - stored, nans, infs)


def _shifted(number: float, shift: float) -> float:
    try:
        return math.ldexp(number, int(shift))
    except OverflowError:
        return math.copysign(math.inf, number)
