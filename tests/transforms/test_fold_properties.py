"""What folding keeps, whatever the graph: every node, every edge, what reaches what, and order."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from graphlib import TopologicalSorter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.graphs import Tape, traced
from tracer.records import Edge, Graph, words
from tracer.records.diagram import Arrow, Role
from tracer.records.passes import view_pass
from tracer.records.view import View
from tracer.transforms.fold import fold
from tracer.transforms.folded import draw_folded
from tracer.transforms.folding import Folding
from tracer.transforms.scene import Scene

NAMES = ("Add", "Mul", "Exp", "View", "T", "Split")
MODULES = ("", "net", "net.a", "net.a.0", "net.a.1", "net.a.2", "net.b", "other.0", "other.1")
SHAPES = ((4,), (4, 8))


@st.composite
def steps(draw: st.DrawFn) -> tuple[str, tuple[int, ...], str, int, tuple[int, ...]]:
    """Draw one operation: name, how far back its inputs are, module, line (0: none), shape."""
    back = draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    return (
        draw(st.sampled_from(NAMES)), tuple(back), draw(st.sampled_from(MODULES)),
        draw(st.integers(0, 4)), draw(st.sampled_from(SHAPES)),
    )  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Draw a program with loops, modules, source lines and leaves, and take its graph."""
    tape = Tape()
    values = [tape.leaf(f"x{number}", 4) for number in range(draw(st.integers(1, 3)))]
    for body in draw(st.lists(st.lists(steps(), min_size=1, max_size=5), min_size=1, max_size=4)):
        for turn in range(draw(st.sampled_from([1, 1, 2, 3, 7]))):
            for step in body:
                values.append(_run(tape, values, step, turn))
    for value in values[-2:]:
        values.append(tape.op("Sum", value))
    graph = tape.graph(tape.op("Add", *values[-3:]))
    return draw(st.sampled_from([graph, _renumbered(graph)]))


def _run(
    tape: Tape,
    values: list[int],
    step: tuple[str, tuple[int, ...], str, int, tuple[int, ...]],
    turn: int,
) -> int:
    name, back, module, line, shape = step
    inputs = [values[-min(distance, len(values))] for distance in back]
    if len(back) == 3:
        inputs[0] = tape.leaf(f"{module}.weight" if turn % 2 else f"w[{turn}]", 8)
    if line:
        tape.at(line, f"line {line}", function="<module>" if line < 3 else "work")
    else:
        tape.place, tape.call = None, 1
    with tape.module(module, module.split(".")[0].title()):
        if not module:
            tape.within = None
        return tape.op(name, *inputs, shape=shape)


def _renumbered(graph: Graph) -> Graph:
    """Give the nodes numbers that say nothing of their order."""
    nodes = [
        node if node.is_leaf else replace(node, sequence_nr=node.id * 7 % 5) for node in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


def options() -> st.SearchStrategy[View]:
    """Draw options that need no name."""
    return st.builds(
        View,
        budget=st.integers(1, 30),
        depth=st.sampled_from([None, None, None, 0, 1, 2, 9]),
        fold=st.sampled_from([True, True, True, False]),
        show=st.sampled_from([frozenset(), frozenset({"views"})]),
    )


def joined(folding: Folding, *, carried: bool) -> dict[int, set[int]]:
    targets: dict[int, set[int]] = defaultdict(set)
    for edge in folding.edges:
        if carried or not edge.carried:
            targets[edge.source].add(edge.target)
    return targets


@settings(max_examples=80, deadline=None)
@given(graphs(), options())
def test_every_node_is_in_one_box_and_in_all_that_is_around_it(graph: Graph, chosen: View) -> None:
    folding = fold(graph, chosen)
    held = Counter(node for box in folding.boxes for node in box.members)
    assert held == Counter(range(len(graph.nodes)))
    assert all(node in folding.groups[box].members for node, box in folding.box_of.items())
    for group in folding.groups:
        assert sorted(node for block in group.blocks for node in block) == list(group.members)
        if group.children:
            inside = [node for child in group.children for node in folding.groups[child].members]
            assert sorted(inside) == list(group.members)
            assert all(folding.groups[child].parent == group.id for child in group.children)


@settings(max_examples=80, deadline=None)
@given(graphs(), options())
def test_every_edge_is_in_a_box_or_between_two(graph: Graph, chosen: View) -> None:
    folding = fold(graph, chosen)
    between = Counter(member for edge in folding.edges for member in edge.members)
    for edge in folding.edges:
        for member in edge.members:
            ends = folding.box_of[member.source], folding.box_of[member.target]
            assert ends == (edge.source, edge.target)
    for member in graph.edges:
        apart = folding.box_of[member.source] != folding.box_of[member.target]
        assert between[member] == 1 or (not apart and between[member] == 0)


@settings(max_examples=80, deadline=None)
@given(graphs(), options())
def test_folding_makes_no_cycle(graph: Graph, chosen: View) -> None:
    folding = fold(graph, chosen)
    assert all(edge.carried or edge.source != edge.target for edge in folding.edges)
    TopologicalSorter(joined(folding, carried=False)).prepare()
    open_repeats = [group for group in folding.regions if len(group.blocks) > 1]
    assert open_repeats or not any(edge.carried for edge in folding.edges)


@settings(max_examples=40, deadline=None)
@given(graphs(), options())
def test_what_reached_another_still_reaches_it(graph: Graph, chosen: View) -> None:
    folding = fold(graph, chosen)
    below = reached(joined(folding, carried=True), range(len(folding.groups)))
    onwards = {node: {e.target for e in edges} for node, edges in graph.edges_from.items()}
    for source, targets in reached(onwards, range(len(graph.nodes))).items():
        box = folding.box_of[source]
        assert {folding.box_of[target] for target in targets} <= below[box] | {box}


def reached(links: dict[int, set[int]], items: range) -> dict[int, set[int]]:
    found = {}
    for item in items:
        seen: set[int] = set()
        waiting = [item]
        while waiting:
            new = links.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        found[item] = seen
    return found


@settings(max_examples=60, deadline=None)
@given(graphs(), options())
def test_a_picture_loses_no_node_no_edge_and_nothing_that_flowed(
    graph: Graph, chosen: View
) -> None:
    trace = traced(graph, lambda node: float(node.id + 1))
    folding = fold(graph, chosen)
    scene = Scene(view_pass(trace, 1), words.Titles(graph), "", {})
    drawn = draw_folded(scene, folding)
    boxes = [box for box in drawn.boxes if box.role not in (Role.SEED, Role.CARRY)]
    assert sum(box.count for box in boxes) == len(graph.nodes)
    flows = [arrow for arrow in drawn.arrows if not arrow.source.startswith("s")]
    inside = len(graph.edges) - sum(len(edge.members) for edge in folding.edges)
    assert sum(arrow.count for arrow in flows) == len(graph.edges) - inside
    squares = sum((edge.source + 1.0) ** 2 for joined in folding.edges for edge in joined.members)
    assert sum(map(together, flows)) == pytest.approx(squares, rel=1e-2)


def together(arrow: Arrow) -> float:
    """The square of the norm of all that flowed over an arrow, as its tooltip says it."""
    said = re.search(r"as one vector ([\d.e+-]+)", arrow.tooltip)
    assert arrow.magnitude is not None
    return float(said.group(1)) ** 2 if said else arrow.magnitude**2


@settings(max_examples=80, deadline=None)
@given(graphs(), st.integers(1, 30))
def test_no_more_boxes_than_the_budget(graph: Graph, budget: int) -> None:
    assert len(fold(graph, View(budget=budget)).boxes) <= budget


@settings(max_examples=80, deadline=None)
@given(graphs(), options())
def test_blocks_laid_on_one_another_are_equal(graph: Graph, chosen: View) -> None:
    for group in fold(graph, chosen).groups:
        assert len(group.blocks) % group.repeat == 0
        assert len({structure(graph, block) for block in group.blocks}) == 1


def structure(graph: Graph, block: tuple[int, ...]) -> tuple[object, ...]:
    """Describe nodes by name and shapes, and edges by place; operands of a sum have no order."""
    place = {node: position for position, node in enumerate(block)}
    nodes = tuple((graph.nodes[node].name, graph.nodes[node].outputs) for node in block)
    edges = sorted(
        (place[edge.source], slot_of(graph, edge), place[edge.target], edge.input_nr)
        for node in block
        for edge in graph.edges_from[node]
        if edge.target in place
    )
    return (*nodes, *edges)


def slot_of(graph: Graph, edge: Edge) -> int:
    return 0 if graph.nodes[edge.source].name in ("AddBackward0", "MulBackward0") else edge.slot


@settings(max_examples=40, deadline=None)
@given(graphs(), options())
def test_folding_twice_gives_the_same(graph: Graph, chosen: View) -> None:
    assert fold(graph, chosen) == fold(graph, chosen)


@settings(max_examples=40, deadline=None)
@given(graphs(), st.integers(1, 12), st.data())
def test_what_is_to_be_expanded_is_open(graph: Graph, budget: int, data: st.DataObject) -> None:
    names = sorted({node.module.path for node in graph.nodes if node.module is not None})
    if names:
        name = data.draw(st.sampled_from(names))
        folding = fold(graph, View(budget=budget, expand=(name,)))
        assert not [g for g in folding.boxes if g.name == name and g.main is None]
