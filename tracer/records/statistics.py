"""A tensor's few values in, the Gradient with the statistics that follow from them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from tracer.records.tensors import Gradient, Scalar, TensorMeta


def gradient_of_values(meta: TensorMeta, values: tuple[Scalar, ...]) -> Gradient:
    """Derive every statistic from all of a tensor's elements, given in row-major order.

    Arithmetic is in double with one rounding for each sum (`math.fsum`). A NaN makes norm, min, max
    and mean NaN; those of complex elements are of their absolute values. No elements have no min,
    max and mean.
    """
    plain = _of_plain_floats(meta, values)
    if plain is not None:
        return plain
    sizes = _sizes(values)
    nans = infs = 0
    if not _all_finite(sizes):
        nans = sum(map(_is_nan, values))
        infs = sum(map(_is_inf, values))
    low, high, mean = _spread(sizes, nans)
    return Gradient(
        meta=meta,
        norm=math.nan if nans else _norm(sizes),
        min=low,
        max=high,
        mean=mean,
        zeros=values.count(0),
        nans=nans,
        infs=infs,
        values=values,
    )


def _of_plain_floats(meta: TensorMeta, values: tuple[Scalar, ...]) -> Gradient | None:
    """The same in fewer steps for floats that are finite and whose squares are in range, as nearly
    all are: a picture of a large graph has hundreds of thousands."""
    if not values or type(values[0]) is not float:
        return None
    floats = cast("tuple[float, ...]", values)
    try:
        squares = math.fsum([value * value for value in floats])
    except OverflowError:
        return None
    zeros = floats.count(0)
    if not 1e-200 < squares < math.inf and zeros < len(floats):
        return None
    mean = math.fsum(floats) / len(floats)
    return Gradient(meta, math.sqrt(squares), min(floats), max(floats), mean, zeros, 0, 0, values)


def _sizes(values: tuple[Scalar, ...]) -> list[float]:
    if values and isinstance(values[0], complex):
        parts = [complex(value) for value in values]
        return [math.hypot(value.real, value.imag) for value in parts]
    return [float(value) for value in values]  # type: ignore[arg-type]


def _all_finite(sizes: Sequence[float]) -> bool:
    return all(map(math.isfinite, sizes))


def _is_nan(value: Scalar) -> bool:
    if isinstance(value, complex):
        return math.isnan(value.real) or math.isnan(value.imag)
    return math.isnan(value)


def _is_inf(value: Scalar) -> bool:
    if isinstance(value, complex):
        return math.isinf(value.real) or math.isinf(value.imag)
    return math.isinf(value)


def _norm(sizes: Sequence[float]) -> float:
    """The L2 norm; scaled by a power of two where the plain squares overflow or vanish."""
    try:
        total = math.fsum([size * size for size in sizes])
    except OverflowError:
        total = math.inf
    if 1e-200 < total < math.inf or not _all_finite(sizes):
        return math.sqrt(total)
    largest = max(map(abs, sizes), default=0.0)
    if largest == 0.0:
        return 0.0
    scale = math.frexp(largest)[1]
    scaled = math.fsum([math.ldexp(size, -scale) ** 2 for size in sizes])
    try:
        return math.ldexp(math.sqrt(scaled), scale)
    except OverflowError:
        return math.inf


def _spread(sizes: Sequence[float], nans: int) -> tuple[float | None, float | None, float | None]:
    if not sizes:
        return None, None, None
    if nans:
        return math.nan, math.nan, math.nan
    return min(sizes), max(sizes), _mean(sizes)


def _mean(sizes: Sequence[float]) -> float:
    try:
        return math.fsum(sizes) / len(sizes)
    except OverflowError:
        return math.fsum([size / len(sizes) for size in sizes])
    except ValueError:  # inf and -inf have no sum
        return math.nan
