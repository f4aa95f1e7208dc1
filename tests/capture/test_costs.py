"""What recording does not cost: no copy of a gradient, no buffer, no Python frame for a node."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any
from unittest.mock import patch

import pytest
import torch

import tracer
from tests.capture.cores import compiled
from tracer.capture.engine import Engine

CAPTURE = os.path.join(os.path.dirname(os.path.abspath(tracer.__file__)), "capture")
MEGABYTE = 1 << 20


def chain(length: int, leaves: int = 1) -> Callable[[], None]:
    """A step over as many nodes as asked for, then a write to each leaf."""
    weights = [torch.ones(100, requires_grad=True) for _ in range(leaves)]

    def step() -> None:
        y = torch.ones(100)
        for number in range(length):
            y = y * weights[number % leaves]
        y.sum().backward()
        with torch.no_grad():
            for weight in weights:
                weight.add_(weight.grad, alpha=-1e-6)
                weight.grad = None

    return step


def frames_of_ours(step: Callable[[], None]) -> int:
    """How many Python functions a step calls to be captured once all that is new has been seen.

    What is captured is written in batches when there is enough of it, which is not counted.
    """
    count = 0

    def see(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(CAPTURE)

    with tracer.trace(), patch.object(Engine, "look", lambda engine: None):
        for _ in range(3):
            step()
        sys.setprofile(see)
        try:
            step()
        finally:
            sys.setprofile(None)
    return count


@compiled
def test_no_python_function_of_ours_runs_for_a_node_or_an_operation() -> None:
    few, many = frames_of_ours(chain(10)), frames_of_ours(chain(500))
    assert few > 0
    assert many == few


@compiled
def test_no_python_function_of_ours_runs_for_a_leaf() -> None:
    few, many = frames_of_ours(chain(200, leaves=10)), frames_of_ours(chain(200, leaves=100))
    assert many == few


@compiled
def test_no_python_function_of_ours_runs_for_a_call_of_a_module() -> None:
    def step(length: int) -> Callable[[], None]:
        tanh = torch.nn.Tanh()
        model = torch.nn.Sequential(*(tanh if k % 2 else torch.nn.Tanh() for k in range(length)))
        x = torch.ones(100, requires_grad=True)

        def run() -> None:
            model(x).sum().backward()
            for _ in range(length):
                tanh(x)

        return run

    few, many = frames_of_ours(step(10)), frames_of_ours(step(200))
    assert many == few


# ---- memory


def large_step() -> dict[str, Any]:
    """Gradients of a megabyte each: which buffers they lie in, as addresses and not as tensors."""
    torch.manual_seed(0)
    w, v = (torch.randn(512, 512, requires_grad=True) for _ in range(2))
    seen: dict[str, Any] = {"arrived": []}
    w.register_hook(lambda gradient: seen["arrived"].append(gradient.data_ptr()))
    for _ in range(2):
        ((w * v).relu() @ v).sum().backward()
        seen.setdefault("places", []).append((w.grad.data_ptr(), v.grad.data_ptr()))
    return {
        "w takes what arrives for its own": seen["arrived"][0] == seen["places"][0][0],
        "w adds in place": seen["places"][0][0] == seen["places"][1][0],
        "v adds in place": seen["places"][0][1] == seen["places"][1][1],
        "w.grad": w.grad.sum().item(),
        "v.grad": v.grad.sum().item(),
    }


def test_the_engine_takes_and_reuses_buffers_as_without_us() -> None:
    untraced = large_step()
    with tracer.trace():
        assert large_step() == untraced
    assert untraced["w takes what arrives for its own"]
    assert untraced["w adds in place"]


def allocations(step: Callable[[], object]) -> tuple[int, int]:
    """The blocks of a megabyte or more that a step takes, and the most bytes it holds at once."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    gc.collect()
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    count = held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]" and abs(event.nbytes()) >= MEGABYTE:
            count += event.nbytes() > 0
            held += event.nbytes()
            most = max(most, held)
    return count, most


@compiled
def test_no_gradient_is_copied_and_none_is_held_longer() -> None:
    w = torch.randn(512, 512, requires_grad=True)

    def step() -> None:
        y = w
        for _ in range(6):
            y = (y @ w).tanh() * 2
        y.sum().backward()
        assert w.grad is not None
        w.grad = None  # within the step, as PyTorch's profiler takes old blocks by their address

    step()
    untraced = allocations(step)
    with tracer.trace():
        step()
        traced = allocations(step)
    assert untraced[0] > 20
    assert traced == untraced


def test_the_collector_is_left_as_it_was() -> None:
    step = chain(300)
    with tracer.trace():
        step()
        assert gc.isenabled()
        gc.disable()
        try:
            step()
            assert not gc.isenabled()
        finally:
            gc.enable()


def test_nodes_are_shown_to_the_collector_again_after_a_pass() -> None:
    w = torch.ones(3, requires_grad=True)
    root = (w * 2).tanh().sum()
    held = [root.grad_fn, root.grad_fn.next_functions[0][0]]
    with tracer.trace():
        root.backward()
    assert all(gc.is_tracked(fn) for fn in held)


def test_a_fault_of_ours_while_a_pass_begins_leaves_nothing_on_its_nodes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("a fault of our own")

    with tracer.trace() as trace:
        monkeypatch.setattr("tracer.capture.saved_writes.SavedWrites.pass_begins", fail)
        x = torch.ones(2, requires_grad=True)
        y = x * 2
        node = y.grad_fn
        y.sum().backward()
        assert gc.is_tracked(node)
        assert x.grad is not None
        assert x.grad.tolist() == [2, 2]
    assert capfd.readouterr().err.count("a fault of our own") == 1
    handle = node.register_hook(lambda *_: None)
    assert len(handle.hooks_dict_ref()) == 1
    assert sum(trace.record.dropped.values()) == 1
