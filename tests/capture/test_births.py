"""Leaves whose function has returned keep the names that its lines gave them."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import Tensor, nn

import tracer


def leaf() -> Tensor:
    return torch.ones(2, requires_grad=True)


def names(trace: tracer.Trace, graph: int = 1) -> list[str]:
    """What the leaves of a graph are called, in the order of the walk."""
    nodes = trace.record.graphs[graph].nodes
    return [", ".join(node.variables) for node in nodes if node.is_leaf]


def test_a_leaf_of_a_function_that_has_returned_has_the_name_it_had_there() -> None:
    def product() -> Tensor:
        m1 = torch.tensor([1.0, 2.0], requires_grad=True)
        m2 = torch.ones(2).requires_grad_()
        m3 = nn.Parameter(torch.ones(2))
        table = {"m4": torch.ones(2, requires_grad=True)}
        return m1 * m2 * m3 * table["m4"]

    with tracer.trace() as trace:
        product().sum().backward()
    assert sorted(names(trace)) == ["m1", "m2", "m3", 'table["m4"]']


def test_leaves_made_in_a_loop_or_comprehension_are_told_apart() -> None:
    def product(count: int) -> Tensor:
        ws = [torch.ones(2, requires_grad=True) for k in range(count)]
        h = torch.ones(2)
        for t in range(count):
            v = torch.ones(2, requires_grad=True)
            h = h * ws[t] * v
        return h

    with tracer.trace() as trace:
        for _epoch in range(2):
            product(2).sum().backward()
    assert sorted(names(trace)) == ["v[t=0]", "v[t=1]", "ws[k=0]", "ws[k=1]"]
    assert len(trace.record.graphs) == 1


def test_the_parameters_of_a_model_that_is_gone_keep_their_paths() -> None:
    def through() -> Tensor:
        net = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
        h: Tensor = net(torch.ones(1, 2))
        return h

    with tracer.trace() as trace:
        through().sum().backward()
    assert sorted(names(trace)) == ["net.0.bias", "net.0.weight"]


def test_what_a_library_made_is_not_named_by_the_line_that_called_it() -> None:
    with tracer.trace() as trace:
        slope = torch.autograd.functional.jacobian(lambda x: (x * 2).sum(), torch.ones(2))
        found = nn.init.ones_(torch.empty(2)).requires_grad_() * slope
        found.sum().backward()
    assert names(trace, 1) == [""]
    assert names(trace, 2) == [""]


def test_a_variable_that_leads_to_a_leaf_names_it_first() -> None:
    def make() -> Tensor:
        inner = torch.ones(2, requires_grad=True)
        return inner if inner.requires_grad else inner * 2

    with tracer.trace() as trace:
        w = make()
        (w * 2).sum().backward()
    assert names(trace) == ["w"]


def test_no_leaf_is_kept_alive_by_its_name() -> None:
    with tracer.trace():
        x = torch.ones(2, requires_grad=True)
        net = nn.Linear(2, 2)
        net(x)
        gone = [weakref.ref(each) for each in (x, net, net.weight)]
        gc.disable()
        del x, net
        assert [ref() for ref in gone] == [None] * 3
        gc.enable()
