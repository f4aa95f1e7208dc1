"""What repetitions hand to one another stands at their end, and no arrow leads back up the page."""

from __future__ import annotations

import pytest

from tests.transforms import graphs
from tests.transforms.graphs import traced
from tracer.records.diagram import Arrow, Box, Diagram, Flow, LineRole, Region, Role
from tracer.records.graph import Graph
from tracer.records.view import View
from tracer.transforms import diagram
from tracer.transforms.order import sorted_by_links


def lstm() -> Diagram:
    return diagram(traced(graphs.lstm(100), lambda node: float(node.call)), 1)


def ways(drawn: Diagram) -> list[Box]:
    return [box for box in drawn.boxes if box.role is Role.CARRY]


def all_regions(drawn: Diagram) -> list[Region]:
    found = list(drawn.regions)
    for region in found:  # grows as it is read
        found += region.regions
    return found


def test_each_box_that_the_next_one_goes_on_at_is_named_once() -> None:
    assert [way.lines[0].text for way in ways(lstm())] == [
        "↻ next of 100: Add · loss = loss + h.pow(2).sum()",
        "↻ next of 100: Add · c = f.sigmoid() * c …() * g.tanh()",
        "↻ next of 100: Mul · h = o.sigmoid() * c.tanh()",
    ]


def test_the_way_on_stands_in_the_innermost_frame_around_both_ends() -> None:
    drawn = lstm()
    (loop,) = [region for region in all_regions(drawn) if region.repeat == 100]
    assert [way.id in loop.boxes for way in ways(drawn)] == [True, False, False]
    (step,) = [region for region in loop.regions if region.title == "step()"]
    assert {"c1", "c2"} <= set(step.boxes)


def test_what_arrives_from_the_one_before_is_said_where_it_arrives() -> None:
    said = [
        line.text
        for box in lstm().boxes
        for line in box.lines
        if line.role is LineRole.NOTE and line.text.startswith("↻")
    ]
    assert said == ["↻ ‖g‖ 2 … 100 from the one before"] * 3


def test_an_arrow_to_the_next_says_what_is_handed_on() -> None:
    drawn = lstm()
    carried = [arrow for arrow in drawn.arrows if arrow.flow is Flow.CARRIED]
    assert {arrow.target for arrow in carried} == {way.id for way in ways(drawn)}
    assert all(arrow.count == 99 for arrow in carried)


def leads_down(boxes: tuple[Box, ...], arrows: tuple[Arrow, ...]) -> bool:
    number = {box.id: place for place, box in enumerate(boxes)}
    links: list[list[int]] = [[] for _ in boxes]
    for arrow in arrows:
        links[number[arrow.source]].append(number[arrow.target])
    return len(sorted_by_links(links, range(len(boxes)))) == len(boxes)


@pytest.mark.parametrize("budget", [4, 12, 30, 60])
@pytest.mark.parametrize(
    "graph", [graphs.lstm(50), graphs.transformer(6), graphs.recurrent_module(20), graphs.wide(80)]
)
def test_no_arrow_leads_back_up(graph: Graph, budget: int) -> None:
    drawn = diagram(traced(graph), 1, View(budget=budget))
    assert leads_down(drawn.boxes, drawn.arrows)
