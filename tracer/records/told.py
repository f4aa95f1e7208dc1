"""A tensor, or its plain numbers, in; its words, with what a sum of several needs, out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from tracer.records import words
from tracer.records.tensors import Gradient

Told = tuple[str, float | None, bool]
"""What a tensor is told as: its words; its norm, where that is known; whether it has NaN or Inf."""

GRAD, DATA = "‖g‖", "‖x‖"
"""How the norm of a gradient is told, and that of a leaf's values."""

_LONGEST_SUM = 64
_MANY_PARTS = 8


def told(seen: Gradient | None, sign: str = GRAD) -> Told:
    """Tell a tensor in words; its norm, where that is told, with this sign."""
    if seen is None:
        return NOTHING
    return words.tensor(seen, norm=sign), seen.norm, bool(seen.nans or seen.infs)


def told_of(norm: float, uniform: float | None, sign: str) -> Told:
    """Tell a tensor whose elements are finite and not listed, by its norm and the one value that
    all of them have, if they have one."""
    return words.extent(norm, uniform, sign), norm, False


told_again = lru_cache(maxsize=256)(told_of)
"""The same of tensors that may come again and again, as those of zeros do."""

NOTHING: Told = words.tensor(None), None, False


def total(parts: Sequence[Told], whole: Told) -> str:
    """`1 + 4 = 5  (2 paths)`; of tensors too large to write out, their norms."""
    paths = f"({len(parts):,} paths)"
    written = f"{_sum_of(parts)} = {whole[0]}  {paths}"
    if "‖" not in written and len(written) <= _LONGEST_SUM:
        return written
    return f"norms {_norms_of(parts)} → {_norm_of(whole)}  {paths}"


def of_parts(parts: Sequence[Told]) -> str:
    """What stands behind a sum: ` = 1 + 4`, or ` (2 paths, norms 0.3, 0.4)`."""
    written = _sum_of(parts)
    if "‖" in written or len(written) > _LONGEST_SUM:
        return f" ({len(parts)} paths, norms {_norms_of(parts)})"
    return f" = {written}"


def _sum_of(parts: Sequence[Told]) -> str:
    return " + ".join([text for text, _, _ in parts[:4]] + ["…"] * (len(parts) > 4))


def _norms_of(parts: Sequence[Told]) -> str:
    known = [norm for _, norm, _ in parts if norm is not None]
    if len(parts) > _MANY_PARTS and known:
        return f"{words.brief(min(known))} … {words.brief(max(known))}"
    return ", ".join([_norm_of(part) for part in parts[:4]] + ["…"] * (len(parts) > 4))


def _norm_of(part: Told) -> str:
    text, norm, _ = part
    return text if norm is None else words.number(norm)
