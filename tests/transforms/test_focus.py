"""A part of a graph: what is near a target, what leads to it, what it leads to."""

from __future__ import annotations

import pytest

from tests.transforms.graphs import Tape, chain
from tracer.errors import NotInTraceError
from tracer.records import Edge, Graph, Root
from tracer.transforms.focus import Part, cut_out, downstream, focus, upstream


def diamond() -> Graph:
    """Sum (0) of Add (1) of Mul (2) and Exp (3); both of y (4) = Sin of x (5)."""
    tape = Tape()
    below = tape.op("Sin", tape.leaf("x"))
    left, right = tape.op("Mul", below), tape.op("Exp", below)
    return tape.graph(tape.op("Sum", tape.op("Add", left, right)))


def test_a_radius_reaches_both_ways() -> None:
    assert focus(diamond(), 2, 1) == Part((1, 2, 4), (2,), ("2 and what is near it, 1 edge far",))
    assert focus(diamond(), 2, 2).nodes == (0, 1, 2, 3, 4, 5)


def test_a_radius_of_none_is_the_target() -> None:
    assert focus(diamond(), "x", 0) == Part((5,), (5,), ("x",))


def test_upstream_is_what_a_gradient_passes_before() -> None:
    assert upstream(diamond(), "MulBackward0") == Part(
        (0, 1, 2), (2,), ("upstream of MulBackward0",)
    )


def test_downstream_is_what_a_gradient_passes_after() -> None:
    assert downstream(diamond(), "MulBackward0") == Part(
        (2, 4, 5), (2,), ("downstream of MulBackward0",)
    )


def test_a_long_chain_is_walked_without_recursion() -> None:
    graph = chain(20_000)
    assert len(upstream(graph, "w").nodes) == 20_001


@pytest.mark.parametrize("part", [focus, upstream, downstream])
def test_an_unknown_target_is_said(part: object) -> None:
    with pytest.raises(NotInTraceError, match="nothing in this graph is called 'nobody'"):
        part(diamond(), "nobody")  # type: ignore[operator]


def test_a_part_becomes_a_graph_that_knows_the_old_ids() -> None:
    graph, old = cut_out(diamond(), [2, 4, 3])
    assert old == (2, 3, 4)
    assert [node.name for node in graph.nodes] == ["MulBackward0", "ExpBackward0", "SinBackward0"]
    assert [node.id for node in graph.nodes] == [0, 1, 2]
    assert graph.edges == (Edge(0, 0, 2), Edge(1, 0, 2))
    assert graph.roots == (Root(0), Root(1))
