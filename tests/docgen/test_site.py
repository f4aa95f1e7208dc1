"""`build` turns documents into a folder of pages, and says what failed."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from tests.report.html_pages import read_page
from tracer.docgen import BuildFailure, build
from tracer.docgen.site import find_documents
from tracer.errors import ScriptError

EXAMPLES = Path(__file__).parents[2] / "examples"
STEMS = ["01_vector_jacobian", "02_hooks", "03_no_grad", "04_sgd_by_hand"]


def test_each_example_becomes_a_page_and_none_fails(built):
    assert built.failures == ()
    assert [page.name for page in built.pages] == [f"{stem}.html" for stem in STEMS]
    assert built.index.name == "index.html"


def test_progress_is_told_document_by_document_and_block_by_block(told):
    names = [f"{stem}.py" for stem in STEMS]
    documents = [(what, done, total) for what, done, total in told if "block" not in what]
    assert documents == [
        (name, done, 4) for number, name in enumerate(names) for done in (number, number + 1)
    ]
    assert any(re.fullmatch(r"02_hooks.py, block \d of 5", what) for what, _, _ in told)


@pytest.mark.parametrize("stem", [*STEMS, "index"])
def test_a_built_page_is_well_formed_and_leads_only_to_files_that_are_there(built, stem):
    folder = built.index.parent
    page = read_page((folder / f"{stem}.html").read_text("utf-8"))
    files = {unquote(link.partition("#")[0]) for link in page.links} - {""}
    assert [file for file in files if not (folder / file).is_file()] == []
    sections = {unquote(link[1:]) for link in page.links if link.startswith("#")}
    assert sections <= set(page.ids)


@pytest.mark.parametrize(
    ("stem", "pictures", "plots"),
    [(STEMS[0], 1, 0), (STEMS[1], 2, 0), (STEMS[2], 2, 2), (STEMS[3], 2, 1), ("index", 4, 0)],
)
def test_a_built_page_holds_the_pictures_of_its_distinct_graphs(built, stem, pictures, plots):
    page = read_page((built.index.parent / f"{stem}.html").read_text("utf-8"))
    assert page.counts["svg"] == pictures + plots


@pytest.mark.parametrize(
    ("stem", "shown"),
    [
        (STEMS[0], ["1 + 4 = 5", "None → 10", "x1.grad → None: x1 is not a leaf"]),
        (
            STEMS[1],
            ["[1, 1, 2] → [1, 1, 4]", "[1, 1, 4] + [1, 1, 1] → [2, 2, 5]", "1 hook removed"],
        ),
        (STEMS[2], ["no_grad", "outside the graph", "nothing flows back to w", "line 65"]),
        (STEMS[3], ["The last of 200 passes with this graph", "0 + -19800 → -19800", "1 → 20.8"]),
    ],
)
def test_the_takeaways_of_an_example_can_be_read_off_its_page(built, stem, shown):
    text = "".join(read_page((built.index.parent / f"{stem}.html").read_text("utf-8")).text)
    assert [words for words in shown if words not in text] == []


@pytest.mark.parametrize("stem", STEMS)
def test_markdown_pages_refer_to_drawings_that_are_there(built, stem):
    folder = built.index.parent
    text = (folder / f"{stem}.md").read_text("utf-8")
    pictures = re.findall(r"!\[.*\]\(([^()]+\.svg)\)", text)
    assert pictures
    for picture in pictures:
        ElementTree.parse(folder / picture)


def test_a_document_that_fails_has_its_page_and_no_old_drawings_and_is_said(tmp_path):
    document = tmp_path / "wrong.py"
    document.write_text('"""Wrong"""\n\n# %%\nprint(1)\n\n# %%\n1 / 0\n', "utf-8")
    unreadable = tmp_path / "binary.py"
    unreadable.write_bytes(b"\xff\xfe\x00")
    (tmp_path / "out/wrong").mkdir(parents=True)
    (tmp_path / "out/wrong/notes.txt").touch()
    result = build([document, unreadable], tmp_path / "out")
    assert result.failures == (
        BuildFailure(unreadable, 0, f"{unreadable} is not text in UTF-8: save it as UTF-8"),
        BuildFailure(document, 7, "ZeroDivisionError: division by zero", "line 7"),
    )
    assert str(result.failures[1]) == f"{document}:7: ZeroDivisionError: division by zero"
    index = "".join(read_page(result.index.read_text("utf-8")).text)
    assert "ZeroDivisionError: division by zero" in index
    (page,) = result.pages
    assert "ZeroDivisionError in line 7" in "".join(read_page(page.read_text("utf-8")).text)


def test_a_folder_stands_for_its_scripts_in_order_and_each_is_built_once():
    found = find_documents([EXAMPLES, EXAMPLES / "02_hooks.py"])
    assert [path.stem for path in found] == STEMS


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("gone.py", "no such document: "),
        ("empty", "no document in "),
        ("notes.rst", "notes.rst is no document: they end in .py, .md, .markdown, .txt, .ipynb"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(tmp_path, source, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.rst").write_text("notes", "utf-8")
    with pytest.raises(ScriptError) as refused:
        build([tmp_path / source], tmp_path / "out")
    assert said in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_two_documents_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text("x = 1\n", "utf-8")
    with pytest.raises(ScriptError, match=r"would both become same\.html: rename one"):
        build([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
