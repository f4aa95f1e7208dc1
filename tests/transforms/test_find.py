"""A name finds its nodes in the order people mean it, and a wrong one says what comes close."""

from __future__ import annotations

import pytest

from tests.transforms.graphs import Tape, transformer
from tracer.errors import NotInTraceError
from tracer.records import Graph
from tracer.transforms.find import find_nodes


def small() -> Graph:
    tape = Tape()
    tape.at(7, "x2 = x1 * m3", file="/home/me/net.py")
    product = tape.op("Mul", tape.leaf("x1"), tape.leaf("m3"))
    return tape.graph(tape.op("Sum", product))


def test_a_number_is_a_node() -> None:
    assert find_nodes(small(), 1) == find_nodes(small(), "1") == (1,)


def test_a_variable_is_found_by_its_name() -> None:
    assert find_nodes(small(), "m3") == (3,)


@pytest.mark.parametrize("line", ["net.py:7", "me/net.py:7", "/home/me/net.py:7"])
def test_a_line_is_found_by_any_end_of_its_file(line: str) -> None:
    assert find_nodes(small(), line) == (0, 1)


def test_a_part_of_a_file_name_is_not_the_file() -> None:
    with pytest.raises(NotInTraceError):
        find_nodes(small(), "et.py:7")


def test_a_node_name_finds_all_nodes_of_that_name() -> None:
    assert find_nodes(small(), "MulBackward0") == (1,)


def test_a_module_is_all_its_nodes_with_its_parameters() -> None:
    graph = transformer(3)
    found = [graph.nodes[node] for node in find_nodes(graph, "model.transformer.h.1.mlp.c_fc")]
    assert [node.name for node in found] == [
        "AddmmBackward0", "AccumulateGrad", "TBackward0", "AccumulateGrad"
    ]  # fmt: skip


def test_a_module_may_lack_the_beginning_of_its_path() -> None:
    graph = transformer(3)
    assert find_nodes(graph, "h.1") == find_nodes(graph, "model.transformer.h.1")


def test_a_wrong_name_says_what_comes_close() -> None:
    with pytest.raises(NotInTraceError) as caught:
        find_nodes(transformer(2), "model.transfomer.h.1.mlp")
    assert str(caught.value) == (
        "nothing in this graph is called 'model.transfomer.h.1.mlp'; did you mean "
        "model.transformer.h.1.mlp or model.transformer.h.0.mlp or model.transformer.h.1?"
    )


def test_a_name_like_no_other_says_what_there_is() -> None:
    with pytest.raises(NotInTraceError) as caught:
        find_nodes(small(), "qqq")
    assert str(caught.value) == (
        "nothing in this graph is called 'qqq'; it has net.py:7, SumBackward0, MulBackward0, x1, "
        "AccumulateGrad, …"
    )
