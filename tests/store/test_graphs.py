"""Graphs in a file: they come back as they were, and one that makes no sense is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.recordings import GRAPH, NODES, recorded
from tests.store.strategies import graphs
from tracer.errors import TraceFileError
from tracer.records import Edge, Graph, Root, Run
from tracer.records.packed import pack
from tracer.store import TraceWriter, read_writer
from tracer.store.schema import tables

COLUMNS = [column.name for column in tables()["graph"][1:]]


def test_every_field_of_a_graph_comes_back_as_it_was() -> None:
    assert dict(recorded(GRAPH).graphs) == {1: GRAPH}


@settings(deadline=None)
@given(graphs())
def test_any_graph_comes_back_as_it_was(graph: Graph) -> None:
    read = recorded(graph).graphs[1]
    assert read == graph
    assert read.unpacked == graph
    assert (dict(read.edges_from), read.edges_into) == (graph.edges_from, graph.edges_into)


@settings(deadline=None)
@given(graphs())
def test_a_packed_graph_is_written_as_the_same_of_records_is(graph: Graph) -> None:
    nodes, edges = pack(graph)
    assert recorded(replace(graph, nodes=nodes, edges=edges)).graphs[1] == graph


def test_a_graph_of_no_nodes_comes_back() -> None:
    empty = Graph(1, (), (), ())
    assert recorded(empty).graphs[1] == empty


def test_a_graph_as_deep_as_any_comes_back() -> None:
    count = 3000
    nodes = tuple(replace(NODES[1], id=number) for number in range(count))
    edges = tuple(Edge(number, 0, number + 1) for number in range(count - 1))
    deep = Graph(1, nodes, edges, (Root(0),))
    assert recorded(deep).graphs[1] == deep


def test_lone_surrogates_become_escapes_in_what_a_terminal_is_told() -> None:
    node = replace(NODES[0], name="a\udc80", op="b\udc80", note="c\udc80")
    (read,) = recorded(Graph(1, (node,), (), ())).graphs[1].nodes
    assert (read.name, read.op, read.note) == ("a\\udc80", "b\\udc80", "c\\udc80")


def test_what_nodes_share_is_stored_once() -> None:
    nodes = tuple(replace(NODES[1], id=number, call=number) for number in range(300))
    writer = TraceWriter(None, Run())
    writer.put(Graph(1, nodes, (), ()))
    writer.flush()
    columns = "sorts, operations, variables, length(sort), length(call), length(target)"
    ((sorts, *others),) = writer.connection.execute(f"SELECT {columns} FROM graph")
    assert sorts.count("MulBackward0") == 1
    assert others == ['[[0,"",""]]', "[[]]", 300, 600, 0]


def test_two_edges_that_leave_one_slot_are_refused() -> None:
    writer = TraceWriter(None, Run())
    with pytest.raises(ValueError, match="two edges leave slot 1 of node 0"):
        writer.put(replace(GRAPH, edges=(Edge(0, 1, 1), Edge(0, 1, 2))))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("target = x'020004'", "a column of a graph does not have a number for each"),
        ("target = x'02030004'", "an edge of the graph leads to no node"),
        ("input_nr = x''", "a column of a graph does not have a number for each"),
        ("slots = x'020201'", "a column of a graph does not have a number for each"),
        ("slots = x'ffffffffffffffffffffffffffffffffffffffffffffffff'", "does not have a number"),
        ("roots = '[[9,0]]'", "a root of graph 1 is no node"),
        ("roots = '[[-1,0]]'", "a root of graph 1 is no node"),
        ("roots = '[[0]]'", "a column holds no list of the kind"),
        ("nodes = 2", "a column of a graph does not have a number for each"),
        ("nodes = 0", "a column of a graph does not have a number for each"),
        ("nodes = -1", "a column of a graph does not have a number for each"),
        ("nodes = 9223372036854775807", "a column of a graph does not have a number for each"),
        ("call = x'010203040506070809'", "a column of a graph does not have a number for each"),
        ("sort = x'000103'", "a node is of no sort, operation, module or loop that the graph has"),
        ("operations = '[]'", "a node is of no sort, operation, module or loop"),
        ('operations = \'[[99,"",""],[0,"",""]]\'', "there is no site 99"),
        ("operations = '[[0,\"\"]]'", "a column holds no list of the kind"),
        ("modules = '[99,0]'", "there is no module 99"),
        ("modules = '[1e3,0]'", "a list of whole numbers holds something else"),
        ("loops = '[[[\"t\"]],[]]'", "a column holds no list of the kind"),
        ("sorts = replace(sorts, 'operation', 'robot')", "'robot' is not a valid NodeKind"),
        ("sorts = replace(sorts, '[1]', '[99]')", "there is no meta 99"),
        ("sorts = replace(sorts, '[1]', '{}')", "a column holds no list"),
        ("sorts = replace(sorts, '[1]', '[1.5]')", "a list of whole numbers holds something else"),
        ("variables = '[[1],[],[]]'", "a list of strings holds something else"),
        ("variables = '{}'", "a column holds no list"),
        ("variables = 'x'", "Expecting value"),
        (f"variables = '{'[' * 100_000}'", "recursion"),
    ],
)
def test_a_graph_that_makes_no_sense_is_refused(change: str, reason: str) -> None:
    writer = TraceWriter(None, Run())
    writer.put(GRAPH)
    trace = read_writer(writer)
    writer.connection.execute(f"UPDATE graph SET {change}")
    with pytest.raises(TraceFileError, match=reason):
        trace.graphs[1]


def test_modules_that_call_each_other_in_a_circle_are_refused() -> None:
    writer = TraceWriter(None, Run())
    writer.put(GRAPH)
    trace = read_writer(writer)
    writer.connection.execute("UPDATE module SET parent = 5 WHERE id = 2")
    with pytest.raises(TraceFileError, match="recursion"):
        trace.graphs[1]


@settings(deadline=None)
@given(st.sampled_from(COLUMNS), st.none() | st.integers() | st.text() | st.binary(), st.data())
def test_whatever_a_column_holds_the_graph_is_whole_or_refused(
    column: str, nonsense: object, data: st.DataObject
) -> None:
    writer = TraceWriter(None, Run())
    writer.put(GRAPH)
    trace = read_writer(writer)
    ((stored,),) = writer.connection.execute(f"SELECT {column} FROM graph")
    if isinstance(stored, (bytes, str)) and data.draw(st.booleans()):
        place = data.draw(st.integers(0, max(len(stored) - 1, 0)))
        some = st.binary(max_size=2) if isinstance(stored, bytes) else st.text("[]1,9")
        filler: Any = data.draw(some)
        nonsense = stored[:place] + filler + stored[place + 1 :]
    elif isinstance(nonsense, int):
        nonsense = max(min(nonsense, 2**63 - 1), -(2**63))
    writer.connection.execute(f"UPDATE OR REPLACE graph SET {column} = IFNULL(?, '')", (nonsense,))
    try:
        graph = trace.graphs[1].unpacked
    except TraceFileError:
        return
    assert [node.id for node in graph.nodes] == [*range(len(graph.nodes))]
    ends = {node for edge in graph.edges for node in (edge.source, edge.target)}
    assert ends | {root.node for root in graph.roots} <= {node.id for node in graph.nodes}
