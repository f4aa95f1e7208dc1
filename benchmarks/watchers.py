"""The ways of watching a training step that are compared: a workload in, a context out."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from workloads import Seen, Workload

Watcher = Callable[[Workload], AbstractContextManager[Seen]]


def _see_nothing(loss: Tensor) -> None:
    """Nothing is done between forward and backward."""


@contextmanager
def untraced(workload: Workload) -> Iterator[Seen]:
    """The step alone."""
    yield _see_nothing


@contextmanager
def traced(workload: Workload) -> Iterator[Seen]:
    """`tracer` with its defaults, written to a file."""
    import tracer

    with tempfile.TemporaryDirectory() as folder, tracer.trace(Path(folder, "run.trace")):
        yield _see_nothing


@contextmanager
def anomaly_mode(workload: Workload) -> Iterator[Seen]:
    """`torch.autograd.detect_anomaly`: a traceback and a NaN check for each node."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly():
            yield _see_nothing


@contextmanager
def profiler(workload: Workload) -> Iterator[Seen]:
    """`torch.profiler` with the stacks of each operation."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, with_stack=True):
        yield _see_nothing


@contextmanager
def debug_mode(workload: Workload) -> Iterator[Seen]:
    """PyTorch's `DebugMode`, which logs every dispatched operation."""
    from torch.utils._debug_mode import DebugMode

    with DebugMode():
        yield _see_nothing


@contextmanager
def histograms(workload: Workload) -> Iterator[Seen]:
    """A 64-bin histogram and the norm of each parameter's gradient, as dashboards log them."""
    kept: list[tuple[Tensor, float]] = []

    def log(gradient: Tensor) -> None:
        kept.append((torch.histc(gradient.float(), 64), float(gradient.norm())))
        if len(kept) > 1000:
            kept.clear()

    handles = [parameter.register_hook(log) for parameter in workload.parameters]
    try:
        yield _see_nothing
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def empty_hooks(workload: Workload) -> Iterator[Seen]:
    """A prehook and a posthook that do nothing on every node of each pass, renewed for each."""
    handles: list[Any] = []

    def remove() -> None:
        for handle in handles:
            handle.remove()
        handles.clear()

    def register(loss: Tensor) -> None:
        remove()
        for fn in _nodes(loss):
            handles.append(fn.register_prehook(_before))
            handles.append(fn.register_hook(_after))

    try:
        yield register
    finally:
        remove()


def _before(grad_outputs: object) -> None:
    """A prehook that does nothing."""


def _after(grad_inputs: object, grad_outputs: object) -> None:
    """A posthook that does nothing."""


def _nodes(loss: Tensor) -> list[Any]:
    fns: list[Any] = [loss.grad_fn]
    seen = set(fns)
    for fn in fns:  # grows as it is walked
        for target, _ in fn.next_functions:
            if target is not None and target not in seen:
                seen.add(target)
                fns.append(target)
    return fns


WATCHERS: dict[str, Watcher] = {
    "untraced": untraced,
    "control": untraced,
    "tracer": traced,
    "anomaly mode": anomaly_mode,
    "profiler": profiler,
    "DebugMode": debug_mode,
    "histograms": histograms,
    "empty hooks": empty_hooks,
}
"""`untraced` is what the others are divided by; `control`, the same again, shows the noise."""
