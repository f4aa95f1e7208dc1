"""Packed nodes and edges: as good as tuples of records, in few bytes, with once what many share."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from tests.store.recordings import EDGES, GRAPH, MODULE, NODES, SITES
from tracer.records import Edge, Graph, Node
from tracer.records.packed import Operation, PackedEdges, PackedNodes, narrow, pack

LAYERS = tuple(
    replace(NODES[number % 2], id=number, module=MODULE if number % 2 else None, call=number)
    for number in range(600)
)


def packed(graph: Graph) -> Graph:
    """The same graph, packed."""
    nodes, edges = pack(graph)
    return replace(graph, nodes=nodes, edges=edges)


def test_a_packed_graph_is_the_graph() -> None:
    graph = packed(GRAPH)
    assert graph == GRAPH
    assert graph == GRAPH
    assert hash(graph) == hash(GRAPH)
    assert repr(graph) == repr(GRAPH)
    assert graph != packed(replace(GRAPH, nodes=LAYERS))
    assert graph != replace(GRAPH, edges=EDGES[:2])
    assert pack(graph) == (graph.nodes, graph.edges)
    assert pickle.loads(pickle.dumps(graph)) == GRAPH


def test_packed_nodes_are_as_good_as_a_tuple() -> None:
    nodes, _ = pack(GRAPH)
    assert tuple(nodes) == NODES == nodes
    assert [nodes[place] for place in range(-3, 3)] == [*NODES, *NODES]
    assert (nodes[1:], nodes[::-1]) == (NODES[1:], NODES[::-1])
    assert (len(nodes), NODES[1] in nodes, nodes.index(NODES[2])) == (3, True, 2)
    with pytest.raises(IndexError):
        nodes[3]


def test_leaves_are_found_among_packed_nodes() -> None:
    assert packed(GRAPH).leaves == GRAPH.leaves == NODES[2:]


def test_packed_edges_are_as_good_as_a_tuple() -> None:
    _, edges = pack(GRAPH)
    assert tuple(edges) == EDGES == edges
    assert (edges[-1], edges[1:]) == (EDGES[2], EDGES[1:])
    assert len(edges) == 3
    leaving = packed(GRAPH).edges_from
    assert dict(leaving) == {0: EDGES[:2], 1: EDGES[2:], 2: ()}
    for missing in (-1, 3):
        with pytest.raises(KeyError):
            leaving[missing]


def test_edges_are_by_source_and_slot_whatever_order_they_come_in() -> None:
    assert pack(replace(GRAPH, edges=EDGES[::-1]))[1] == EDGES


def test_two_edges_from_one_slot_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="two edges leave slot 1 of node 0"):
        pack(replace(GRAPH, edges=(Edge(0, 1, 1), Edge(0, 1, 2))))


def test_a_packed_graph_of_which_a_part_is_replaced_is_a_graph_like_others() -> None:
    changed = replace(packed(GRAPH), nodes=(Node(0, "Other"), *NODES[1:]))
    assert [node.name for node in changed.nodes][0] == "Other"
    assert changed.edges_from[1] == EDGES[2:]
    assert packed(changed) == changed


def test_what_nodes_share_is_held_once_and_told_by_their_number() -> None:
    nodes, _ = pack(Graph(1, LAYERS, (), ()))
    assert (len(nodes.sorts.values), len(nodes.operations.values)) == (2, 2)
    assert nodes.operations[2] == Operation(SITES[0], "torch.add", "noted")
    assert (nodes.sorts[3].name, nodes.modules[3], nodes.modules[2]) == (
        "MulBackward0", MODULE, None,
    )  # fmt: skip
    assert (nodes.variables[2], nodes.loops[2]) == (("y",), NODES[0].loops)
    assert (nodes.calls[599], nodes.sequence_nrs[2], nodes.sequence_nrs[1]) == (599, 6, 1)
    assert pack(GRAPH)[0].sequence_nrs[2] == 0
    assert list(nodes.sorts.each(len)) == [5] * 600


def test_slots_tell_where_an_edge_leads() -> None:
    _, edges = pack(GRAPH)
    assert list(edges.slots) == [2, 2, 0]
    assert list(edges.starts) == [0, 2, 4, 4]
    assert (list(edges.sources), list(edges.targets)) == ([0, 0, 1, 1], [2, 3, 0, 3])


def test_numbers_take_as_few_bytes_as_the_greatest_needs() -> None:
    found = [narrow([0, most]).itemsize for most in (0, 255, 256, 2**16, 2**32 - 1, 2**32)]
    assert found == [1, 1, 2, 4, 4, 8]
    nodes, _ = pack(Graph(1, LAYERS, (), ()))
    assert (nodes.sorts.numbers.itemsize, nodes.calls.itemsize) == (1, 2)


def test_a_graph_is_unpacked_once() -> None:
    graph = packed(GRAPH)
    assert graph.unpacked is graph.unpacked
    assert type(graph.unpacked.nodes) is type(graph.unpacked.edges) is tuple
    assert graph.unpacked == graph
    assert not isinstance(graph.unpacked.nodes, (PackedNodes, PackedEdges))
