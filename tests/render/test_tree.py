"""The drawing in lines of text: goldens of the examples, each box and arrow once, at any width."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.builders import branching, hooks, no_grad, perceptron, vector_jacobian
from tracer.records import Outcome, TraceRecord
from tracer.records.diagram import Arrow, Box, Diagram, Flow, Line, LineRole, Role, State, Title
from tracer.records.view import View
from tracer.render.tree import to_tree
from tracer.transforms.diagram import diagram


def drawn(picture: Diagram, width: int = 100, *, color: bool = False) -> str:
    """The drawing as a terminal of that width shows it, without trailing spaces."""
    out = io.StringIO()
    system = "standard" if color else None
    console = Console(file=out, width=width, color_system=system, force_terminal=color)
    console.print(to_tree(picture, width=width))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


@pytest.mark.parametrize(
    ("name", "trace", "pass_id", "view"),
    [
        ("vector_jacobian_tree.txt", vector_jacobian(), 1, View()),
        ("hooks_tree.txt", hooks(), 2, View()),
        ("no_grad_tree.txt", no_grad(2), 1, View()),
        ("perceptron_tree.txt", perceptron(12), 1, View(budget=12)),
        ("perceptron_focus_tree.txt", perceptron(4), 1, View(focus="layers.1.linear", radius=1)),
    ],
)
def test_the_drawings_of_the_examples(
    golden: Callable[[str, str], None], name: str, trace: TraceRecord, pass_id: int, view: View
) -> None:
    golden(name, drawn(diagram(trace, pass_id, view)))


def test_a_shared_node_stands_once_where_the_last_gradient_arrives() -> None:
    text = drawn(diagram(vector_jacobian(), 1))
    assert text.count("● x1 = m1 * m2") == 1
    assert "╰─▶ 4  x1 = m1 * m2 #4 below" in text
    assert text.index("below") < text.index("● x1 = m1 * m2")


def test_what_failed_and_what_was_not_run_can_be_told_without_colour() -> None:
    trace = vector_jacobian()
    events = [event for event in trace.events if event.seq <= 6]
    record = replace(trace.passes[0], outcome=Outcome("ValueError", "no", 2))
    failed = replace(trace, events=replace(trace.events, events=tuple(events)), passes=(record,))
    text = drawn(diagram(failed, 1))
    assert text.splitlines()[1] == "raised ValueError: no"
    assert "◌ x1 = m1 * m2" in text


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for trace in (vector_jacobian(), hooks(), no_grad(2), perceptron(6)):
        text = drawn(diagram(trace, 1), width)
        assert max(map(len, text.splitlines())) <= width


def test_what_a_box_is_goes_below_it_where_both_do_not_fit() -> None:
    narrow = drawn(diagram(hooks(), 1), 60).splitlines()
    hook = next(number for number, line in enumerate(narrow) if "▲" in line)
    assert narrow[hook] == "▲ hook: grad * grad"
    assert narrow[hook + 1].startswith("│   tensor hook on v · added line 5")


def test_colours_say_what_signs_say() -> None:
    text = drawn(diagram(vector_jacobian(), 1), color=True)
    assert "\x1b[32m◆ m1" in text


def test_nothing_in_a_name_reaches_the_terminal_as_an_order() -> None:
    box = Box("a", Role.OPERATION, (Line(LineRole.TITLE, "[bold]x[/] \x1b[2J"),))
    assert "● [bold]x[/] �[2J" in drawn(Diagram(Title("call"), (box,)))


def test_a_wide_graph_is_drawn_whole() -> None:
    text = drawn(diagram(branching(40), 1, View(fold=False)))
    assert text.count("◆ a") == 40


def signs(text: str) -> list[str]:
    """The names of the boxes that stand in a drawing, in order."""
    return re.findall(r"[●◌] (b\d+)", text)


def pointers(text: str) -> list[str]:
    """The names of the boxes that a drawing points to."""
    return re.findall(r"▶ (?:e\d+  )?(b\d+) (?:below|above|further down)", text)


@st.composite
def graphs(draw: st.DrawFn, most: int = 24) -> Diagram:
    """Diagrams of any arrows, forward ones and a few that lead back."""
    count = draw(st.integers(1, most))
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    pairs = draw(st.lists(ends.filter(lambda pair: pair[0] != pair[1]), max_size=3 * count))
    boxes = tuple(
        Box(f"b{n}", Role.OPERATION, (Line(LineRole.TITLE, f"b{n}"),)) for n in range(count)
    )
    arrows = tuple(
        Arrow(f"b{min(pair)}", f"b{max(pair)}", f"e{n}")
        if pair[0] < pair[1] or n % 5
        else Arrow(f"b{pair[0]}", f"b{pair[1]}", f"e{n}", Flow.CARRIED)
        for n, pair in enumerate(pairs)
    )
    return Diagram(Title("call"), boxes, arrows)


@given(graphs())
def test_each_box_stands_once_and_each_arrow_is_told_once(picture: Diagram) -> None:
    text = drawn(picture, 200)
    assert sorted(signs(text)) == sorted(box.id for box in picture.boxes)
    told = re.findall(r"\be\d+\b", text)
    assert sorted(told) == sorted(arrow.text for arrow in picture.arrows)


def test_arrows_in_a_circle_are_drawn_all_the_same() -> None:
    boxes = tuple(Box(f"b{n}", Role.OPERATION, (Line(LineRole.TITLE, f"b{n}"),)) for n in range(3))
    around = tuple(Arrow(f"b{n}", f"b{(n + 1) % 3}", f"e{n}") for n in range(3))
    assert signs(drawn(Diagram(Title("call"), boxes, around))) == ["b0", "b1", "b2"]


def test_branches_within_branches_do_not_run_out_of_the_page() -> None:
    count = 60
    boxes = tuple(
        Box(f"b{n}", Role.OPERATION, (Line(LineRole.TITLE, f"b{n}"),)) for n in range(2 * count)
    )
    arrows = [Arrow(f"b{n}", f"b{n + 1}") for n in range(count - 1)]
    arrows += [Arrow(f"b{n}", f"b{n + count}") for n in range(count)]
    arrows += [Arrow(f"b{n + count}", f"b{n + count - 1}") for n in range(1, count)]
    text = drawn(Diagram(Title("call"), boxes, tuple(arrows)), 80)
    assert sorted(signs(text)) == sorted(box.id for box in boxes)
    assert "further down" in text


def test_a_gradient_of_zero_has_a_broken_line() -> None:
    boxes = tuple(Box(f"b{n}", Role.OPERATION, (Line(LineRole.TITLE, f"b{n}"),)) for n in range(3))
    arrows = (Arrow("b0", "b1", "0", state=State.ZERO), Arrow("b1", "b2", "1"))
    lines = drawn(Diagram(Title("call"), boxes, arrows)).splitlines()[2:]
    assert lines == ["● b0", "╎ 0", "● b1", "╰─▶ 1  ● b2"]
