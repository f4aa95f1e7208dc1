"""The graph behind live tensors, read without a trace."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

import tracer
from tracer.records import Edge, Root


def test_a_graph_is_read_with_the_names_of_the_callers_variables() -> None:
    w = torch.ones(3, requires_grad=True)
    rows = [torch.ones(3, requires_grad=True)]
    h = w * 2
    y = (h.sin() + rows[0]).sum()
    graph = tracer.walk(y)
    assert [(node.name, node.variables) for node in graph.nodes] == [
        ("SumBackward0", ("y",)),
        ("AddBackward0", ()),
        ("SinBackward0", ()),
        ("AccumulateGrad", ("rows[0]",)),
        ("MulBackward0", ("h",)),
        ("AccumulateGrad", ("w",)),
    ]
    pairs = [(0, 0, 1), (1, 0, 2), (1, 1, 3), (2, 0, 4), (4, 0, 5)]
    assert graph.edges == tuple(Edge(*pair) for pair in pairs)
    assert graph.roots == (Root(0),)


def test_the_leaves_that_a_gradient_goes_to() -> None:
    model = nn.Linear(3, 2)
    x = torch.ones(1, 3, requires_grad=True)
    found = tracer.walk(model(x), {"and": [model.weight]}).leaves
    assert [leaf.variables for leaf in found] == [("model.weight",), ("model.bias",), ("x",)]


def test_what_nodes_keep_is_told_without_unpacking_it() -> None:
    def refuse(packed: object) -> torch.Tensor:
        raise AssertionError("unpacked")

    w = torch.ones(2, 2, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: "packed", refuse):
        packed = w.exp()
    kept = [
        (node.name, saved.attribute, saved.meta and saved.meta.shape, saved.nbytes)
        for node in tracer.walk(packed, w.exp()).nodes
        for saved in node.saved
    ]
    assert kept == [
        ("ExpBackward0", "_saved_result", None, None),
        ("ExpBackward0", "_saved_result", (2, 2), 16),
    ]


def test_a_graph_that_backward_freed_keeps_its_structure() -> None:
    w = torch.ones(2, requires_grad=True)
    y = (w * w).sum()
    before = tracer.walk(y)
    y.backward()
    after = tracer.walk(y)
    assert [node.name for node in after.nodes] == [node.name for node in before.nodes]
    assert [len(node.saved) for node in before.nodes] == [0, 2, 0]
    assert [len(node.saved) for node in after.nodes] == [0, 0, 0]


def test_any_depth() -> None:
    x = torch.ones(1, requires_grad=True)
    for _ in range(5_000):
        x = x + 1
    assert len(tracer.walk(x).nodes) == 5_001


def test_nothing_is_run_and_nothing_is_kept() -> None:
    w = torch.ones(2, requires_grad=True)
    h = w * w
    gone = weakref.ref(h)
    number = torch._C._autograd._get_sequence_nr()
    tracer.walk(h)
    assert torch._C._autograd._get_sequence_nr() == number
    assert w.grad is None
    del h
    gc.collect()
    assert gone() is None


def test_lines_and_operations_are_known_while_a_trace_is_recorded() -> None:
    w = torch.ones(2, requires_grad=True)
    with tracer.trace() as trace:
        y = w.exp() * 2
        graph = tracer.walk(y)
    told = [(node.op, node.site.text if node.site else "") for node in graph.nodes]
    assert told == [("Tensor.mul", "y = w.exp() * 2"), ("Tensor.exp", "w.exp()"), ("", "")]
    assert not trace.passes


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (torch.ones(2), ValueError, "none of these tensors requires grad"),
        ([], TypeError, "there is no tensor in what was given"),
        (3, TypeError, "no tensor, nor a list, tuple or dictionary: int"),
    ],
    ids=["constant", "nothing", "number"],
)
def test_what_has_no_graph(given: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tracer.walk(given)
