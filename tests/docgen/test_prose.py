"""Prose becomes HTML in which nothing runs and nothing is fetched."""

from __future__ import annotations

import pytest

from tracer.docgen.prose import Heading, Renderer, first_paragraph, plain_text


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("A *leaf* with `x`.", "<p>A <em>leaf</em> with <code>x</code>.</p>\n"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"),
        ("<div onclick=x>", "<p>&lt;div onclick=x&gt;</p>\n"),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>\n"),
        ("[x](https://a.b)", '<p><a href="https://a.b">x</a></p>\n'),
        ("![a picture](https://a.b/c.png)", '<p><a href="https://a.b/c.png">a picture</a></p>\n'),
        ("![](c.png)", '<p><a href="c.png">c.png</a></p>\n'),
        ("线性回归", "<p>线性回归</p>\n"),
    ],
)
def test_markdown_becomes_harmless_html(markdown, html):
    assert Renderer().block(markdown) == html


def test_headings_get_anchors_that_differ():
    renderer = Renderer()
    html = renderer.block("The `x` path\n---\n\n## The x path\n\n### 中文")
    assert html == (
        '<h2 id="the-x-path">The <code>x</code> path</h2>\n'
        '<h2 id="the-x-path-2">The x path</h2>\n'
        '<h3 id="中文">中文</h3>\n'
    )
    assert renderer.headings == [
        Heading(2, "the-x-path", "The x path"),
        Heading(2, "the-x-path-2", "The x path"),
        Heading(3, "中文", "中文"),
    ]


def test_a_title_is_rendered_on_one_line_and_can_be_plain():
    assert Renderer().inline("`no_grad` & <b>") == "<code>no_grad</code> &amp; &lt;b&gt;"
    assert plain_text("`no_grad` & *more*") == "no_grad & more"


def test_the_gist_is_the_first_paragraph():
    assert first_paragraph("## Head\n\nOne\n`two`.\n\nThree.") == "One `two`."
    assert first_paragraph("- a list\n") == ""
