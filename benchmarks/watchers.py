"""The ways of watching a training step that are compared: a workload in, a context out, which
gives the step to call."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from workloads import Workload

Step = Callable[[], None]
Watcher = Callable[[Workload], AbstractContextManager[Step]]


@contextmanager
def untraced(workload: Workload) -> Iterator[Step]:
    """The step alone."""
    yield workload.step


@contextmanager
def traced(workload: Workload) -> Iterator[Step]:
    """`tracer` with its defaults, written to a file."""
    import tracer

    with tempfile.TemporaryDirectory() as folder, tracer.trace(Path(folder, "run.trace")):
        yield workload.step


@contextmanager
def anomaly_mode(workload: Workload) -> Iterator[Step]:
    """`torch.autograd.detect_anomaly`: a traceback and a NaN check for each node."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly():
            yield workload.step


@contextmanager
def profiler(workload: Workload) -> Iterator[Step]:
    """`torch.profiler` with the stacks of each operation."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, with_stack=True):
        yield workload.step


@contextmanager
def debug_mode(workload: Workload) -> Iterator[Step]:
    """PyTorch's `DebugMode`, which logs every dispatched operation."""
    from torch.utils._debug_mode import DebugMode

    with DebugMode():
        yield workload.step


@contextmanager
def histograms(workload: Workload) -> Iterator[Step]:
    """A 64-bin histogram and the norm of each parameter's gradient, as dashboards log them."""
    kept: list[tuple[Tensor, float]] = []

    def log(gradient: Tensor) -> None:
        kept.append((torch.histc(gradient.float(), 64), float(gradient.norm())))
        if len(kept) > 1000:
            kept.clear()

    handles = [parameter.register_hook(log) for parameter in workload.model.parameters()]
    try:
        yield workload.step
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def empty_hooks(workload: Workload) -> Iterator[Step]:
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
        yield lambda: workload.step(register)
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


class _Whole(torch.nn.Module):
    """A workload's loss as the one module that torchlens asks for."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.model = workload.model
        self.loss_of = workload.loss_of

    def forward(self, data: Tensor) -> Tensor:
        return self.loss_of(data)


@contextmanager
def torchlens(workload: Workload) -> Iterator[Step]:
    """torchlens with the gradients of all operations, in memory."""
    import torchlens as lens

    whole = _Whole(workload)
    capture = lens.options.CaptureOptions(save_grads=True)

    def step() -> None:
        for _ in range(workload.passes):
            workload.before()
            log = lens.trace(whole, workload.data, capture=capture)
            log.log_backward(log[log.output_layers[0]].out)
            workload.after()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield step


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

APART: dict[str, Watcher] = {"torchlens": torchlens}
"""Too slow to take turns with the others: a few steps in a process that ends at a time limit."""


def is_missing(watcher: str) -> bool:
    """Whether the package that a watcher needs is not installed."""
    return watcher in APART and find_spec(watcher) is None
