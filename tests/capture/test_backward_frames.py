"""A backward call looks from within, and from its warnings and tracebacks, as it does untraced."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

import tracer
from tests.capture.cores import compiled

T = TypeVar("T")


def both(program: Callable[[], T]) -> tuple[T, T]:
    """What a program gives untraced, and traced."""
    plain = program()
    with tracer.trace():
        traced = program()
    return plain, traced


@compiled
def test_a_warning_that_counts_frames_names_the_users_line() -> None:
    def program() -> list[tuple[str, int]]:
        layer = torch.nn.Linear(3, 3)
        layer.register_full_backward_hook(lambda module, inputs, outputs: None)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            layer(torch.ones(2, 3)).sum().backward()
        return [(warning.filename, warning.lineno) for warning in caught]

    plain, traced = both(program)
    assert [file for file, _ in plain] == [__file__]
    assert traced == plain


def test_a_traceback_has_the_frames_it_has_untraced() -> None:
    def program() -> list[tuple[str, str]]:
        x = torch.ones(3, requires_grad=True)
        loss = (x * x).sum()
        loss.backward()
        try:
            loss.backward()
        except RuntimeError:
            frames = traceback.extract_tb(sys.exc_info()[2])
            return [(frame.filename, frame.name) for frame in frames]
        raise AssertionError("the second backward must fail")

    plain, traced = both(program)
    assert traced == plain


@compiled
def test_a_hook_runs_at_the_depth_it_has_untraced() -> None:
    def program() -> list[int]:
        depths: list[int] = []
        x = torch.ones(3, requires_grad=True)
        x.register_hook(lambda gradient: depths.append(len(traceback.extract_stack())))
        x.sum().backward()
        torch.autograd.backward(x.sum())
        torch.autograd.grad(x.sum(), x)
        return depths

    plain, traced = both(program)
    assert len(plain) == 3
    assert traced == plain


def test_the_mode_is_back_after_a_backward_that_raises() -> None:
    x = torch.ones(3, requires_grad=True)
    with tracer.trace() as trace:
        loss = (x * x).sum()
        loss.backward()
        with suppress(RuntimeError):
            loss.backward()
        seen = x * 5
        seen.sum().backward()
    texts = [node.site.text for node in trace.graph.nodes if node.site is not None]
    assert "seen = x * 5" in texts


def test_a_leaf_made_in_inference_mode_may_be_a_root() -> None:
    def program() -> torch.Tensor | None:
        with torch.inference_mode():
            x = torch.ones(3, requires_grad=True)
        x.backward(torch.ones(3))
        (x * 2).sum().backward()
        return x.grad

    plain = program()
    with tracer.trace() as trace:
        traced = program()
    assert plain is not None
    assert traced is not None
    assert torch.equal(plain, traced)
    assert [one.leaf_count for one in trace.passes] == [1, 1]
    assert dict(trace.record.dropped) == {}


def test_a_root_that_the_engine_refuses_is_no_pass_and_nothing_missed() -> None:
    x = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        view = x.view(3).unbind()[0]
    with torch.inference_mode():
        view_in_inference = x.view(3)
    with tracer.trace() as trace:
        for root in (view, view_in_inference):
            with suppress(RuntimeError):
                root.backward(torch.ones_like(root))
        (x * 2).sum().backward()
    assert len(trace.passes) == 1
    assert dict(trace.record.dropped) == {}


def test_a_leaf_given_twice_to_one_write_is_entered_once() -> None:
    x = torch.ones(3, requires_grad=True)
    with tracer.trace() as trace:
        x.sum().backward()
        with torch.no_grad():
            torch._foreach_add_([x, x.view(3)], 1.0)
    writes = list(trace.record.events.select(kinds=("data_write",)))
    assert len(writes) == 1
    assert x.tolist() == [3.0, 3.0, 3.0]
