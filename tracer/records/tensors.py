"""What is known of a tensor without keeping it: its metadata, its statistics, its few values."""

from __future__ import annotations

from dataclasses import dataclass

Scalar = float | int | bool | complex

NOT_ASKED = "detail=structure"
"""Why nothing is known of a tensor where a recording was to read none."""


@dataclass(frozen=True, slots=True)
class TensorMeta:
    """Shape, dtype (`float32`), device (`cuda:0`) and layout of a tensor, in PyTorch's spelling."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    device: str = "cpu"
    layout: str = "strided"

    @property
    def numel(self) -> int:
        """The number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class Gradient:
    """What was seen of one tensor at one moment: a gradient, a `.grad` or a leaf's data.

    `norm` is the L2 norm; `min`, `max` and `mean` are of the elements as they are, so a NaN makes
    them NaN. Norm and mean of a large float32 tensor are within 1e-5 of the exact ones.
    For complex tensors they are of the
    absolute value. `zeros`, `nans` and `infs` are counts. `values` holds every element in row-major
    order when there are few (16 by default), exactly: a float32 is exact in a Python float.
    A tensor that could not or was not to be read has `unread` set to the reason, and no statistics.
    """

    meta: TensorMeta
    norm: float | None = None
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    zeros: int | None = None
    nans: int | None = None
    infs: int | None = None
    values: tuple[Scalar, ...] | None = None
    unread: str = ""

    @property
    def uniform(self) -> float | None:
        """The one value that all elements have, or None where they differ or are not known."""
        if (
            self.min is None
            or self.nans
            or self.min != self.max
            or self.meta.dtype.startswith("complex")
        ):
            return None
        return self.min
