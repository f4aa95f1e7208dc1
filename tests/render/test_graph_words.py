"""What nodes are called and where they are follows from what they share, for every one of them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.records import Edge, Graph, ModuleRef, Node, NodeKind, Site, words
from tracer.render.columns import Columns
from tracer.render.graph_words import GraphWords, NodeCells

SITES = (
    None,
    Site(1, "train.py", 3, "<module>", "x1 * m3", ("x2",), "x2 = x1 * m3"),
    Site(2, "train.py", 4, "<module>", "self.net(x)", (), "self.net(x)"),
    Site(3, "model.py", 7, "forward", "", (), ""),
)
MODULES = (
    None,
    ModuleRef(1, "", "Net"),
    ModuleRef(2, "net.0", "Linear"),
    ModuleRef(3, "net.1", "T"),
)
NODES = st.builds(
    Node,
    id=st.just(0),
    name=st.sampled_from(["MulBackward0", "AddmmBackward0"]),
    kind=st.sampled_from([NodeKind.OPERATION, NodeKind.OPERATION, NodeKind.ACCUMULATE]),
    variables=st.sampled_from([(), ("",), ("x2",), ("h[t]", "a name that has no end in sight")]),
    site=st.sampled_from(SITES),
    op=st.sampled_from(["", "torch.mul", f"{words.BACKWARD_OF}MulBackward0"]),
    module=st.sampled_from(MODULES),
    call=st.integers(1, 3),
    loops=st.sampled_from([(), (("t", "3"),), (("t", "4"), ("", "#2"))]),
)
GRAPHS = st.lists(NODES, min_size=1, max_size=8).map(
    lambda nodes: Graph(1, tuple(replace(one, id=n) for n, one in enumerate(nodes)), (), ())
)


def where(graph: Graph, node: Node) -> str:
    """Where a node is, found by looking at all others."""
    paths = {
        one.module.path
        for one in graph.nodes
        if one.site is not None and one.site == node.site and one.module is not None
    }
    if len(paths) > 1 and node.module is not None and node.module.path:
        return node.module.path
    return words.node_where(node)


@settings(deadline=None)
@given(GRAPHS)
def test_nodes_alike_are_told_alike(graph: Graph) -> None:
    said, columns = GraphWords(graph), Columns(110, color=False, files=2)
    cells = NodeCells(said, columns, "train.py")
    for node in (*graph.nodes, *graph.nodes):  # the second time, all is known
        place = columns.place(node.site, "train.py")
        assert said.where(node.id) == where(graph, node)
        assert cells.of(node.id) == columns.cells(node.name, where(graph, node), place)


def test_only_nodes_that_several_edges_lead_to_may_add_up() -> None:
    nodes = tuple(Node(number, "AddBackward0") for number in range(4))
    edges = (Edge(0, 0, 1), Edge(0, 1, 2), Edge(1, 0, 3), Edge(2, 0, 3))
    assert GraphWords(Graph(1, nodes, edges, ())).gathers == {3}
