"""A node that only rearranges its gradient returns what arrived, whose statistics are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import tracer
from tests.capture.comparing import same_value
from tracer.capture.graphs import VIEW_NODES
from tracer.records import Gradient, NodeRun
from tracer.records.tensors import TensorMeta

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "TBackward0": lambda h: h.t(),
    "TransposeBackward0": lambda h: h.transpose(0, 1),
    "PermuteBackward0": lambda h: h.permute(1, 0),
    "ViewBackward0": lambda h: h.view(-1),
    "ReshapeAliasBackward0": lambda h: torch.ops.aten._reshape_alias(h, [40], [1]),
    "UnsafeViewBackward0": lambda h: torch.ops.aten._unsafe_view(h, [4, 10]),
    "UnsqueezeBackward0": lambda h: h.unsqueeze(1),
    "SqueezeBackward0": lambda h: h.squeeze(),
    "SqueezeBackward1": lambda h: h.squeeze(0),
    "SqueezeBackward2": lambda h: h.squeeze((0,)),
}


def numbers_of(tensor: Tensor) -> Gradient:
    """What PyTorch says of a tensor."""
    wide = tensor.double()
    return Gradient(
        TensorMeta(tuple(tensor.shape)),
        wide.norm().item(), wide.min().item(), wide.max().item(), wide.mean().item(),
        int((wide == 0).sum()), 0, 0,
    )  # fmt: skip


def returned_by(trace: tracer.Trace, name: str) -> list[Gradient | None]:
    """What the nodes of this name returned, in order."""
    record = trace.record
    graphs = {one.id: record.graphs[one.graph] for one in record.passes}
    return [
        event.returned[0]
        for event in record.events.select(kinds=("node",))
        if isinstance(event, NodeRun) and graphs[event.pass_id or 0].nodes[event.node].name == name
    ]


def test_every_view_is_tried() -> None:
    assert set(VIEWS) == VIEW_NODES


@pytest.mark.parametrize("name", VIEWS)
def test_what_a_view_returns_is_what_pytorch_says(name: str) -> None:
    torch.manual_seed(0)
    shape = (1, 8, 5) if "Squeeze" in name else (8, 5)
    x = torch.randn(shape, requires_grad=True)
    with tracer.trace() as trace:
        inner = x * 1.5
        inner.retain_grad()
        for tensor in (inner, x):  # below it a node, and a leaf
            x.grad = None
            out = VIEWS[name](tensor)
            (out * torch.randn(out.shape).relu()).sum().backward()
            assert tensor.grad is not None
            if tensor is inner:
                expected = [numbers_of(tensor.grad)]
        expected.append(numbers_of(tensor.grad))
    told = returned_by(trace, name)
    assert len(told) == 2
    for one, other in zip(expected, told, strict=True):
        assert same_value(one, other)
