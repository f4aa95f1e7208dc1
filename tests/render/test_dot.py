"""DOT text of diagrams: golden for the examples, and nothing from a trace is an order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from tests.builders import hooks, no_grad, perceptron, sgd, vector_jacobian
from tracer.records import TraceRecord
from tracer.records.diagram import (
    Arrow,
    Box,
    Diagram,
    Flow,
    Line,
    LineRole,
    Region,
    RegionRole,
    Role,
    State,
    Title,
)
from tracer.render.dot import to_dot
from tracer.render.picture import draw_dot
from tracer.transforms import diagram

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("name", "trace", "pass_id"),
    [
        ("vector_jacobian.dot", vector_jacobian(), 1),
        ("hooks_1.dot", hooks(), 1),
        ("hooks_2.dot", hooks(), 2),
        ("no_grad.dot", no_grad(3), 1),
        ("sgd_2.dot", sgd(3), 2),
        ("perceptron.dot", perceptron(2), 1),
    ],
)
def test_the_pictures_of_the_examples(
    golden: Callable[[str, str], None], name: str, trace: TraceRecord, pass_id: int
) -> None:
    golden(name, to_dot(diagram(trace, pass_id)))


NASTY = (
    '"><script>alert(1)</script>', r"\N \G \l \n \\", "<b>bold</b>", "back\\slash\\", "中文变量",
    "&lt;&amp;&#160;", "<<TABLE>>", "]; evil [label=", "--> }", "a  b", "'", "%s {0} ${x}",
)  # fmt: skip


def nasty_trace(name: str) -> TraceRecord:
    """The first example with a name in every place that a script or a trace file can choose."""
    trace = vector_jacobian()
    graph = trace.graphs[1]
    nodes = list(graph.nodes)
    site = replace(nodes[0].site, expression=name, targets=(), file=name, function=name)
    nodes[0] = replace(nodes[0], site=site, variables=(), name=name, note=name)
    nodes[3] = replace(nodes[3], variables=(name,))
    leaf = replace(trace.leaves[1], name=name)
    record = replace(trace.passes[0], site=replace(site, id=99))
    return replace(
        trace,
        graphs={1: replace(graph, nodes=tuple(nodes))},
        leaves=trace.leaves | {1: leaf},
        passes=(record,),
    )


@pytest.mark.parametrize("name", NASTY)
def test_a_name_comes_out_as_it_is_and_orders_nothing(name: str) -> None:
    plain = ElementTree.fromstring(draw_dot(to_dot(diagram(nasty_trace("plain"), 1)), "svg").data)
    root = ElementTree.fromstring(draw_dot(to_dot(diagram(nasty_trace(name), 1)), "svg").data)
    texts = [(text.text or "").replace("\xa0", " ") for text in root.iter(f"{SVG}text")]
    assert texts.count(name) == 4  # call, operation, its note, leaf
    asked = [(title.text or "").replace("\xa0", " ") for title in root.iter(f"{SVG}title")]
    assert sum(name in tooltip.split("\n") for tooltip in asked) == 2
    assert [element.tag for element in root.iter()] == [element.tag for element in plain.iter()]


def test_newlines_and_controls_in_names_are_made_harmless() -> None:
    data = draw_dot(to_dot(diagram(nasty_trace("a\n  b\x00\x1b[31m\ud800"), 1)), "svg").data
    texts = [text.text for text in ElementTree.fromstring(data).iter(f"{SVG}text")]
    assert texts.count("a b��[31m�") == 4


def drawn(box: Box, *arrows: Arrow) -> str:
    """The DOT of one box and arrows from it to itself."""
    return to_dot(Diagram(Title("f()"), (box,), arrows))


def box(**fields: object) -> Box:
    return Box(
        **{"id": "n0", "role": Role.OPERATION, "lines": (Line(LineRole.TITLE, "x"),)} | fields
    )


@pytest.mark.parametrize(
    ("state", "look"),
    [
        (State.WRONG, 'color="#cf222e"'),
        (State.ZERO, 'style="filled,rounded,dashed"'),
        (State.IDLE, 'style="filled,rounded,dotted"'),
    ],
)
def test_a_state_is_never_told_by_colour_alone(state: State, look: str) -> None:
    text = drawn(box(state=state))
    assert look in text
    assert state is not State.WRONG or "penwidth=2" in text


def test_arrows_widen_with_what_flows_over_them() -> None:
    small, large, huge = (Arrow("n0", "n0", magnitude=size) for size in (1.0, 100.0, 1e9))
    text = drawn(box(), small, large, huge)
    widths = [
        line.partition("penwidth=")[2].split()[0] for line in text.splitlines() if "->" in line
    ]
    assert widths == ["0.8", "1.3", "3.2"]


def test_a_cut_ends_in_a_bar_and_not_in_an_arrowhead() -> None:
    text = drawn(box(), Arrow("n0", "n0", "no gradient", Flow.CUT))
    assert "arrowhead=tee" in text
    assert "style=dashed" in text


def test_what_a_repetition_hands_on_is_dashed() -> None:
    assert "style=dashed" in drawn(box(), Arrow("n0", "n0", "1", Flow.CARRIED))


@pytest.mark.parametrize("role", list(RegionRole))
def test_every_region_has_its_frame(role: RegionRole) -> None:
    region = Region("r", role, "loop", "for x in xs", ("n0",), repeat=200)
    text = to_dot(Diagram(Title("f()"), (box(),), (), (region,)))
    assert "subgraph cluster_r" in text
    assert f"class={role.value}" in text
    assert "<B>loop</B>&#160; for x in xs&#160; ×200" in text


def test_a_folded_box_says_how_often_and_is_drawn_double() -> None:
    text = drawn(box(role=Role.FOLDED, repeat=12))
    assert "<B>x</B> ×12" in text
    assert "peripheries=2" in text


def test_steps_past_ten_are_plain_numbers_everywhere() -> None:
    many = Diagram(Title("f()"), tuple(box(id=f"n{step}", step=step) for step in range(1, 22)))
    assert "#1<" in to_dot(many)
    assert "①" not in to_dot(many)
    assert "①" in drawn(box(step=1))


def test_gradients_flow_the_way_that_was_asked_for() -> None:
    assert "rankdir=LR" in to_dot(Diagram(Title("f()")), direction="LR")
