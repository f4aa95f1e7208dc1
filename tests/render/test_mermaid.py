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
from tracer.records.view import View
from tracer.render import theme
from tracer.render.mermaid import to_mermaid, too_large
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


def test_what_mermaid_would_refuse_is_said_with_what_to_do() -> None:
    link, look = '    n1 -->|"a --> b"| n2\n', "    class n1 operation\n"
    assert too_large("flowchart TD\n" + 500 * link + 100 * look) == ""
    assert too_large(501 * link).startswith(
        "Mermaid draws 500 links and 50,000 characters by default, and this has 501 and 12,525: "
        "fold it (no --no-fold, a smaller --budget)"
    )
    assert "and this has 0 and 50,001:" in too_large(50_001 * "n")
    assert "and this has 0 and 50,002:" in too_large(25_001 * "\U0001d6c1")


def test_the_links_of_a_picture_are_counted_as_mermaid_counts_them() -> None:
    picture = diagram(traced(graphs.chain(600)), 1, View(fold=False))
    links = re.search(r"this has ([\d,]+) and", too_large(to_mermaid(picture)))
    assert links is not None
    assert (
        int(links[1].replace(",", "")) == len(picture.arrows) + 1
    )  # and what holds the title above


def hostile(text: str) -> Diagram:
    """Put a text wherever a diagram has room for one."""
    lines = (Line(LineRole.TITLE, text), Line(LineRole.ALARM, text), Line(LineRole.NOTE, text))
    box = Box("n0", Role.OPERATION, lines, tooltip=text, link=text)
    region = Region("m", RegionRole.MODULE, text, text, ("n0",))
    title, arrow = Title(text, (text,), text), Arrow("n0", "n0", text)
    return Diagram(title, (box,), (arrow,), (region,), notes=(text,))


@given(st.text(max_size=40))
def test_no_text_changes_what_the_statements_are(text: str) -> None:
    start, _, rest = to_mermaid(hostile(text)).partition("\nflowchart TD\n")
    assert start == "---\nconfig: {flowchart: {wrappingWidth: 900}}\n---"
    head, bare, region, framed, end, arrow, *looks = rest.rstrip("\n").split("\n")
    assert re.fullmatch(r'    head\["<b>.*</b>.*"\]', head)
    assert bare.startswith("    style head fill:transparent")
    assert re.fullmatch(r'    subgraph r_m\[".*"\]', region)
    assert re.fullmatch(f"    {BOX}", framed)
    assert end == "    end"
    assert re.fullmatch(ARROW, arrow)
    assert [look.split()[:2] for look in looks] == [
        ["classDef", "operation"], ["class", "n0"], ["classDef", "in_module"], ["class", "r_m"]
    ]  # fmt: skip
    for statement in (head, region, framed, arrow):
        quoted = re.findall('"[^"]*"', statement)
        inside = re.sub(r"</?b>|<br/>|#\d+;", "", "".join(quoted).replace('"', ""))
        assert not set(inside) & set("<>&`#;|\\%{}@$\n")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (r"C:\temp\new", f"C:#92;temp#92;#{0x200B};new"),
        ("$$x$$", f"#36;#{0x200B};#36;x#36;#{0x200B};#36;"),
        ("fa:fa-car fab:fa-x sofa:fa-car", f"fa:#{0x200B};fa-car fab:#{0x200B};fa-x sofa:fa-car"),
        ("%%{init: {'theme': 'dark'}}%%",
         "#37;#37;#123;init: #123;'theme': 'dark'#125;#125;#37;#37;"),
        ("a > b", "a #62; b"),
    ],
)  # fmt: skip
def test_what_mermaid_reads_after_its_numbers_is_kept_from_it(text: str, written: str) -> None:
    """Each of these was seen to come out as something else in mermaid 11, in a browser."""
    assert to_mermaid(hostile(text)).count(f'"{written}"') == 1  # the arrow's


def test_shades_have_a_legend_and_notes_are_shown() -> None:
    drawn = diagram(traced(graphs.transformer(12)), 1, View(color="module"))
    text = to_mermaid(drawn)
    assert drawn.legend is not None
    for shade in drawn.legend.shades:
        assert f'legend{shade.number}["{shade.text}"]' in text
        assert f"    classDef shade{shade.number} fill:{theme.KINDS[shade.number]}" in text
    assert "493 nodes folded into 22 boxes#59; ×12 stands for 12 alike" in text
    assert "    head ~~~ legend\n    legend ~~~ s0\n" in text


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
