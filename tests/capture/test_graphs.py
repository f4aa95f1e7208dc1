"""The structures that a recording holds: they are what is written, in little memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tracer
from tests.capture.cores import IN_PYTHON
from tracer.capture.session import Session
from tracer.records import Graph, NodeKind
from tracer.records.packed import PackedEdges, PackedNodes, pack


class Double(torch.autograd.Function):
    """A custom Function, which keeps something of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.factor = 2
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2


def held() -> list[Graph]:
    """The structures that the recording holds."""
    assert Session.active is not None
    return list(Session.active.graphs.by_structure.values())


def unroll(cell: nn.LSTMCell, steps: int) -> Tensor:
    """A loss behind an LSTM."""
    hidden, state = torch.zeros(2, 4), torch.zeros(2, 4)
    for x in torch.ones(steps, 2, 3):
        hidden, state = cell(x, (hidden, state))
    return hidden.square().mean()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[tuple[list[Graph], tracer.Trace]]:
    """Structures of several kinds as they are held, and as they are read."""
    w = torch.ones(2, 4, requires_grad=True)
    with tracer.trace(tmp_path / "run.trace") as trace:
        unroll(nn.LSTMCell(3, 4), 3).backward()
        a, _b, c = Double.apply(w * 0.5).split([1, 2, 1], dim=1)
        torch.autograd.backward([a.sum(), (c * a).sum()], retain_graph=True)
        (slope,) = torch.autograd.grad((w**3).sum(), w, create_graph=True)
        slope[0].sum().backward()
        torch.where(w > 0, torch.zeros(2, 4), w).sum().backward()
        graphs = held()
        yield graphs, trace


def test_what_is_held_is_what_is_written(
    programs: tuple[list[Graph], tracer.Trace],
) -> None:
    graphs, trace = programs
    read = trace.record.graphs
    assert [graph.unpacked for graph in graphs] == [read[graph.id] for graph in graphs]
    assert graphs == list(read.values())
    assert len(graphs) == 5
    for graph in (*graphs, *read.values()):
        assert isinstance(graph.nodes, PackedNodes)
        assert isinstance(graph.edges, PackedEdges)


def test_nodes_and_edges_are_as_good_as_tuples(
    programs: tuple[list[Graph], tracer.Trace],
) -> None:
    for graph in programs[0]:
        nodes, edges = tuple(graph.nodes), tuple(graph.edges)
        assert (len(graph.nodes), len(graph.edges)) == (len(nodes), len(edges))
        assert [graph.nodes[place] for place in range(len(nodes))] == list(nodes)
        assert (graph.nodes[-1], graph.nodes[1:3]) == (nodes[-1], nodes[1:3])
        assert (graph.edges[-1], graph.edges[1:3]) == (edges[-1], edges[1:3])
        assert dict(graph.edges_from) == graph.unpacked.edges_from
        assert graph.edges_into == graph.unpacked.edges_into
        for missing in (-1, len(nodes)):
            with pytest.raises(KeyError):
                graph.edges_from[missing]
        with pytest.raises(IndexError):
            graph.nodes[len(nodes)]


def test_which_nodes_run_user_code(programs: tuple[list[Graph], tracer.Trace]) -> None:
    custom = {
        graph.id: [node.name for node, flag in zip(graph.nodes, flags, strict=True) if flag]
        for graph in programs[0]
        for flags in [pack(graph)[0].tell(lambda sort: sort.kind is NodeKind.CUSTOM)]
    }
    assert custom == {1: [], 2: ["DoubleBackward"], 3: [], 4: [], 5: []}


def test_a_node_of_an_lstm_is_held_in_little_memory(tmp_path: Path) -> None:
    cell = nn.LSTMCell(3, 4)
    with tracer.trace(tmp_path / "run.trace"):
        unroll(cell, 2).backward()
        kept, at_most = grown(cell)
        nodes = len(held()[-1].nodes)
    assert nodes == 7506
    assert kept / nodes < 250
    assert at_most / nodes < (1800 if IN_PYTHON else 1200)


def grown(cell: nn.LSTMCell) -> tuple[int, int]:
    """By how many bytes Python's memory grows with a structure: for good, and at most meanwhile."""
    loss = unroll(cell, 500)
    gc.collect()
    tracemalloc.start()
    try:
        loss.backward()
        del loss
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
