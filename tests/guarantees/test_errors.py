"""Errors of the user's program: the same exception, the same place, told with node and line."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

import tracer
from tracer.records import HookRun, NodeRun, SavedWrite


def leaf() -> Tensor:
    return torch.tensor([1.0, 2.0], requires_grad=True)


class Misshaped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.ones(7)


class Refusing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise ValueError("in backward")


def freed_buffers() -> None:
    y = leaf().exp()
    loss = y.sum()
    loss.backward()
    loss.backward()


def modified_in_place() -> None:
    y = leaf().exp()
    y += 1
    y.sum().backward()


def a_wrong_shape() -> None:
    y = Misshaped.apply(leaf())
    y.sum().backward()


def a_backward_that_raises() -> None:
    y = Refusing.apply(leaf())
    y.sum().backward()


def a_hook_that_raises() -> None:
    y = leaf() * 2
    y.register_hook(fail)
    y.sum().backward()


def fail(gradient: Tensor) -> None:
    raise ZeroDivisionError("in a hook")


def an_interrupt_in_a_hook() -> None:
    y = leaf() * 2
    y.register_hook(interrupt)
    y.sum().backward()


def interrupt(gradient: Tensor) -> None:
    raise KeyboardInterrupt


def an_accumulate_hook_that_raises() -> None:
    x = leaf()
    x.register_post_accumulate_grad_hook(fail)
    (x * 2).sum().backward()


Raised = tuple[str, str, list[tuple[str, int | None, str]]]


def raised_by(program: Callable[[], None], watched: AbstractContextManager[Any]) -> Raised:
    """Type and message of what a program raises, and file, line and function of each frame."""
    with watched:
        try:
            program()
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            places = [(frame.filename, frame.lineno, frame.name) for frame in frames]
            return type(error).__name__, str(error), places
    raise AssertionError("nothing was raised")


SITUATIONS: dict[str, tuple[Callable[[], None], str, str]] = {
    "freed buffers": (freed_buffers, "ExpBackward0", "y = leaf().exp()"),
    "modified in place": (modified_in_place, "ExpBackward0", "y = leaf().exp()"),
    "a wrong shape": (a_wrong_shape, "MisshapedBackward", "y = Misshaped.apply(leaf())"),
    "a backward that raises": (
        a_backward_that_raises,
        "RefusingBackward",
        "y = Refusing.apply(leaf())",
    ),
    "a hook that raises": (a_hook_that_raises, "MulBackward0", "y = leaf() * 2"),
    "an interrupt in a hook": (an_interrupt_in_a_hook, "MulBackward0", "y = leaf() * 2"),
    "an accumulate hook that raises": (an_accumulate_hook_that_raises, "AccumulateGrad", ""),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_an_error_is_the_programs_own_and_is_told_with_its_node_and_line(situation: str) -> None:
    program, node, statement = SITUATIONS[situation]
    untraced = raised_by(program, nullcontext())
    trace = tracer.trace()
    traced = raised_by(program, trace)
    assert traced == untraced
    failed = trace.record.passes[-1]
    assert (failed.outcome.error, failed.outcome.message) == untraced[:2]
    assert failed.outcome.node is not None
    found = trace.record.graphs[failed.graph].nodes[failed.outcome.node]
    assert found.name == node
    assert (found.site.statement if found.site is not None else "") == statement
    events = [event for event in trace.record.events if event.pass_id == failed.id]
    hooks = [event.raised for event in events if isinstance(event, HookRun)]
    assert hooks == ([untraced[0]] if "hook" in situation else [])
    ended = [e.end_ns is not None for e in events if isinstance(e, NodeRun) and e.node == found.id]
    assert ended == ([] if "hook" in situation else [False])
    writes = [
        event.site and event.site.statement for event in events if isinstance(event, SavedWrite)
    ]
    assert writes == (["y += 1"] if situation == "modified in place" else [])
    assert statement in trace.timeline()
