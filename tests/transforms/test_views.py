"""Views stand with the operation they serve: its user, else the one they look at."""

from __future__ import annotations

import pytest

from tests.transforms.graphs import Tape
from tracer.records import Graph, Node, NodeKind
from tracer.transforms.order import flow_order
from tracer.transforms.views import gather_units, is_view


def unit_names(graph: Graph, *, fold_views: bool = True) -> list[list[str]]:
    units = gather_units(graph, flow_order(graph), fold_views=fold_views)
    return [[graph.nodes[node].name for node in members] for members in units.members]


@pytest.mark.parametrize("name", ["TBackward0", "ViewBackward0", "UnsafeViewBackward0"])
def test_what_only_reshapes_is_a_view(name: str) -> None:
    assert is_view(Node(0, name))


@pytest.mark.parametrize("name", ["AddBackward0", "TanhBackward0", "ViewportBackward", "T"])
def test_what_computes_is_no_view(name: str) -> None:
    assert not is_view(Node(0, name))


def test_a_custom_function_of_the_same_name_is_no_view() -> None:
    assert not is_view(Node(0, "ViewBackward", NodeKind.CUSTOM))


def test_a_transposed_weight_stands_with_the_product_that_uses_it() -> None:
    tape = Tape()
    graph = tape.graph(tape.op("Mm", tape.leaf("x"), tape.op("T", tape.leaf("w"))))
    assert unit_names(graph) == [
        ["MmBackward0", "TBackward0"], ["AccumulateGrad"], ["AccumulateGrad"]
    ]  # fmt: skip


def test_a_view_with_two_users_stands_with_what_it_looks_at() -> None:
    tape = Tape()
    split = tape.op("Split", tape.op("Mm", tape.leaf("x")))
    graph = tape.graph(tape.op("Mul", tape.op("Exp", split), tape.op("Sin", split)))
    assert ["MmBackward0", "SplitBackward0"] in unit_names(graph)


def test_a_chain_of_views_folds_as_one() -> None:
    tape = Tape()
    value = tape.op("Exp", tape.leaf("x"))
    for name in ("View", "Transpose", "Unsqueeze"):
        value = tape.op(name, value)
    assert unit_names(tape.graph(tape.op("Sum", value))) == [
        ["SumBackward0", "UnsqueezeBackward0", "TransposeBackward0", "ViewBackward0"],
        ["ExpBackward0"],
        ["AccumulateGrad"],
    ]


def test_a_root_that_is_a_chain_of_views_stands_with_what_it_looks_at() -> None:
    tape = Tape()
    graph = tape.graph(tape.op("Select", tape.op("View", tape.op("Exp", tape.leaf("x")))))
    assert unit_names(graph) == [
        ["ExpBackward0", "SelectBackward0", "ViewBackward0"],
        ["AccumulateGrad"],
    ]


def test_a_view_of_a_leaf_with_two_users_stands_with_the_leaf() -> None:
    tape = Tape()
    view = tape.op("T", tape.leaf("w"))
    graph = tape.graph(tape.op("Add", tape.op("Exp", view), tape.op("Sin", view)))
    assert unit_names(graph)[-1] == ["AccumulateGrad", "TBackward0"]


def test_views_are_their_own_when_they_are_to_be_shown() -> None:
    tape = Tape()
    graph = tape.graph(tape.op("Mm", tape.op("T", tape.leaf("w"))))
    assert unit_names(graph, fold_views=False) == [
        ["MmBackward0"], ["TBackward0"], ["AccumulateGrad"]
    ]  # fmt: skip
