"""All paths between two places: which nodes they take, how many there are, and the first."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.graphs import Tape, transformer
from tracer.errors import NotInTraceError
from tracer.records import Graph
from tracer.transforms.focus import Part
from tracer.transforms.paths import COUNTED_AT_MOST, Paths, paths


def braid(length: int) -> Graph:
    """Double a value over and over by adding it to itself: `2 ** length` paths."""
    tape = Tape()
    value = tape.leaf("x")
    for _ in range(length):
        value = tape.op("Add", value, value)
    return tape.graph(value)


def as_nodes(found: Paths) -> list[list[int]]:
    return [[path[0].source, *(edge.target for edge in path)] for path in found.first]


def test_all_paths_share_one_part_of_the_graph() -> None:
    tape = Tape()
    x = tape.leaf("x")
    beside = tape.op("Sin", tape.leaf("other"))
    joined = tape.op("Add", tape.op("Mul", x), tape.op("Exp", x))
    graph = tape.graph(tape.op("Sub", joined, beside))
    found = paths(graph, 0, "x", first=5)
    assert [graph.nodes[node].name for node in found.nodes] == [
        "SubBackward0", "AddBackward0", "MulBackward0", "ExpBackward0", "AccumulateGrad"
    ]  # fmt: skip
    assert (found.count, found.turned, found.sources, found.targets) == (2, False, (0,), (6,))
    assert found.part == Part(found.nodes, (0, 6), ("2 paths from 0 to x",))
    assert as_nodes(found) == [[0, 1, 3, 6], [0, 1, 4, 6]]
    assert found.over == {edge: 2 if edge.source == 0 else 1 for edge in found.edges}


def test_the_shortest_paths_come_first() -> None:
    tape = Tape()
    x = tape.leaf("x")
    far = tape.op("Exp", tape.op("Sin", tape.op("Cos", x)))
    graph = tape.graph(tape.op("Add", far, tape.op("Mul", tape.op("Neg", x), x)))
    assert [len(path) for path in paths(graph, 0, "x", first=9).first] == [2, 3, 4]


def test_edges_beside_one_another_are_different_paths() -> None:
    found = paths(braid(1), 0, "x", first=9)
    assert found.count == 2
    assert [[edge.slot for edge in path] for path in found.first] == [[0], [1]]


def test_paths_are_counted_without_walking_them() -> None:
    assert paths(braid(50), 0, "x").count == 2**50


def test_a_count_beyond_words_stops() -> None:
    found = paths(braid(5_000), 0, "x")
    assert (found.count, found.text) == (COUNTED_AT_MOST, "more than 10^18 paths from 0 to x")


def test_the_first_paths_come_without_the_rest() -> None:
    found = paths(braid(5_000), 0, "x", first=3)
    assert [len(path) for path in found.first] == [5_000] * 3
    assert len(set(found.first)) == 3


def test_places_named_the_other_way_round_are_turned() -> None:
    found = paths(braid(2), "x", 0)
    assert (found.turned, found.sources, found.targets, found.count) == (True, (0,), (2,), 4)
    assert found.text == "4 paths from 0 to x"


def test_modules_are_joined_from_the_last_of_one_to_the_first_of_the_other() -> None:
    graph = transformer(3)
    found = paths(graph, "h.2", "h.0")
    between = {graph.nodes[node].module for node in found.nodes}
    assert {ref.path.split(".")[3] for ref in between if ref is not None} == {"0", "1", "2"}
    assert set(found.sources).isdisjoint(edge.target for edge in found.edges)
    assert set(found.targets).isdisjoint(edge.source for edge in found.edges)


def test_places_that_overlap_have_no_path() -> None:
    with pytest.raises(NotInTraceError, match="^h and h.1 overlap; name two places apart"):
        paths(transformer(2), "h", "h.1")


def test_places_side_by_side_have_no_path() -> None:
    tape = Tape()
    graph = tape.graph(tape.op("Add", tape.leaf("a"), tape.leaf("b")))
    with pytest.raises(NotInTraceError, match="^no gradient flows between a and b, in either"):
        paths(graph, "a", "b")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=3), min_size=1, max_size=7))
def test_the_count_is_that_of_the_paths_walked(inputs: list[list[int]]) -> None:
    tape = Tape()
    values = [tape.leaf("x")]
    for chosen in inputs:
        values.append(tape.op("Op", *(values[choice % len(values)] for choice in chosen)))
    graph = tape.graph(values[-1])
    found = paths(graph, 0, "x", first=10_000)
    assert found.count == len(found.first) == len(set(found.first))
    assert [len(path) for path in found.first] == sorted(len(path) for path in found.first)
    assert found.over == Counter(edge for path in found.first for edge in path)
    assert set(found.over) == set(found.edges)
