"""A drawing in a page runs nothing, fetches nothing and leaves the rest of the page alone."""

from __future__ import annotations

import pytest

from tracer.errors import RenderError
from tracer.report.drawing import embed_svg

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"{}>{}</svg>'
)


def embedded(content: str, attributes: str = "") -> str:
    """What becomes of the content of a drawing called `p`."""
    element = embed_svg(SVG.format(attributes, content), "p", "a < b")
    head, _, rest = element.partition(">")
    assert head.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert 'role="img"' in head
    assert 'aria-label="a &lt; b"' in head
    return rest.removesuffix("</svg>") if rest else ""


@pytest.mark.parametrize(
    "harm",
    [
        "<script>alert(1)</script>",
        "<foreignObject><b xmlns='http://www.w3.org/1999/xhtml'>b</b></foreignObject>",
        '<image xlink:href="http://a.b/c.png"/>',
        '<use href="http://a.b/c.svg#d"/>',
        '<animate attributeName="href" values="javascript:alert(1)"/>',
        '<x:script xmlns:x="http://a.b">alert(1)</x:script>',
        "<!-- a comment --><?a command?>",
    ],
)
def test_what_runs_or_fetches_is_left_out(harm):
    assert embedded(f"<g>{harm}</g>") == "<g />"


@pytest.mark.parametrize(
    "attribute",
    [
        'onclick="alert(1)"',
        'href="http://a.b"',
        'xlink:href="http://a.b"',
        'fill="url(http://a.b#c)"',
        'style="background: url(//a.b)"',
        'x:onload="1" xmlns:x="http://a.b"',
    ],
)
def test_attributes_that_lead_outside_are_left_out(attribute):
    assert embedded(f'<path d="M0 0" {attribute}/>') == '<path d="M0 0" />'


def test_a_link_becomes_a_plain_group_that_keeps_its_tooltip():
    link = '<a xlink:href="javascript:alert(1)" xlink:title="t"><title>t</title><text>b</text></a>'
    assert embedded(link) == "<g><title>t</title><text>b</text></g>"


def test_ids_carry_the_name_of_the_drawing_and_references_follow():
    content = '<g id="node1"><path fill="url(#shade)" /></g>'
    assert embedded(content) == '<g id="p-node1"><path fill="url(#p-shade)" /></g>'


def test_a_style_sheet_that_fetches_is_emptied_and_another_stays():
    assert embedded("<style>@import 'http://a.b';</style>") == "<style />"
    assert embedded("<style>.a{fill:red}</style>") == "<style>.a{fill:red}</style>"


def test_text_stays_text():
    assert embedded("<text>&lt;b&gt; 中文</text>") == "<text>&lt;b&gt; 中文</text>"


@pytest.mark.parametrize("broken", ["", "<svg", "<html/>", "<svg/>"])
def test_what_is_no_svg_is_refused(broken):
    with pytest.raises(RenderError, match="the drawing is not"):
        embed_svg(broken, "p", "")
