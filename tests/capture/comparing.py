"""Two recordings of one program, or two readings of one tensor in, that they are the same out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import tracer
from tracer.capture.recorder import Recorder
from tracer.records import Gradient, TraceRecord
from tracer.records.tensors import TensorMeta
from tracer.store.entries import UNKNOWN_META, decode_entry

UNLIKE = {"seq", "t_ns", "end_ns", "begin_ns", "sequence_nrs", "inputs", "outputs"}
"""What differs between any two recordings, or names an event by its number."""


def record(program: Callable[[], None]) -> TraceRecord:
    """Record a program in memory."""
    torch.manual_seed(0)
    with tracer.trace() as trace:
        program()
    return trace.record


def comparable(one: Any) -> Any:
    """An event or record without what differs between any two runs."""
    changes = {name: 0 for name in UNLIKE if hasattr(one, name)}
    return replace(one, **changes)


def same(at_once: object, later: object) -> None:
    """Compare two events or records, field by field; norm and mean nearly, all else exactly."""
    assert type(at_once) is type(later)
    for name in at_once.__dataclass_fields__:  # type: ignore[attr-defined]
        one, other = getattr(at_once, name), getattr(later, name)
        if isinstance(one, tuple):
            assert len(one) == len(other)
            pairs = list(zip(one, other, strict=True))
        else:
            pairs = [(one, other)]
        for left, right in pairs:
            assert same_value(left, right), f"{name}: {right} for {left}"


def same_value(left: object, right: object) -> bool:
    """Gradients are equal but for the last digits of norm and mean, added up in another order.

    Of complex ones also of the extremes: PyTorch's square root on a CPU may be a bit off.
    """
    if not isinstance(left, Gradient) or not isinstance(right, Gradient):
        return left == right
    numbers = ("norm", "mean")
    if left.values is None and left.meta.dtype.startswith("complex"):
        numbers += ("min", "max")
    rest: dict[str, Any] = dict.fromkeys(numbers)
    return repr(replace(left, **rest)) == repr(replace(right, **rest)) and all(
        near(getattr(left, name), getattr(right, name), left.norm or 0.0) for name in numbers
    )


def near(left: float | None, right: float | None, scale: float) -> bool:
    """Whether two numbers are one, to a part in 10^12 of the norm."""
    if left is None or right is None or not math.isfinite(left):
        return repr(left) == repr(right)
    return abs(left - right) <= 1e-12 * scale


def same_recordings(at_once: TraceRecord, later: TraceRecord) -> None:
    """Two recordings tell the same."""
    assert later.dropped == at_once.dropped
    events, others = list(at_once.events), list(later.events)
    assert [event.kind for event in others] == [event.kind for event in events]
    for one, other in zip(events, others, strict=True):
        same(comparable(one), comparable(other))
    for one, other in zip(at_once.passes, later.passes, strict=True):
        same(comparable(one), comparable(other))
    for number, leaf in at_once.leaves.items():
        same(leaf, later.leaves[number])


class Gradients:
    """Reads tensors as a recording does; what it wrote down comes out as gradients."""

    def __init__(self) -> None:
        self._texts = [""]
        self.recorder = Recorder(_Nowhere(self._texts), name_of=lambda tensor: "")

    def __call__(self, tensor: Tensor) -> Gradient:
        recorder = self.recorder
        entry = recorder.entry(tensor)
        recorder.deferred.begin_copies()
        recorder.deferred.collect(wait=True)
        gradient = decode_entry(recorder.deferred.known(entry), 0, self, UNKNOWN_META)[0]
        assert gradient is not None
        return replace(gradient, meta=TensorMeta((), dtype=str(tensor.dtype)[len("torch.") :]))

    def string(self, number: int) -> str:
        """A text by its number."""
        return self._texts[number]

    def meta(self, number: int) -> Any:
        """No metadata: it is not compared."""
        return UNKNOWN_META


class _Nowhere:
    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def string(self, text: str) -> int:
        self._texts.append(text)
        return len(self._texts) - 1

    def meta(self, meta: object) -> int:
        return 1

    def dropped(self, reason: str, count: int = 1) -> None:
        raise AssertionError(reason)
