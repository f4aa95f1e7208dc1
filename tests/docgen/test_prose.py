"""Prose becomes HTML in which nothing runs and nothing is fetched."""

from __future__ import annotations

import pytest

from tracer.docgen.prose import (
    Heading,
    Links,
    Renderer,
    first_paragraph,
    plain_text,
    without_html,
)


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("A *leaf* with `x`.", "<p>A <em>leaf</em> with <code>x</code>.</p>\n"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"),
        ("<div onclick=x>", "<p>&lt;div onclick=x&gt;</p>\n"),
        ("<!-- a comment -->", ""),
        ("a <!-- comment -->", "<p>a </p>\n"),
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


def test_raw_html_acts_where_the_author_lets_it():
    assert Renderer(raw_html=True).block("<b>x</b>") == "<p><b>x</b></p>\n"


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("a <b>x</b> `<i>` <https://a.b>", "a &lt;b>x&lt;/b> `<i>` <https://a.b>"),
        ("<!-- c --><script>x</script>-->\nx", "&lt;script>x&lt;/script>-->\nx"),
        ("<!-- gone -->\n\nx", "\n\nx"),
        ("- a\n\n  <img src=x>\n", "- a\n\n  &lt;img src=x>\n"),
        ("```html\n<b>\n```", "```html\n<b>\n```"),
    ],
)
def test_a_page_in_markdown_holds_no_raw_html(markdown, text):
    assert without_html(markdown) == text


def test_links_lead_to_the_pages_of_documents_and_to_files_from_where_the_page_lies(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("one.md", "two.md", "data.csv"):
        (tmp_path / "docs" / name).touch()
    stems = {(tmp_path / "docs" / "two.md").resolve(): "two"}
    links = Links(tmp_path / "docs", tmp_path / "out", stems)
    (tmp_path / "out").mkdir()
    wanted = {
        "two.md": "two.html", "two.md#part": "two.html#part", "data.csv": "../docs/data.csv",
        "gone.md": "gone.md", "#here": "#here", "https://a.b/two.md": "https://a.b/two.md",
    }  # fmt: skip
    assert {href: links.lead(href, ".html") for href in wanted} == wanted
    html = Renderer(links).block("[x](two.md#part)")
    assert html == '<p><a href="two.html#part">x</a></p>\n'
    text = "[x](two.md) `[x](two.md)`\n\n```\n[x](two.md)\n```\n\n[y](two.md)"
    assert links.in_text(text).split("\n")[2:] == ["```", "[x](two.md)", "```", "", "[y](two.md)"]


def test_a_picture_on_this_machine_is_put_into_the_page(tmp_path):
    (tmp_path / "dot.png").write_bytes(b"PNG")
    html = Renderer(Links(tmp_path, tmp_path)).block("![dot](dot.png)")
    assert html == '<p><img src="data:image/png;base64,UE5H" alt="dot" /></p>\n'


def test_code_in_prose_is_coloured_and_escaped():
    html = Renderer().block("```bash\necho '<b>'\n```\n\n```nothing\n<i>\n```")
    assert "&lt;b&gt;" in html
    assert '<pre class="code"><code>&lt;i&gt;</code></pre>' in html
