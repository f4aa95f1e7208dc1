"""A Ctrl-C reaches the program wherever it comes, and the recording goes on after it."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections import deque
from collections.abc import Callable
from inspect import CO_GENERATOR
from operator import methodcaller
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

import tracer
from tests.capture.cores import compiled
from tracer.capture.core import pass_here
from tracer.capture.references import Known
from tracer.capture.session import Session

PACKAGE = os.path.dirname(os.path.abspath(tracer.__file__))


# ---- while C lets go of what we know


def interrupted_before(function: Callable[[], object]) -> None:
    """Call a function written in C, with a Ctrl-C that waits for the next line of Python.

    No other garbage is to come between, which may have Python in it.
    """
    calls = (ctypes.pythonapi.PyErr_SetInterrupt, function)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(KeyboardInterrupt):
            deque(map(methodcaller("__call__"), calls), maxlen=0)
    finally:
        gc.enable()


def test_an_interrupt_while_a_leaf_goes_is_not_lost() -> None:
    held = [torch.ones(3, requires_grad=True) for _ in range(2)]
    with tracer.trace() as trace:
        (held[0] * held[1]).sum().backward()
        interrupted_before(held.clear)
        x = torch.ones(3, requires_grad=True)
        x.sum().backward()
    assert [one.leaf_count for one in trace.passes] == [2, 1]


class Thing:
    """What may be known: of modules themselves, torch.compile hears in Python."""


def test_an_interrupt_while_something_known_goes_is_not_lost() -> None:
    known: Known[Thing, str] = Known()
    held, other = [Thing()], Thing()
    known[held[0]] = "first"
    assert known.get(held[0]) == "first"
    interrupted_before(held.clear)
    known[other] = "second"
    assert known.items() == [(other, "second")]
    assert known.get(Thing()) is None


def test_an_interrupt_while_a_checkpointed_region_goes_is_not_lost() -> None:
    x = torch.ones(3, requires_grad=True)
    with tracer.trace():
        region = torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False)
        held = [region]
        del region
        interrupted_before(held.clear)


def test_an_interrupt_while_a_recording_goes_is_not_lost(tmp_path: Path) -> None:
    with tracer.trace(tmp_path / "run.trace") as trace:
        torch.ones(3, requires_grad=True).sum().backward()
    held = [trace]
    del trace
    interrupted_before(held.clear)


# ---- within what is ours


def interrupt_call(step: Callable[[], object], number: int) -> bool:
    """Run a step with a Ctrl-C in the call of that number of a function of ours; False if there
    are not so many. A generator that is closed is none: it runs nothing then."""

    def see(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal number
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            number -= not code.co_flags & CO_GENERATOR
            if number == -1:
                number -= 1
                raise KeyboardInterrupt

    sys.setprofile(see)
    try:
        step()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    assert number >= 0, "a Ctrl-C was lost"
    return False


def alone() -> Callable[[], Any]:
    """Passes of which the core need not ask Python, and a write."""
    x = torch.ones(3, requires_grad=True)

    def step() -> Any:
        x.grad = None
        loss = (x * x).sum()
        loss.backward()
        with torch.no_grad():
            x.copy_(torch.ones(3))
        return x.grad, loss.grad_fn

    return step


def with_hooks() -> Callable[[], Any]:
    """Passes that go through Python, with a hook and a module that are new in each."""
    x = torch.ones(3, requires_grad=True)

    def step() -> Any:
        x.grad = None
        product = torch.nn.Tanh()(x * 0) + x
        handle = product.register_hook(double)
        try:
            loss = (product * product).sum()
            loss.backward()
        finally:
            handle.remove()
        return x.grad, loss.grad_fn

    return step


def double(gradient: Tensor) -> Tensor:
    return gradient * 2


@compiled
def test_an_interrupt_as_the_core_asks_which_line_runs_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_due = False
    site_of = Session._site_of

    def interrupted(self: Session, *place: Any) -> int:
        nonlocal is_due
        if is_due:
            is_due = False
            raise KeyboardInterrupt
        return site_of(self, *place)

    monkeypatch.setattr(Session, "_site_of", interrupted)
    x = torch.ones(3, requires_grad=True)
    with tracer.trace():
        for is_known in (False, True):
            loss = (x * x).sum()
            if not is_known:
                loss.backward()
                continue
            is_due = True
            with pytest.raises(KeyboardInterrupt):
                loss.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0] * 3


@compiled  # PyTorch asks a hook for its name, which the core in Python answers, and hears no error
@pytest.mark.parametrize(("make", "every"), [(alone, 1), (with_hooks, 7)])
def test_an_interrupt_of_ours_is_the_programs_and_the_recording_goes_on(
    make: Callable[[], Callable[[], Any]], every: int
) -> None:
    step = make()
    expected = step()[0]
    with tracer.trace() as trace:
        session = Session.active
        assert session is not None
        step()
        number = 0
        while interrupt_call(step, number):
            number += every
            assert torch._C._len_torch_function_stack() == 1
            torch.set_grad_enabled(True)  # PyTorch's own, interrupted as it puts that back
            gc.enable()
        gradient, node = step()
        assert session.engine.idle
        assert pass_here() is None
    assert number > 20
    assert torch.equal(gradient, expected)
    assert len(node.register_prehook(lambda gradients: None).hooks_dict_ref()) == 1
    assert trace.passes[-1].outcome.ok
    assert trace.passes[-1].node_count in (3, 6)
    assert set(trace.record.dropped) <= {"the ends of passes that Ctrl-C broke off"}
