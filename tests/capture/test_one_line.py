"""Source of any shape, put on one line."""

from __future__ import annotations

import ast

import pytest

from tracer.capture.one_line import LONGEST, one_line, shorten


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("a  +   b", "a + b"),
        ("f( x )", "f( x )"),
        ("f(\n    x,\n    y,\n)", "f(x, y)"),
        ("f(\n    x,\n)", "f(x)"),
        ("(\n    x,\n)", "(x,)"),
        ("[\n  1,  # one, two\n  2,\n]", "[1, 2]"),
        ("{\n  'a': f(\n    1,\n  ),\n  'b': 2,\n}", "{'a': f(1), 'b': 2}"),
        ("f('a  #b', \"c  d\")  # e", "f('a  #b', \"c  d\")"),
        ("f('it\\'s  # here')  # e", "f('it\\'s  # here')"),
        ('x = """a\n   b"""', 'x = """a b"""'),
        ("x \\\n  + 1", "x + 1"),
        ("(a\n.b()\n  # then\n.c())", "(a.b().c())"),
        ("if a:\n\tb", "if a: b"),
    ],
)
def test_source_is_put_on_one_line_as_its_author_would(source: str, line: str) -> None:
    assert one_line(source) == line


@pytest.mark.parametrize("source", ["f(\n 1,\n 2,\n)", "(\n 1,\n)", "x[\n 1,\n 2,\n]", "[\n 1,\n]"])
def test_one_line_means_the_same(source: str) -> None:
    assert ast.dump(ast.parse(one_line(source))) == ast.dump(ast.parse(source))


def test_a_text_is_shortened_only_where_it_is_too_long() -> None:
    assert shorten("x" * LONGEST) == "x" * LONGEST
    assert shorten("x" * (LONGEST + 1)) == "x" * 58 + " … " + "x" * 58
