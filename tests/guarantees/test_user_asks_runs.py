"""What people have asked other tools for: each with the small program that shows it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import tracer
from tracer.errors import NotInTraceError
from tracer.records import (
    Accumulate,
    Forward,
    Gradient,
    HookAdded,
    HookRun,
    NodeKind,
    NodeRun,
    OptimizerStep,
    words,
)


def leaf(*values: float) -> Tensor:
    return torch.tensor(values or (1.0, 2.0), requires_grad=True)


def values(gradient: Gradient | None) -> list[Any]:
    assert gradient is not None
    assert gradient.values is not None
    return list(gradient.values)


# torchview#88: a forward that contains autograd.grad cannot be drawn


class Force(nn.Module):
    """Gives the slope of an energy, as models of molecules do."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        energy = self.energy(x).square().sum()
        (force,) = torch.autograd.grad(energy, x, create_graph=True)
        return force


def test_a_forward_that_calls_autograd_grad_is_recorded_and_drawn() -> None:
    model, x = Force(), leaf(0.5, 1.5)
    with tracer.trace() as trace:
        model(x).square().sum().backward()
    assert [one.kind for one in trace.passes] == ["grad", "backward"]
    inside = [node for node in trace.record.graphs[1].nodes if node.module is not None]
    assert {node.module.path for node in inside if node.module} == {"model", "model.energy"}
    assert "model.energy.weight" in {name for node in trace.graph.leaves for name in node.variables}
    assert "model.energy.weight" in trace.dot(pass_id=2)


# torchvista#39: tracing in train mode changed BatchNorm's statistics


def test_statistics_of_batchnorm_are_those_of_the_users_own_run() -> None:
    def run() -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        model(torch.randn(5, 3)).sum().backward()
        return [each.clone() for each in model.state_dict().values()]

    untraced = run()
    with tracer.trace():
        traced = run()
    assert all(torch.equal(*pair) for pair in zip(traced, untraced, strict=True))
    assert int(traced[-1]) == 1  # batches tracked


# pytorch#52762: get from y to the tensors that its gradient goes to


def test_from_a_tensor_to_those_that_its_gradient_goes_to() -> None:
    w, b, frozen = leaf(), leaf(), torch.ones(2)
    y = (w * frozen + b).sum()
    assert [name for node in tracer.walk(y).leaves for name in node.variables] == ["b", "w"]


# pytorchviz#59: variable names on nodes


def test_nodes_have_the_names_of_the_users_variables() -> None:
    with tracer.trace() as trace:
        x1 = leaf()
        x2 = x1 * 2
        y, z = x2.sin(), x2.cos()
        (y * z).sum().backward()
    named = {node.name: node.variables for node in trace.graph.nodes if node.variables}
    assert named == {
        "SinBackward0": ("y",),
        "CosBackward0": ("z",),
        "MulBackward0": ("x2",),
        "AccumulateGrad": ("x1",),
    }


# pytorch#167656: output is hard to read without the identity of tensors


def test_a_tensor_has_one_name_in_forward_backward_and_hooks() -> None:
    x = leaf()
    with tracer.trace() as trace:
        h = x * 2
        h.register_hook(lambda gradient: gradient * 10)
        h.sum().backward()
    record = trace.record
    (node,) = [node for node in trace.graph.nodes if node.variables == ("h",)]
    (made,) = [
        event
        for event in record.events
        if isinstance(event, Forward) and event.site and event.site.targets == ("h",)
    ]
    assert node.sequence_nr in range(*made.sequence_nrs)
    (added,) = [event for event in record.events if isinstance(event, HookAdded)]
    (ran,) = [event for event in record.events if isinstance(event, HookRun)]
    assert (added.hook.subject, ran.hook.subject, ran.node) == ("h", "h", node.id)
    (run,) = [e for e in record.events if isinstance(e, NodeRun) and e.node == node.id]
    assert values(run.received[0]) == [10.0, 10.0]


# tutorials#3186: gradients of what is no leaf, in one call


def test_gradients_of_what_is_no_leaf_in_one_call() -> None:
    x = leaf()
    with tracer.trace() as trace:
        h = x * 2
        kept = []
        for t in range(2):  # noqa: B007
            h = h.sin()
            h.retain_grad()
            kept.append(h)
        h.sum().backward()
    found = trace.gradients("h[t=0]")
    assert kept[0].grad is not None
    assert x.grad is not None
    assert values(found["h[t=0]"]) == kept[0].grad.tolist()
    assert list(trace.gradients("h")) == ["h[t=1]", "h[t=0]", "h"]
    assert list(trace.gradients()) == ["h[t=1]", "h[t=0]", "h", "x"]
    assert values(trace.gradients()["x"]) == x.grad.tolist()
    with pytest.raises(NotInTraceError, match="nothing in this graph is called 'hh'; did you mean"):
        trace.gradients("hh")


# pytorch#138538, #138901: hooks move or are lost in compiled code


def test_a_compiled_region_is_said_to_be_one() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: (x.sin() * 2).sum(), backend="aot_eager")
    with tracer.trace() as trace:
        compiled(leaf()).backward()
    torch._dynamo.reset()
    (node,) = [node for node in trace.graph.nodes if node.kind is NodeKind.COMPILED]
    assert node.note == "torch.compile: what it compiled runs as one node"


# pytorch#57776: which parameters are unused


def test_parameters_that_no_pass_reaches_are_known_by_name() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "unused": nn.Linear(2, 1)})
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with tracer.trace() as trace:
        for _ in range(2):
            model["used"](torch.ones(1, 2)).sum().backward()
            sgd.step()
    record = trace.record
    (first, _second) = [event for event in record.events if isinstance(event, OptimizerStep)]
    reached = {event.leaf for event in record.events if isinstance(event, Accumulate)}
    names = {record.leaves[number].name for number in first.leaves if number not in reached}
    assert names == {"model.unused.weight", "model.unused.bias"}


# pytorch#73697: autograd.grad should say which tensor is unused


def test_the_tensors_asked_for_are_named_and_those_unused_are_no_part_of_the_graph() -> None:
    w, forgotten = leaf(), leaf()
    with tracer.trace() as trace, pytest.raises(RuntimeError, match="appears to not have been"):
        torch.autograd.grad((w * 2).sum(), [w, forgotten])
    (one,) = trace.passes
    assert one.inputs == ("w", "forgotten")
    assert one.outcome.error == "RuntimeError"
    assert {name for node in trace.graph.leaves for name in node.variables} == {"w"}


# wandb#1639: a generator's gradients are missing


def test_gradients_of_a_generator_are_told_by_its_name_in_the_pass_that_made_them() -> None:
    generator, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    with tracer.trace() as trace:
        made = generator(torch.ones(1, 2))
        critic(made.detach()).sum().backward()
        critic(made).sum().backward()
    received = [
        {
            trace.record.leaves[event.leaf].name
            for event in trace.record.events
            if isinstance(event, Accumulate) and event.pass_id == one.id
        }
        for one in trace.passes
    ]
    of_critic = {"critic.weight", "critic.bias"}
    assert received == [of_critic, of_critic | {"generator.weight", "generator.bias"}]


# pytorch#160016: NaN is born silently, and anomaly mode aborts


def test_where_nan_is_born_and_where_it_is_healed_is_told_without_aborting() -> None:
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    with tracer.trace() as trace:
        root = x.sqrt()
        y = torch.where(x > 0, root, torch.zeros(()))
        (y * 0 + functional.relu(x)).sum().backward()
    view_of = {node.id: node for node in trace.graph.nodes}
    wrong = [
        (view_of[event.node].name, words.node_title(view_of[event.node]))
        for event in trace.record.events
        if isinstance(event, NodeRun) and any(one and one.nans for one in event.returned)
    ]
    assert wrong == [("SqrtBackward0", "root = x.sqrt()")]
    born = next(
        event
        for event in trace.record.events
        if isinstance(event, NodeRun) and any(one and one.nans for one in event.returned)
    )
    assert [one.nans if one else None for one in born.received] == [0]
    assert trace.passes[0].outcome.ok
