"""A script becomes a title and blocks of prose and code, each at its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.docgen.blocks import Code, Prose
from tracer.docgen.scripts import parse_script
from tracer.docgen.sources import read_document
from tracer.errors import ScriptError

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGE = Path("page.py")


def shown(path: Path) -> str:
    """A document as the goldens have it: kind, line and text of each block."""
    document = read_document(path)
    parts = [f"title: {document.title}\n"]
    parts += [
        f"--- {type(block).__name__.lower()} at line {block.line}\n{block.text}\n"
        for block in document.blocks
    ]
    return "".join(parts)


@pytest.mark.parametrize("name", ["01_vector_jacobian", "03_no_grad"])
def test_an_example_splits_into_its_cells(name, golden):
    golden(f"{name}.blocks.txt", shown(EXAMPLES / f"{name}.py"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_code_block_stands_at_the_line_it_names(path):
    lines = path.read_text("utf-8").split("\n")
    for block in read_document(path).code:
        code = block.text.split("\n")
        assert lines[block.line - 1 : block.line - 1 + len(code)] == code


def test_code_before_the_first_cell_is_a_block():
    document = parse_script(PAGE, "import torch\n\n# %%\n# Prose.\n\nx = 1\n")
    assert document.blocks == (Code("import torch", 1), Prose("Prose.", 4), Code("x = 1", 6))


def test_a_document_without_docstring_is_called_like_its_file():
    assert parse_script(PAGE, "x = 1\n").title == "page"


@pytest.mark.parametrize(
    ("docstring", "title", "prose"),
    [
        ('"""Title"""', "Title", ()),
        ('"""Title\n\nText."""', "Title", (Prose("Text.", 3),)),
        ('"""\nTitle\n=====\n\nText.\n"""', "Title", (Prose("Text.", 5),)),
        ('"""\n=====\nTitle\n=====\n"""', "Title", ()),
        ('"""# Title\n\nText.\n\nMore.\n"""', "Title", (Prose("Text.\n\nMore.", 3),)),
        ('r"""Title with \\alpha"""', "Title with \\alpha", ()),
        ('# -*- coding: utf-8 -*-\n\n"""标题"""', "标题", ()),
    ],
)
def test_the_docstring_gives_title_and_prose(docstring, title, prose):
    document = parse_script(PAGE, docstring + "\n")
    assert (document.title, document.blocks) == (title, prose)


@pytest.mark.parametrize(
    "marker", ["# %%", "#%%", "# %% [markdown]", "#" * 20, "#" * 79], ids=lambda marker: marker[:16]
)
def test_a_cell_begins_at_each_kind_of_marker(marker):
    document = parse_script(PAGE, f"a = 1\n{marker}\n# Prose.\nb = 2\n")
    assert document.blocks == (Code("a = 1", 1), Prose("Prose.", 3), Code("b = 2", 4))


def test_a_title_on_the_marker_is_a_heading():
    document = parse_script(PAGE, "# %% Three leaves\n# Prose.\nx = 1\n")
    assert document.blocks == (Prose("## Three leaves\n\nProse.", 1), Code("x = 1", 3))


def test_comments_below_the_code_stay_with_the_code():
    document = parse_script(PAGE, "# %%\n# Prose.\n\nx = 1\n# a remark\ny = 2\n")
    assert document.blocks == (Prose("Prose.", 2), Code("x = 1\n# a remark\ny = 2", 4))


def test_a_comment_that_stands_alone_is_no_code():
    document = parse_script(PAGE, "x = 1\n# %%\n# Prose.\n\n# a last remark\n")
    assert document.blocks == (Code("x = 1", 1), Prose("Prose.", 3))


def test_a_marker_within_a_string_begins_nothing():
    text = 'x = """\n# %%\n# not prose\n"""\ny = 1'
    assert parse_script(PAGE, text + "\n").blocks == (Code(text, 1),)


def test_cells_are_found_below_a_string_that_never_ends():
    document = parse_script(PAGE, 'a = 1\n# %%\nb = """never\n# %%\n# Prose.\nc = 3\n')
    assert document.blocks == (
        Code("a = 1", 1), Code('b = """never', 3), Prose("Prose.", 5), Code("c = 3", 6),
    )  # fmt: skip


def test_cells_are_found_in_a_script_that_is_no_python():
    document = parse_script(PAGE, "def f(:\n# %%\nx = 'broken\n# %%\ny = 1\n")
    assert document.blocks == (Code("def f(:", 1), Code("x = 'broken", 3), Code("y = 1", 5))


def test_a_form_feed_does_not_shift_the_lines():
    document = parse_script(PAGE, "a = 1\n\x0c\n# %%\n# Prose.\nb = 2\n")
    assert document.blocks == (Code("a = 1", 1), Prose("Prose.", 4), Code("b = 2", 5))


def test_an_empty_script_is_a_page_without_blocks():
    assert parse_script(PAGE, "").blocks == ()


def test_a_script_may_declare_its_encoding(tmp_path):
    path = tmp_path / "old.py"
    path.write_bytes("# coding: latin-1\n# %%\n# Süß.\n".encode("latin-1"))
    assert read_document(path).blocks == (Prose("Süß.", 3),)


def test_what_is_no_text_is_refused_in_one_line(tmp_path):
    path = tmp_path / "binary.py"
    path.write_bytes(b"x = '\xff\xfe'\n")
    with pytest.raises(ScriptError, match=r"binary\.py is not text in UTF-8: save it as UTF-8"):
        read_document(path)


def test_a_missing_document_is_refused_in_one_line(tmp_path):
    with pytest.raises(ScriptError, match=r"gone\.py cannot be read: No such file"):
        read_document(tmp_path / "gone.py")
