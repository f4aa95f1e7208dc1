"""The order in which gradients can flow: the engine's where it is one, and none for a cycle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.transforms.graphs import Tape, chain
from tracer.errors import TraceFileError
from tracer.records import Edge, Graph, Node, Root
from tracer.transforms.order import flow_order, sorted_by_links, tangled


def test_operations_come_newest_first_and_leaves_last() -> None:
    tape = Tape()
    leaf = tape.leaf("w")
    early, late = tape.op("Exp", leaf), tape.op("Sin", leaf)
    graph = tape.graph(tape.op("Add", early, late))
    names = [graph.nodes[node].name for node in flow_order(graph)]
    assert names == ["AddBackward0", "SinBackward0", "ExpBackward0", "AccumulateGrad"]


def test_numbers_that_contradict_the_edges_give_way() -> None:
    graph = chain(4)
    backwards = tuple(
        node if node.is_leaf else replace(node, sequence_nr=node.id) for node in graph.nodes
    )
    order = flow_order(replace(graph, nodes=backwards))
    assert [node for node in order if not graph.nodes[node].is_leaf] == [0, 1, 3, 4]


def test_a_cycle_is_a_damaged_trace() -> None:
    nodes = (Node(0, "A"), Node(1, "B"))
    graph = Graph(7, nodes, (Edge(0, 0, 1), Edge(1, 0, 0)), (Root(0),))
    with pytest.raises(TraceFileError, match="^graph 7 has a cycle, so the trace is damaged"):
        flow_order(graph)


def test_the_lowest_rank_that_is_ready_comes_next() -> None:
    assert sorted_by_links([[2], [2], []], [1, 0, 2]) == [1, 0, 2]


def test_what_leads_into_a_cycle_or_out_of_it_is_not_tangled() -> None:
    into, one, other, out = [1], [2], [1, 3], []
    assert tangled([into, one, other, out]) == {1, 2}
