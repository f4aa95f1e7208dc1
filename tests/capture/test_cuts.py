"""Where history was cut: each kind with its line and the tensors it cut, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import tracer
from tracer.records import Cut, Forward, TraceRecord


def cuts(trace: TraceRecord) -> list[tuple[Cut, str]]:
    """Each cut with the source of the operation."""
    return [
        (event.cut, event.site.expression if event.site is not None else "")
        for event in trace.events
        if isinstance(event, Forward) and event.cut is not None
    ]


def in_no_grad(y: Tensor) -> None:
    with torch.no_grad():
        y * 2


def in_inference_mode(y: Tensor) -> None:
    with torch.inference_mode():
        y * 2


def with_grad_disabled(y: Tensor) -> None:
    with torch.set_grad_enabled(False):
        y * 2


KINDS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "y.detach()": (lambda y: y.detach(), "detach"),
    "y.data": (lambda y: y.data, ".data"),
    "y.sum().item()": (lambda y: y.sum().item(), "item"),
    "y.tolist()": (lambda y: y.tolist(), "item"),
    "y.detach().numpy()": (lambda y: y.detach().numpy(), "detach"),
    "float(y.sum())": (lambda y: float(y.sum()), "item"),
    "torch.tensor(y)": (lambda y: torch.tensor(y), "new tensor"),
    "y.argmax()": (lambda y: y.argmax(), "not differentiable"),
    "y > 0": (lambda y: y > 0, "not differentiable"),
    "y.long()": (lambda y: y.long(), "not differentiable"),
    "y.to(torch.int32)": (lambda y: y.to(torch.int32), "not differentiable"),
    "y.round()": (lambda y: y.round(), "zero gradient"),
    "torch.floor(y)": (lambda y: torch.floor(y), "zero gradient"),
}


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar")
@pytest.mark.parametrize("expression", KINDS)
def test_an_operation_that_cuts_is_told_with_what_it_cut(expression: str) -> None:
    cutting, kind = KINDS[expression]
    with tracer.trace() as trace:
        x = torch.ones(2, requires_grad=True)
        y = x * 1.5
        cutting(y)
    ((cut, text),) = cuts(trace.record)
    assert cut.kind == kind
    assert text in expression
    if "sum" not in expression:
        assert cut.tensors == ("y",)


@pytest.mark.parametrize(
    ("cutting", "kind"),
    [(in_no_grad, "no_grad"), (in_inference_mode, "inference"), (with_grad_disabled, "no_grad")],
)
def test_a_region_without_history_is_told_with_its_line(
    cutting: Callable[[Tensor], None], kind: str
) -> None:
    with tracer.trace() as trace:
        y = torch.ones(2, requires_grad=True) * 1.5
        cutting(y)
    ((cut, text),) = cuts(trace.record)
    assert (cut.kind, cut.tensors, text) == (kind, ("y",), "y * 2")
    assert cut.region is not None
    assert cut.region.statement.startswith("with torch.")
    assert cut.region.line == cutting.__code__.co_firstlineno + 1


def test_a_recording_that_begins_in_such_a_region_knows_it() -> None:
    y = torch.ones(2, requires_grad=True) * 1.5
    with torch.no_grad(), tracer.trace() as trace:
        y * 2
    ((cut, _),) = cuts(trace.record)
    assert (cut.kind, cut.tensors, cut.region) == ("no_grad", ("y",), None)


def test_freezing_a_leaf_cuts_it() -> None:
    with tracer.trace() as trace:
        x = torch.ones(2, requires_grad=True)
        x.requires_grad_(False)
    ((cut, _),) = cuts(trace.record)
    assert (cut.kind, cut.tensors) == ("requires_grad_(False)", ("x",))


NEW_LEAVES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "y.detach().requires_grad_()": (lambda y: y.detach().requires_grad_(), "y.detach()"),
    "y.detach().clone().requires_grad_()": (
        lambda y: y.detach().clone().requires_grad_(),
        "y.detach()",
    ),
    "(y.data.double() + 1).requires_grad_()": (
        lambda y: (y.data.double() + 1).requires_grad_(),
        "y.data",
    ),
    "torch.zeros(2).copy_(y.detach()).requires_grad_()": (
        lambda y: torch.zeros(2).copy_(y.detach()).requires_grad_(),
        "y.detach()",
    ),
    "torch.from_numpy(y.detach().numpy()).requires_grad_()": (
        lambda y: torch.from_numpy(y.detach().numpy()).requires_grad_(),
        "y.detach()",
    ),
    "torch.tensor(y).requires_grad_()": (
        lambda y: torch.tensor(y).requires_grad_(),
        "torch.tensor(y)",
    ),
    "torch.no_grad()(lambda: y * 2)().requires_grad_()": (
        lambda y: torch.no_grad()(lambda: y * 2)().requires_grad_(),
        "y * 2",
    ),
    "torch.nn.Parameter(y.detach().clone())": (
        lambda y: torch.nn.Parameter(y.detach().clone()),
        "y.detach()",
    ),
}


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
@pytest.mark.parametrize("expression", NEW_LEAVES)
def test_a_new_leaf_tells_where_the_history_of_its_values_was_lost(expression: str) -> None:
    making, severing = NEW_LEAVES[expression]
    with tracer.trace() as trace:
        y = torch.ones(2, requires_grad=True) * 1.5
        making(y)
    (lost, where), (leaf, text) = cuts(trace.record)
    assert (lost.tensors, where) == (("y",), severing)
    assert (leaf.kind, leaf.tensors, text) == ("new leaf", ("y",), expression)
    assert leaf.region is not None
    assert leaf.region.expression == severing


def test_a_parameter_made_of_a_result_is_a_new_leaf() -> None:
    with tracer.trace() as trace:
        y = torch.ones(2, requires_grad=True) * 1.5
        torch.nn.Parameter(y)
    ((leaf, text),) = cuts(trace.record)
    assert (leaf.kind, leaf.tensors, text) == ("new leaf", ("y",), "torch.nn.Parameter(y)")


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
def test_a_copy_that_requires_a_gradient_cuts_all_the_same() -> None:
    with tracer.trace() as trace:
        y = torch.ones(2, requires_grad=True) * 1.5
        torch.tensor(y, requires_grad=True)
        y.new_tensor(y)
    kinds = [(cut.kind, cut.tensors) for cut, _ in cuts(trace.record)]
    assert kinds == [("new tensor", ("y",))] * 2


def test_a_leaf_of_other_values_is_no_new_leaf() -> None:
    with tracer.trace() as trace:
        y = torch.ones(2, requires_grad=True) * 1.5
        torch.zeros_like(y.detach()).requires_grad_()
        torch.nn.Linear(2, 2)
        torch.ones(2).requires_grad_()
    assert [cut.kind for cut, _ in cuts(trace.record)] == ["detach"]


def test_an_operation_in_place_that_makes_no_node_is_told_and_may_cut() -> None:
    with tracer.trace() as trace:
        y = torch.ones(2, requires_grad=True) * 1.5
        mean = torch.zeros(2)
        mean.add_(1)
        torch.add(mean, 1, out=mean)
        mean[0] = 3
        with torch.no_grad():
            mean.mul_(0.9).add_(y)
    told = [
        (event.site.expression, event.cut and event.cut.kind)
        for event in trace.record.events
        if isinstance(event, Forward) and event.site is not None and "mean" in str(event.site)
    ]
    assert told == [
        ("torch.zeros(2)", None),
        ("mean.add_(1)", None),
        ("torch.add(mean, 1, out=mean)", None),
        ("mean[0] = 3", None),
        ("mean.mul_(0.9)", None),
        ("mean.mul_(0.9).add_(y)", "no_grad"),
    ]


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * 3 * x * x


def test_what_a_custom_function_and_a_hook_compute_cuts_nothing_of_the_users() -> None:
    with tracer.trace() as trace:
        x = torch.ones(2, requires_grad=True)
        y = Cube.apply(x)
        y.register_hook(lambda grad: grad * x)
        y.sum().backward()
        with torch.no_grad():
            y * 2
    assert [text for _, text in cuts(trace.record)] == ["y * 2"]


def test_a_region_inside_a_custom_function_ends_with_it() -> None:
    class Quiet(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            with torch.no_grad():
                return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad

    with tracer.trace() as trace:
        x = torch.ones(2, requires_grad=True)
        Quiet.apply(x)
        found = len(cuts_of(trace))
        Cube.apply(x)
        assert len(cuts_of(trace)) == found


def cuts_of(trace: Any) -> list[Any]:
    return cuts(trace.record)


def test_what_is_made_in_the_shape_of_a_tensor_cuts_nothing() -> None:
    with tracer.trace() as t:
        y = torch.ones(2, requires_grad=True) * 2
        torch.ones_like(y), torch.rand_like(y), y.new_zeros(3)
    assert cuts(t.record) == []
