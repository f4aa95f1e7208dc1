"""What people have asked other tools for, of hooks, `.grad` and writes, each by a small program."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import tracer
from tracer.records import (
    Accumulate,
    DataWrite,
    Forward,
    GradRead,
    GradWrite,
    HookRun,
    NodeKind,
    NodeRun,
    OptimizerStep,
    SavedWrite,
    TraceRecord,
)


def leaf(*values: float) -> Tensor:
    return torch.tensor(values or (1.0, 2.0), requires_grad=True)


def runs(trace: TraceRecord) -> list[HookRun]:
    return [event for event in trace.events if isinstance(event, HookRun)]


# pytorch#100528: hooks of modules fire in another order when the input needs no gradient


@pytest.mark.parametrize("needs_grad", [True, False])
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_the_order_of_hooks_of_modules_is_told_as_it_was(needs_grad: bool) -> None:
    seen: list[tuple[str, str]] = []
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    names = {module: name or "model" for name, module in model.named_modules()}
    for module in names:
        module.register_full_backward_pre_hook(lambda m, _: seen.append((names[m], "before")))
        module.register_full_backward_hook(lambda m, _, __: seen.append((names[m], "after")))
    with tracer.trace() as trace:
        model(torch.ones(1, 2, requires_grad=needs_grad)).sum().backward()
    told = [
        (
            run.hook.subject.removeprefix("model.") if run.hook.subject != "model" else "model",
            "before" if run.hook.kind == "module backward prehook" else "after",
        )
        for run in runs(trace.record)
    ]
    assert told == seen
    assert seen.index(("model", "after")) == (5 if needs_grad else 1)


# pytorch#25723: a hook still fires after handle.remove(), as it was baked in at forward


def test_a_hook_that_fires_after_its_removal_is_flagged_with_both_lines() -> None:
    with tracer.trace() as trace:
        model = nn.Linear(2, 1)
        handle = model.register_full_backward_hook(lambda module, given, got: None)
        loss = model(leaf()).sum()
        handle.remove()
        loss.backward()
    (run,) = runs(trace.record)
    assert run.removed
    assert run.hook.added is not None
    assert run.hook.added.statement.startswith("handle = model.register_full_backward_hook(")
    (removed,) = trace.record.events.select(kinds=("hook_removed",))
    assert removed.site.statement == "handle.remove()"  # type: ignore[attr-defined]


# pytorch#81296: an accumulate hook runs twice for a weight shared with a reentrant checkpoint


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_hook_that_runs_once_more_ran_in_the_pass_inside(reentrant: bool) -> None:
    count = [0]

    def counting(weight: Tensor) -> None:
        count[0] += 1

    with tracer.trace() as trace:
        layer = nn.Linear(2, 2, bias=False)
        layer.weight.register_post_accumulate_grad_hook(counting)
        checkpoint(layer, layer(leaf()), use_reentrant=reentrant).sum().backward()
    assert count == [2 if reentrant else 1]
    assert [run.hook.subject for run in runs(trace.record)] == ["layer.weight"] * count[0]
    parents = {one.id: one.parent for one in trace.passes}
    assert [parents[run.pass_id or 0] for run in runs(trace.record)] == (
        [1, None] if reentrant else [None]
    )
    (weight,) = (one.id for one in trace.record.leaves.values() if one.name == "layer.weight")
    written = [event for event in trace.record.events if isinstance(event, Accumulate)]
    assert [event.leaf for event in written].count(weight) == count[0]


# pytorch#61519: full backward hooks and an in-place ReLU raise; ours on every node must not


def test_watching_every_node_does_not_disturb_an_operation_in_place() -> None:
    with tracer.trace() as trace:
        model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(inplace=True))
        model(torch.ones(1, 1, 3, 3, requires_grad=True)).sum().backward()
    assert trace.passes[0].outcome.ok
    names = [node.name for node in trace.record.graphs[1].nodes]
    assert "ReluBackward0" in names
    assert not any("BackwardHook" in name for name in names)


# pytorch#60456, #10683: hooks do not say which tensor's gradient they are given


def test_hooks_given_the_same_gradient_are_told_apart_by_their_tensors() -> None:
    def watch(grad: Tensor) -> None:
        return None

    with tracer.trace() as trace:
        a, b = leaf(), leaf()
        c = a + b
        for tensor in (a, b, c):
            tensor.register_hook(watch)
        c.sum().backward()
    told = runs(trace.record)
    assert sorted(run.hook.subject for run in told) == ["a", "b", "c"]
    assert len({run.node for run in told}) == 3
    assert len({run.before for run in told}) == 1


# pytorch#92586: detach() and then requires_grad: the real input silently gets None


def test_a_leaf_made_from_a_detached_view_of_another_says_so() -> None:
    with tracer.trace() as trace:
        x = leaf()
        y = x.detach()
        y.requires_grad = True
        y.sum().backward()
    assert x.grad is None
    (new,) = (
        event
        for event in trace.record.events
        if isinstance(event, Forward) and event.cut is not None and event.cut.kind == "new leaf"
    )
    assert new.cut is not None
    assert new.cut.tensors == ("x",)
    assert new.site is not None
    assert new.site.statement == "y.requires_grad = True"
    assert new.cut.region is not None
    assert new.cut.region.statement == "y = x.detach()"
    assert [node.variables for node in trace.graph.leaves] == [("y",)]


# pytorch#6990: .data and detach: the one silently gives another gradient, the other raises


def test_a_write_to_what_was_saved_is_told_whether_or_not_pytorch_notices() -> None:
    with tracer.trace() as trace:
        x = leaf()
        silent = x.sigmoid()
        silent.data.zero_()
        silent.sum().backward()
        loud = x.sigmoid()
        loud.detach().zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loud.sum().backward()
    writes = [event for event in trace.record.events if isinstance(event, SavedWrite)]
    assert [(event.pass_id, event.version) for event in writes] == [(1, None), (2, 1)]
    assert [event.site and event.site.statement for event in writes] == [
        "silent.data.zero_()",
        "loud.detach().zero_()",
    ]


# pytorch#19778: what looks like a leaf is a view, and its .grad stays None


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_reading_the_grad_of_what_is_no_leaf_is_told() -> None:
    with tracer.trace() as trace:
        weights = torch.ones(4, requires_grad=True)
        first = weights.view(2, 2)
        first.sum().backward()
        assert first.grad is None
    (read,) = (event for event in trace.record.events if isinstance(event, GradRead))
    assert read.tensor == "first"
    assert read.site is not None
    assert read.site.statement == "assert first.grad is None"
    assert "first.grad → None: first is not a leaf" in trace.timeline()


# pytorch#47175: step() without zero_grad(): the gradient grows, and nothing says so


def test_gradients_that_are_never_cleared_are_seen_adding_up() -> None:
    with tracer.trace() as trace:
        w = leaf(1.0)
        sgd = torch.optim.SGD([w], lr=0.0)
        for _ in range(3):
            (w * 2).sum().backward()
            sgd.step()
    told = [
        event.after and event.after.values
        for event in trace.record.events
        if isinstance(event, Accumulate)
    ]
    assert told == [(2.0,), (4.0,), (6.0,)]
    kinds = [
        type(event).__name__
        for event in trace.record.events
        if isinstance(event, (Accumulate, GradWrite, OptimizerStep))
    ]
    assert kinds == ["Accumulate", "OptimizerStep"] * 3


# pytorch#30454, #4714: a custom Function that changes its input: which node stands in whose place?


class Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.add_(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 10


def test_a_custom_function_that_changes_its_input_takes_the_place_of_its_node() -> None:
    with tracer.trace() as trace:
        x = leaf()
        y = x * 2
        Shift.apply(y)
        y.sum().backward()
    nodes = trace.record.graphs[1].nodes
    assert [node.name for node in nodes] == [
        "SumBackward0",
        "ShiftBackward",
        "MulBackward0",
        "AccumulateGrad",
    ]
    assert nodes[1].kind is NodeKind.CUSTOM
    ran = [event.node for event in trace.record.events if isinstance(event, NodeRun)]
    assert ran == [0, 1, 2]
    assert x.grad is not None
    assert x.grad.tolist() == [20.0, 20.0]


def test_a_custom_function_whose_backward_is_skipped_is_seen_not_to_run() -> None:
    with tracer.trace() as trace:
        x = leaf()
        y = x * 2
        first, _ = y.view(1, 2).unbind(1)
        with pytest.raises(RuntimeError):
            Shift.apply(first)
        y.sum().backward()
    assert "ShiftBackward" not in [node.name for node in trace.record.graphs[1].nodes]


# pytorch#96265: the in-place error names an output of Exp, not the line that wrote


def test_the_error_of_an_operation_in_place_is_answered_with_the_line() -> None:
    with tracer.trace() as trace:
        x = leaf()
        y = x.exp()
        y += 1
        with pytest.raises(RuntimeError, match="output 0 of Exp"):
            y.sum().backward()
    outcome = trace.passes[0].outcome
    assert outcome.error == "RuntimeError"
    assert outcome.node is not None
    failed = trace.record.graphs[1].nodes[outcome.node]
    assert (failed.name, failed.site and failed.site.statement) == ("ExpBackward0", "y = x.exp()")
    (write,) = (event for event in trace.record.events if isinstance(event, SavedWrite))
    assert write.site is not None
    assert (write.node, write.how, write.site.statement) == (outcome.node, "add_", "y += 1")
    assert [event for event in trace.record.events if isinstance(event, DataWrite)] == []
