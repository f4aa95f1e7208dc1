"""Two gradients in, one that a hook was given and one that it left; whether it changed it out."""

from __future__ import annotations

import torch
from torch import Tensor

_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def version_of(tensor: Tensor | None) -> int | None:
    """How often a tensor was written to; an inference tensor does not count it."""
    return None if tensor is None or tensor.is_inference() else tensor._version


def is_untouched(tensor: Tensor | None, given: Tensor | None, version: int | None) -> bool:
    """Whether a tensor is the one that was given, and as it was."""
    return tensor is given and version is not None and version_of(tensor) == version


def differs(left: Tensor | None, given: Tensor | None, version: int | None) -> bool:
    """Whether a tensor is another, though its statistics are the same (`grad.flip(0)`).

    One written to in place is taken to be, as what it held before is gone, unless all its elements
    are alike: then the statistics tell them all.
    """
    if left is None or given is None:
        return False
    if left is given:
        return not is_untouched(left, given, version) and not _is_even(left)
    if not are_alike(left, given) or not left.is_cpu:
        return False
    return not torch.equal(bits_of(left), bits_of(given))


def _is_even(tensor: Tensor) -> bool:
    """Whether all elements are alike, as far as that can be asked without waiting."""
    if type(tensor) is not Tensor or not tensor.is_cpu or tensor.layout is not torch.strided:
        return False
    elements = tensor.detach().reshape(-1)
    return bool((elements == elements[:1]).all())


def bits_of(tensor: Tensor) -> Tensor:
    """The elements as whole numbers: as floats 0 would equal -0, and NaN nothing."""
    plain = tensor.detach().resolve_conj().resolve_neg()  # makes no node
    plain = torch.view_as_real(plain) if plain.is_complex() else plain
    return plain.view(_WHOLE[plain.dtype.itemsize])


def are_alike(left: Tensor, given: Tensor) -> bool:
    """Whether two tensors are two, of one kind, so that their elements can be compared."""
    return (
        left is not given
        and type(left) is Tensor
        and type(given) is Tensor
        and left.layout is given.layout is torch.strided
        and (left.device, left.dtype, left.shape) == (given.device, given.dtype, given.shape)
    )
