"""PyTorch's "modified by an inplace operation" is answered with the line, and so is its silence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tracer
from tracer.capture.saved_writes import MOST_WRITES
from tracer.records import SavedWrite, TraceRecord


def told(trace: TraceRecord) -> list[tuple[str, str, str, int | None, str]]:
    """(node, attribute, how, version, statement that wrote) of each write."""
    graphs = {record.id: trace.graphs[record.graph] for record in trace.passes}
    return [
        (
            graphs[event.pass_id or 0].nodes[event.node].name,
            event.attribute,
            event.how,
            event.version,
            event.site.statement if event.site is not None else "",
        )
        for event in trace.events
        if isinstance(event, SavedWrite)
    ]


def test_writes_too_many_to_remember_are_said_to_be() -> None:
    with tracer.trace() as trace:
        y = torch.ones(2, requires_grad=True).exp()
        y.add_(1)
        other = torch.zeros(1)
        for _ in range(MOST_WRITES):
            other.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
    assert told(trace.record) == []
    assert dict(trace.record.dropped) == {
        "writes too long ago to say whether they changed what a node had kept": 1
    }


def test_the_lines_that_wrote_are_told_with_the_error() -> None:
    with tracer.trace() as trace:
        a = torch.ones(3, requires_grad=True)
        b = a.exp()
        b += 1
        b[0].mul_(2)
        with pytest.raises(RuntimeError, match="is at version 2; expected version 0"):
            b.sum().backward()
    assert told(trace.record) == [
        ("ExpBackward0", "_saved_result", "add_", 1, "b += 1"),
        ("ExpBackward0", "_saved_result", "mul_", 2, "b[0].mul_(2)"),
    ]
    lines = trace.timeline().splitlines()
    (raised,) = (i for i, line in enumerate(lines) if "pass raised" in line)
    assert "b[0].mul_(2)" in lines[raised - 1]
    assert "version 2" in lines[raised - 1]
    assert trace.record.passes[0].outcome.node == 3


def test_an_optimizer_that_steps_too_early_is_named() -> None:
    with tracer.trace() as trace:
        layer = nn.Linear(2, 2)
        sgd = torch.optim.SGD(layer.parameters(), lr=0.1)
        loss = layer(layer(torch.ones(1, 2))).sum()
        loss.backward(retain_graph=True)
        sgd.step()
        with pytest.raises(RuntimeError, match="inplace operation"):
            loss.backward()
    ((name, _, how, _, statement),) = told(trace.record)
    assert (name, how, statement) == ("AddmmBackward0", "SGD.step", "sgd.step()")


def test_a_tensor_written_by_out_is_told() -> None:
    with tracer.trace() as trace:
        a = torch.ones(3, requires_grad=True)
        c = torch.ones(3)
        b = a * c
        torch.add(torch.ones(3), 1, out=c)
        with pytest.raises(RuntimeError, match="inplace operation"):
            b.sum().backward()
    assert told(trace.record) == [
        ("MulBackward0", "_saved_other", "torch.add", 1, "torch.add(torch.ones(3), 1, out=c)")
    ]


def test_what_a_custom_function_saved_is_watched_too() -> None:
    from tests.capture.test_cuts import Cube

    with tracer.trace() as trace:
        x = torch.ones(2, requires_grad=True) * 1
        y = Cube.apply(x)
        with torch.no_grad():
            x.zero_()
        with pytest.raises(RuntimeError, match="inplace operation"):
            y.sum().backward()
    ((name, _, how, version, statement),) = told(trace.record)
    assert (name, how, version, statement) == ("CubeBackward", "zero_", 1, "x.zero_()")


def test_a_write_through_data_that_no_error_tells_of_is_told() -> None:
    with tracer.trace() as trace:
        a = torch.ones(3, requires_grad=True)
        y = a.sigmoid()
        y.data.zero_()
        y.sum().backward()
    assert told(trace.record) == [
        ("SigmoidBackward0", "_saved_result", "zero_", None, "y.data.zero_()")
    ]
    assert a.grad is not None
    assert a.grad.tolist() == [0.0, 0.0, 0.0]
    assert "no error, another gradient" in trace.timeline()


def test_writes_through_data_before_the_forward_are_nothing_to_tell() -> None:
    with tracer.trace() as trace:
        w = torch.ones(2, requires_grad=True)
        for _ in range(3):
            (w * w).sum().backward()
            assert w.grad is not None
            w.data -= 0.1 * w.grad
            w.grad.data.zero_()
    assert told(trace.record) == []
