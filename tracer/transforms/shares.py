"""Paths between two places of a pass in; how much of what flowed came along them, where that can be
known, out.

What a node receives is the sum of what arrives, and what it returns is linear in that: a backward
function multiplies by a Jacobian ("Autograd mechanics" in PyTorch's documentation). So a part of
the sum can be followed further where it is all of it, or a known multiple of it. A hook that
changes a gradient and a custom Function need not be linear.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

from tracer.records import words
from tracer.records.graph import Edge, NodeKind
from tracer.records.passes import Contribution, PassView
from tracer.records.tensors import Gradient, Scalar
from tracer.transforms.order import flow_order
from tracer.transforms.paths import Paths

Shares = Mapping[int, float | None]
"""By node: what to multiply by to get, of what it received, the part that came along paths; None
where it came with other parts and cannot be told from them."""

_ALIKE = 1e-5  # relative: a float32 sum of a few parts, and its parts, are exact to less


def shares_of(view: PassView, found: Paths) -> Shares:
    """Find for every node on the paths how much of what it received came from their sources."""
    into: dict[int, set[Edge]] = {}
    for edge in found.edges:
        into.setdefault(edge.target, set()).add(edge)
    shares: dict[int, float | None] = dict.fromkeys(found.sources, 1.0)
    for node in flow_order(view.graph):
        if node in into and node not in shares:
            shares[node] = _share(view, node, into[node], shares)
    return shares


def brought_along(view: PassView, path: Sequence[Edge]) -> tuple[Gradient | None, int | None]:
    """Find what one path brings to its end, or the node from which on that cannot be told."""
    share: float | None = 1.0
    for edge in path[:-1]:
        share = _share(view, edge.target, {edge}, {edge.source: share})
        if share is None:
            return None, edge.target
    return scaled(view.contribution(path[-1]), share), None


def scaled(seen: Gradient | None, factor: float | None) -> Gradient | None:
    """Multiply a gradient, as far as its statistics are known, by a number (None: by 1)."""
    if seen is None or factor in (None, 1.0) or seen.unread:
        return seen
    assert factor is not None
    ends = [None if end is None else end * factor for end in (seen.min, seen.max)]
    return replace(
        seen,
        norm=None if seen.norm is None else seen.norm * abs(factor),
        min=ends[factor < 0], max=ends[factor >= 0],
        mean=None if seen.mean is None else seen.mean * factor,
        zeros=seen.zeros if factor else seen.meta.numel,
        values=None if seen.values is None else tuple(value * factor for value in seen.values),
    )  # fmt: skip


def _share(view: PassView, node: int, taken: Set[Edge], shares: Shares) -> float | None:
    """Find the part of what a node received that came over the edges taken."""
    inputs = range(max(len(view.graph.nodes[node].outputs), 1))
    found = [
        _share_of_input(view.arrived(node, input_nr), parts, taken, shares)
        for input_nr in inputs
        if (parts := _flowing(view.arriving(node, input_nr)))
    ]
    share = _agreed(found)
    return None if share != 1.0 and _may_bend(view, node) else share


def _flowing(parts: Iterable[Contribution]) -> list[Contribution]:
    return [
        part for part in parts if part.gradient is not None and not words.is_zero(part.gradient)
    ]


def _share_of_input(
    whole: Gradient | None, parts: Sequence[Contribution], taken: Set[Edge], shares: Shares
) -> float | None:
    own = [(part, shares[part.edge.source]) for part in parts if part.edge in taken and part.edge]
    if len(own) == len(parts) and len({share for _, share in own}) == 1:
        return own[0][1]
    total = 0.0
    for part, share in own:
        multiple = multiple_of(whole, part.gradient)
        if share is None or multiple is None:
            return None
        total += share * multiple
    return total


def _agreed(found: Sequence[float | None]) -> float | None:
    """The share that all inputs have; where nothing flowed in, nothing came from elsewhere."""
    if not found:
        return 1.0
    first, *others = found
    if first is None or any(other is None or not _is_close(first, other) for other in others):
        return None
    return 1.0 if _is_close(first, 1.0) else first


def _is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_ALIKE)


def _may_bend(view: PassView, node: int) -> bool:
    """Tell whether what a node made of a sum need not be the sum of what it makes of the parts."""
    hooked = any(run.changed for run in view.hooks.get(node, ()))
    return hooked or view.graph.nodes[node].kind is NodeKind.CUSTOM


def multiple_of(whole: Gradient | None, part: Gradient | None) -> float | None:
    """Find the number that a gradient has to be multiplied by to give another, None where there is
    none or it is not known: of tensors that were not kept, only those of one value have one."""
    if whole is None or part is None:
        return None
    if whole.uniform and part.uniform is not None:
        return _finite(part.uniform / whole.uniform)
    if whole.values is None or part.values is None:
        return None
    return _multiple_of_values(whole.values, part.values)


def _multiple_of_values(whole: Sequence[Scalar], part: Sequence[Scalar]) -> float | None:
    if len(whole) != len(part) or any(isinstance(value, complex) for value in (*whole, *part)):
        return None
    pairs = [(float(w.real), float(p.real)) for w, p in zip(whole, part, strict=True)]
    most, its_part = max(pairs, key=lambda pair: abs(pair[0]), default=(0.0, 0.0))
    factor = _finite(its_part / most) if most else None
    if factor is None:
        return None
    near = abs(its_part) * _ALIKE
    alike = all(math.isclose(p, w * factor, rel_tol=_ALIKE, abs_tol=near) for w, p in pairs)
    return factor if alike else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
