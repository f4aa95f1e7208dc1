"""Mermaid text of diagrams: golden for an example, and nothing from a trace is markup in it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import vector_jacobian
from tests.transforms import graphs
from tests.transforms.graphs import traced
from tracer.records.diagram import Arrow, Box, Diagram, Flow, Line, LineRole, Role, State, Title
from tracer.render.mermaid import to_mermaid
from tracer.transforms import diagram

BOX = r'    \w+[(\[]+"<b>.*</b>.*"[)\]]+'
ARROW = r'    \w+ (-->|-\.->|==>)(\|".*"\|)? \w+'


def test_the_picture_of_an_example(golden: Callable[[str, str], None]) -> None:
    golden("vector_jacobian.mmd", to_mermaid(diagram(vector_jacobian(), 1)))


def test_folded_modules_are_subgraphs() -> None:
    text = to_mermaid(diagram(traced(graphs.transformer(12)), 1), direction="LR")
    assert "\nflowchart LR\n" in text
    assert 'subgraph r_g7["h.0–11 Block ×12"]' in text
    assert text.count("subgraph") == len(re.findall(r"(?m)^ *end$", text))


def hostile(text: str) -> Diagram:
    """Put a text wherever a diagram has room for one."""
    lines = (Line(LineRole.TITLE, text), Line(LineRole.ALARM, text), Line(LineRole.NOTE, text))
    box = Box("n0", Role.OPERATION, lines, tooltip=text, link=text)
    return Diagram(Title(text, (text,), text), (box,), (Arrow("n0", "n0", text),), notes=(text,))


@given(st.text(max_size=40))
def test_no_text_changes_what_the_statements_are(text: str) -> None:
    head, start, rest = to_mermaid(hostile(text)).partition("\nflowchart TD\n")
    assert start
    assert head.startswith("---\ntitle: '")
    statements = [line for line in rest.rstrip("\n").split("\n") if not line.startswith("    %%")]
    box, arrow, look, named = statements
    assert re.fullmatch(BOX, box)
    assert re.fullmatch(ARROW, arrow)
    assert look.startswith("    classDef operation ")
    assert named == "    class n0 operation"
    inside = re.sub(r"</?b>|<br/>|#\d+;", "", box.partition('"')[2].rpartition('"')[0])
    assert not set(inside) & set('"<>&`#;|\\\n')


@pytest.mark.parametrize(
    ("arrow", "line"),
    [
        (Arrow("a", "b"), "a --> b"),
        (Arrow("a", "b", "0", state=State.ZERO), 'a -.->|"0"| b'),
        (Arrow("a", "b", "1 NaN of 3", state=State.WRONG), 'a ==>|"1 NaN of 3"| b'),
        (Arrow("a", "b", flow=Flow.CUT), "a -.-> b"),
    ],
)
def test_what_an_arrow_means_is_told_by_its_line(arrow: Arrow, line: str) -> None:
    assert f"    {line}\n" in to_mermaid(Diagram(Title("f()"), (), (arrow,)))
