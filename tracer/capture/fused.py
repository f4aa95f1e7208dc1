"""A tensor of a GPU in; a Triton kernel that reads it once puts what it holds into memory there.

Imported where a CUDA tensor was met and Triton is there; PyTorch's own wheels for CUDA bring it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""What is read: squares and sums of these never leave the range of a double."""

_BLOCK = 1024
_MOST_PROGRAMS = 512
_SUMS, _COUNTS = 5, 3
_EXACT = {"enable_fp_fusion": False}
"""Nothing is contracted; said aloud, as Triton 3.9 warns where it is left to be understood."""


def put_numbers(flat: Tensor, sums: Tensor, counts: Tensor) -> None:
    """Put sums and counts, as `reductions.Layout` has them in doubles, of a contiguous tensor.

    Each program reads a stretch; where there are several, a second kernel adds up what they found.
    The order of additions depends on the number of elements alone: the same bits each time.
    """
    numel = flat.numel()
    programs = min(_MOST_PROGRAMS, triton.cdiv(numel, 8 * _BLOCK))
    stretch = triton.cdiv(triton.cdiv(numel, programs), _BLOCK) * _BLOCK
    if programs == 1:
        _read[(1,)](flat, sums, counts, numel, stretch, _BLOCK, **_EXACT)
        return
    found = sums.new_empty(programs * _SUMS), counts.new_empty(programs * _COUNTS)
    _read[(programs,)](flat, *found, numel, stretch, _BLOCK, **_EXACT)
    _add_up[(1,)](*found, sums, counts, programs, _MOST_PROGRAMS, **_EXACT)


@triton.jit(do_not_specialize=["numel", "stretch"])
def _read(flat, sums, counts, numel, stretch, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    program = tl.program_id(0).to(tl.int64)
    begin = program * stretch
    end = tl.minimum(begin + stretch, numel)
    squares = tl.zeros((BLOCK,), tl.float64)
    total = tl.zeros((BLOCK,), tl.float64)
    low = tl.full((BLOCK,), float("inf"), tl.float32)
    high = tl.full((BLOCK,), float("-inf"), tl.float32)
    zeros = tl.zeros((BLOCK,), tl.int64)
    nans = tl.zeros((BLOCK,), tl.int64)
    infs = tl.zeros((BLOCK,), tl.int64)
    for at in range(begin, end, BLOCK):
        place = at + tl.arange(0, BLOCK)
        inside = place < end
        value = tl.load(flat + place, mask=inside, other=0.0).to(tl.float32)
        double = value.to(tl.float64)
        squares += double * double
        total += double
        low = tl.minimum(low, tl.where(inside, value, float("inf")))
        high = tl.maximum(high, tl.where(inside, value, float("-inf")))
        zeros += (inside & (value == 0)).to(tl.int64)
        nans += (value != value).to(tl.int64)
        infs += (tl.abs(value) == float("inf")).to(tl.int64)
    tl.store(sums + program * 5 + 0, tl.sum(squares, 0))
    tl.store(sums + program * 5 + 1, tl.sum(total, 0))
    tl.store(sums + program * 5 + 2, tl.min(low, 0).to(tl.float64))
    tl.store(sums + program * 5 + 3, tl.max(high, 0).to(tl.float64))
    tl.store(sums + program * 5 + 4, 0.0)
    tl.store(counts + program * 3 + 0, tl.sum(zeros, 0))
    tl.store(counts + program * 3 + 1, tl.sum(nans, 0))
    tl.store(counts + program * 3 + 2, tl.sum(infs, 0))


@triton.jit(do_not_specialize=["programs"])
def _add_up(found_sums, found_counts, sums, counts, programs, MOST: tl.constexpr):  # type: ignore[no-untyped-def]
    program = tl.arange(0, MOST)
    inside = program < programs
    for column in tl.static_range(2):
        part = tl.load(found_sums + program * 5 + column, mask=inside, other=0.0)
        tl.store(sums + column, tl.sum(part, 0))
    least = tl.load(found_sums + program * 5 + 2, mask=inside, other=float("inf"))
    tl.store(sums + 2, tl.min(least, 0))
    greatest = tl.load(found_sums + program * 5 + 3, mask=inside, other=float("-inf"))
    tl.store(sums + 3, tl.max(greatest, 0))
    tl.store(sums + 4, 0.0)
    for column in tl.static_range(3):
        count = tl.load(found_counts + program * 3 + column, mask=inside, other=0)
        tl.store(counts + column, tl.sum(count, 0))
