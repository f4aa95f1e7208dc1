"""A page shows prose, code, output and what was recorded, and lets none of it act."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import builders
from tests.report.html_pages import read_page
from tracer.docgen.job import Failure, Output
from tracer.docgen.marks import Marks, parse_marks
from tracer.docgen.page import CodeStep, Mistake, Page, ProseStep
from tracer.docgen.scrape import Scraped
from tracer.docgen.writing import Place, fenced, squeezed, to_html, to_markdown
from tracer.report.figures import Drawing, Figure
from tracer.report.ledger import read_ledgers
from tracer.report.plots import plot_leaves
from tracer.report.story import Chapter

EVIL = "</pre></style><script>alert(1)</script><img src=x onerror=alert(1)>&amp;```"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><g id="graph0"/></svg>'
PLACE = Place("page", (("first", "The `first`"), ("page", "A *page*"), ("last", "Last")))


def drawing(number: int, which: str = "") -> Drawing:
    return Drawing(number, SVG, f"pass {number}: [1, 1] → <2>", which)


def page() -> Page:
    """A page with one of everything."""
    sgd = builders.sgd(5)
    first = Scraped(
        figures=(Figure(1, (1, 2), (drawing(1, "The first of 2 passes"), drawing(2))),),
        story=(Chapter("hook added\npass 1"),), said="2 passes, 10 events", brief=True,
    )  # fmt: skip
    second = Scraped(
        plots=plot_leaves(sgd),
        ledgers=read_ledgers(sgd),
        story=(Chapter("pass 1"), Chapter("pass 5", "3 passes left out")),
        said="5 passes",
    )
    failure = Failure("NameError", "name 'x' is not defined", 12, "Traceback\nNameError: x\n")
    expected = Failure("ZeroDivisionError", "division by zero", 13, "Traceback\nby zero\n")
    return Page(
        "page", "page.py", "A *page*",
        (
            ProseStep("Prose with `code`.\n\n## A section"),
            CodeStep("import torch", 3),
            CodeStep("hidden()", 5, 2, Marks(setup=True)),
            CodeStep(
                "v.backward()", 7, 3, outputs=(Output("stdout", "[1, 1, 4]"),), scraped=first
            ),
            ProseStep("More."),
            CodeStep(
                "x", 12, 4, Marks(name="named"), (Output("stderr", "warned"),), failure, second,
                note="Those below ran again.",
            ),
            CodeStep("1 / 0", 13, 5, Marks(expect="*"), failure=expected),
            CodeStep("never()", 14, 6, Marks(skip=True), ran=False),
            CodeStep("last()", 15, 7, ran=False),
        ),
        mistakes=(Mistake("line 12", 12, "NameError: name 'x' is | not defined", 4),),
        left_out=("The recording left out 3: too large.",),
    )  # fmt: skip


def evil_page() -> Page:
    """A page in which every piece of text from the document tries to act."""
    failure = Failure(EVIL, EVIL, 1, EVIL)
    scraped = Scraped(
        figures=(Figure(1, (1,), (Drawing(1, SVG, EVIL, EVIL), Drawing(2, "", EVIL, "", EVIL))),),
        story=(Chapter(EVIL, EVIL),), said=EVIL,
    )  # fmt: skip
    outputs = (Output("stdout", EVIL), Output("stderr", EVIL))
    code = CodeStep(EVIL, 1, outputs=outputs, failure=failure, scraped=scraped, note=EVIL)
    mistakes = (Mistake(EVIL, 1, EVIL, 1),)
    return Page("page", EVIL, EVIL, (ProseStep(EVIL), code), mistakes, left_out=(EVIL,))


def test_a_page_as_markdown(golden):
    golden("page.md", to_markdown(page(), PLACE))


def test_a_page_as_html_is_well_formed_and_shows_everything():
    html = read_page(to_html(page(), PLACE))
    text = "".join(html.text)
    for shown in (
        "Prose with code.", "import torch", "[1, 1, 4]", "warned", "NameError in line 12",
        "The first of 2 passes", "2 passes, 10 events", "3 passes left out", "Ledger of b",
        "Not run: the document had ended before.", "What failed", "Those below ran again.",
        "ZeroDivisionError in line 13", "never()", "The recording left out 3: too large.",
    ):  # fmt: skip
        assert shown in text
    assert "hidden()" not in text
    assert html.counts["svg"] == 3


def test_a_page_leads_to_its_sections_and_to_the_other_pages():
    html = read_page(to_html(page(), PLACE))
    assert html.links == [
        "index.html", "first.html", "page.html", "#a-section", "last.html", "#block-4",
        "first.html", "last.html",
    ]  # fmt: skip
    assert {"a-section", "block-4"} <= set(html.ids)


def test_lines_of_code_carry_the_numbers_of_the_document():
    assert '<span class="linenos">12</span><span class="n">x</span>' in to_html(page(), PLACE)


def test_nothing_in_a_document_acts_in_its_page():
    place = Place("page", (("page", EVIL), (EVIL, EVIL)))
    html = read_page(to_html(evil_page(), place))
    assert "".join(html.text).count("<script>alert(1)</script>") >= 12


def test_a_page_has_a_policy_that_allows_nothing_to_be_fetched():
    html = to_html(page(), PLACE)
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in html


def test_text_in_markdown_cannot_end_its_fence():
    text = to_markdown(evil_page(), PLACE)
    assert f"````text\n{EVIL}\n````" in text
    assert fenced("a\n`````\nb") == "``````text\na\n`````\nb\n``````"
    assert fenced("a") == "```text\na\n```"


def test_empty_lines_in_code_are_kept_and_others_squeezed():
    text = "a\n\n\n\nb\n\n```python\nx = 1\n\n\ny = 2\n```\n\n\n"
    assert squeezed(text) == "a\n\nb\n\n```python\nx = 1\n\n\ny = 2\n```\n"


def test_each_drawing_and_plot_has_a_file_of_its_own_under_the_name_of_its_block():
    assert list(page().pictures) == [
        "page/block-3-pass-1.svg", "page/block-3-pass-2.svg", "page/named-plot-1.svg",
    ]  # fmt: skip
    one = Scraped(figures=(Figure(1, (1,), (drawing(1),)),))
    named = Page("page", "", "", (CodeStep("x", 1, marks=Marks(name="sum"), scraped=one),))
    assert list(named.pictures) == ["page/sum.svg"]


@pytest.mark.parametrize(
    ("marks", "failure", "said"),
    [
        ("", None, ""),
        ("", "NameError", "NameError: why"),
        ("", "", "why"),
        ("expect-error", "NameError", ""),
        ("expect-error=NameError", "NameError", ""),
        ("expect-error=KeyError", "NameError", "NameError: why, where KeyError was expected"),
        ("expect-error", None, "it is marked expect-error and raised nothing"),
        ("stup", None, "there is no mark `stup` (did you mean `setup`?)"),
    ],
)
def test_a_block_is_wrong_where_it_fails_unless_it_should(marks, failure, said):
    raised = None if failure is None else Failure(failure, "why", 1, "why")
    assert CodeStep("x", 1, marks=parse_marks(marks), failure=raised).wrong == said


@pytest.mark.parametrize(
    ("stem", "before", "after"),
    [
        ("first", None, ("page", "A *page*")),
        ("page", ("first", "The `first`"), ("last", "Last")),
        ("last", ("page", "A *page*"), None),
    ],
)
def test_a_page_knows_its_neighbours(stem, before, after):
    place = replace(PLACE, stem=stem)
    assert (place.before, place.after) == (before, after)


def test_the_gist_of_a_page_is_its_first_paragraph():
    assert page().summary == "Prose with `code`."
    assert Page("page", "page.py", "Title", ()).summary == ""
