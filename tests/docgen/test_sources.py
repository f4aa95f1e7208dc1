"""Markdown, text and notebooks become titles and blocks, as scripts do, each at its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tracer.docgen.blocks import Code, Prose
from tracer.docgen.fences import parse_markdown
from tracer.docgen.marks import Marks
from tracer.docgen.notebooks import parse_notebook, plain_python
from tracer.docgen.plain import looks_like_python, parse_plain
from tracer.docgen.scripts import parse_script
from tracer.docgen.sources import read_document
from tracer.errors import ScriptError

PAGE = Path("page.md")
DOCUMENTS = Path(__file__).parent / "documents"


# ---- Markdown


def test_fenced_python_runs_and_other_fences_are_prose():
    text = "# Title\n\nProse.\n\n```python\nx = 1\n```\n\n```bash\nls\n```\n\n~~~py\ny = 2\n~~~\n"
    document = parse_markdown(PAGE, text)
    assert document.title == "Title"
    assert document.blocks == (
        Prose("Prose.", 3), Code("x = 1", 6), Prose("```bash\nls\n```", 9), Code("y = 2", 14),
    )  # fmt: skip


def test_marks_stand_behind_the_language_or_in_a_comment_above():
    text = (
        "```python tracer setup\nx\n```\n\n<!-- tracer skip -->\n```python\ny\n```\n\n"
        "<!-- tracer -->\n\n```\nz\n```\n\n<!-- other -->\n```python\nw\n```\n"
    )
    assert parse_markdown(PAGE, text).blocks == (
        Code("x", 2, Marks(setup=True)), Code("y", 7, Marks(skip=True)), Code("z", 13),
        Prose("<!-- other -->", 16), Code("w", 18),
    )  # fmt: skip


def test_front_matter_gives_the_title_where_no_heading_does():
    document = parse_markdown(PAGE, '---\ntitle: "Given"\ndate: 1\n---\n\n```python\nx\n```\n')
    assert (document.title, document.blocks) == ("Given", (Code("x", 7),))
    assert parse_markdown(PAGE, "---\ntitle: Given\n---\n# Own\n").title == "Own"
    assert parse_markdown(PAGE, "Text.\n\n# Later\n").title == "page"


def test_a_fence_in_a_list_is_taken_out_of_it():
    text = "1. First\n\n   ```python\n   if x:\n       y\n   ```\n\n   goes on\n\n2. Second\n"
    assert parse_markdown(PAGE, text).blocks == (
        Prose("1. First", 1), Code("if x:\n    y", 4), Prose("goes on\n\n2. Second", 8),
    )  # fmt: skip


def test_a_quoted_or_longer_fence_is_prose():
    text = "> ```python\n> x\n> ```\n\n````markdown\n```python\nx\n```\n````\n"
    assert parse_markdown(PAGE, text).code == ()


def test_prompts_are_taken_off_and_what_they_printed_too():
    document = parse_markdown(PAGE, "```python\n>>> if x:\n...     y\n1\n>>> z\n```\n")
    assert document.code == (Code("if x:\n    y\n\nz", 2, echo="each"),)


# ---- scripts


def test_a_remark_marks_the_code_of_a_cell():
    text = "# tracer: setup\nimport torch\n# %% Title\n# Prose.\n# tracer: fresh\n\nx = 1\n"
    assert parse_script(Path("page.py"), text).blocks == (
        Code("import torch", 2, Marks(setup=True)),
        Prose("## Title\n\nProse.", 3),
        Code("x = 1", 7, Marks(fresh=True)),
    )


# ---- plain text


def test_code_pasted_into_text_is_found_by_its_looks():
    document = read_document(DOCUMENTS / "pasted.txt")
    assert document.title == "从零开始求导"
    assert [(type(block).__name__, block.line) for block in document.blocks] == [
        ("Prose", 3), ("Code", 4), ("Prose", 7), ("Code", 8), ("Prose", 14), ("Code", 16),
        ("Prose", 18), ("Code", 20), ("Prose", 23),
    ]  # fmt: skip
    assert [block.text for block in document.code] == [
        "import torch\nfrom torch import nn",
        "x = torch.ones(3, requires_grad=True)\n\n"
        "for i in range(2):\n    y = (x\n        * 2).sum()",
        "y.backward()",
        'print("begins here\nand ends here")',
    ]
    assert document.code[2].echo == "each"
    assert document.blocks[4] == Prose("for example\\_: the rest is prose \\*as it stands\\*:", 14)


def test_fences_in_text_say_what_is_code():
    document = parse_plain(Path("page.txt"), "import this is prose\n\n```python\nx = 1\n```\n")
    assert document.blocks == (Prose("import this is prose", 1), Code("x = 1", 4))


@pytest.mark.parametrize(
    ("line", "is_code"),
    [
        ("import torch", True), ("from a.b import c", True), ("import the parts first", False),
        ("x1 = m1 * m2", True), ("a, b = 1, 2", True), ("w.grad[0] += 1", True),
        ("loss.backward()", True), ("print(x", True), ("def f(x):", True), ("class A:", True),
        ("for x in y:", True), ("for example:", False), ("if you like, go on:", False),
        ("with torch.no_grad():", True), ("else:", True), ("首先", False), ("Hello (all)", False),
        ("return to sender", False), ("y is equal to x", False), ("x == y", False),
    ],
)  # fmt: skip
def test_a_line_looks_like_python_or_like_prose(line, is_code):
    assert looks_like_python(line) is is_code


# ---- notebooks


def notebook(*cells: tuple[str, str, list[str]], language: str = "python") -> str:
    made = [
        {
            "cell_type": kind, "id": f"c{number}", "metadata": {"tags": tags}, "source": source,
            **({"outputs": [], "execution_count": None} if kind == "code" else {}),
        }
        for number, (kind, source, tags) in enumerate(cells)
    ]  # fmt: skip
    metadata = {"language_info": {"name": language}}
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def test_cells_of_a_notebook_are_blocks_whose_lines_count_on():
    pytest.importorskip("nbformat", reason="notebooks need the extra `notebook`")
    text = notebook(
        ("markdown", "# Title\n\nProse.\n\n```python\nnot.run()\n```", []),
        ("code", "x = 1\nx", []),
        ("code", "%matplotlib inline\ny = 2", []),
        ("code", "%%bash\nls", []),
        ("code", "%%tracer graph\nz = 3", ["raises-exception"]),
    )
    document = parse_notebook(Path("page.ipynb"), text)
    assert document.title == "Title"
    assert document.blocks == (
        Prose("Prose.\n\n```python\nnot.run()\n```", 1),
        Code("x = 1\nx", 1, echo="last", python="x = 1\nx"),
        Code(
            "%matplotlib inline\ny = 2", 4, echo="last",
            python="pass  # %matplotlib inline\ny = 2",
        ),
        Prose("~~~~~~\n%%bash\nls\n~~~~~~", 7),
        Code(
            "z = 3", 11, Marks(expect="*", show=("graph",)), echo="last", python="z = 3",
        ),
    )  # fmt: skip
    assert document.place(5) == "cell 3, line 2"
    assert document.place(11) == "cell 5, line 2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "page.ipynb is no notebook: "),
        (notebook(language="julia"), "page.ipynb is a notebook in julia, not in Python"),
    ],
)
def test_what_is_no_python_notebook_is_refused_in_one_line(text, said):
    pytest.importorskip("nbformat", reason="notebooks need the extra `notebook`")
    with pytest.raises(ScriptError) as refused:
        parse_notebook(Path("page.ipynb"), text)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_lines_that_only_ipython_understands_do_nothing():
    assert plain_python("if x:\n    !ls\nhelp?\ny % 2") == (
        "if x:\n    pass  # !ls\npass  # help?\ny % 2"
    )
