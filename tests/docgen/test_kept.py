"""What a build found out is kept beside its pages, so that only what changed runs again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests import builders
from tracer.docgen.blocks import Code, Document, Prose
from tracer.docgen.job import Failure, Output
from tracer.docgen.kept import FILE, keep, keys, read_kept, reusable
from tracer.docgen.marks import Marks
from tracer.docgen.page import CodeStep, Page
from tracer.docgen.scrape import Scraped
from tracer.records.view import View
from tracer.report.figures import Drawing, Figure
from tracer.report.ledger import read_ledgers
from tracer.report.plots import plot_leaves
from tracer.report.story import Chapter


def document(*code: Code) -> Document:
    return Document(Path("page.md"), "", "Title", (Prose("Prose.", 1), *code))


CODE = (Code("a", 3), Code("b", 7), Code("c", 9, Marks(fresh=True)), Code("d", 11))


def steps() -> tuple[CodeStep, ...]:
    sgd = builders.sgd(5)
    ledgers = read_ledgers(sgd)
    scraped = Scraped(
        (Figure(1, (1, 2), (Drawing(1, "<svg>1</svg>", "one"), Drawing(2, "<svg/>", "two"))),),
        plot_leaves(sgd),
        tuple(replace(book, leaf=replace(book.leaf, value=None)) for book in ledgers),
        (Chapter("pass 1", "skipped"),), "said", True,
    )  # fmt: skip
    return (
        CodeStep("a", 3, 1, outputs=(Output("stdout", "中\n"),)),
        CodeStep("b", 7, 2, failure=None, scraped=scraped),
        CodeStep("c", 9, 3, Marks(fresh=True)),
        CodeStep("d", 11, 4, note="note"),
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with a page and what was kept of it."""
    page = Page("page", "page.md", "Title", steps())
    (tmp_path / "page").mkdir()
    for name, svg in page.pictures.items():
        (tmp_path / name).write_text(svg, "utf-8")
    (tmp_path / "page.html").touch()
    (tmp_path / "helper.py").touch()
    keep(document(*CODE), page, [str(tmp_path / "helper.py")], tmp_path)
    return tmp_path


def reused(out: Path, *code: Code) -> list[int]:
    changed = document(*code)
    return sorted(reusable(changed, read_kept(out, "page"), out, "page"))


def test_what_is_read_back_is_what_was_kept(out):
    found = reusable(document(*CODE), read_kept(out, "page"), out, "page")
    assert tuple(found.values()) == steps()


def test_a_change_runs_again_what_shares_its_process(out):
    first, second, third, fourth = CODE
    assert reused(out, first, replace(second, text="B"), third, fourth) == [2, 3]
    assert reused(out, first, second, third, replace(fourth, line=12)) == [0, 1]
    assert reused(out, first, second, third, replace(fourth, marks=Marks(view=View(depth=1)))) == [
        0,
        1,
    ]
    assert reused(out, *CODE, Code("e", 13)) == [0, 1]


def test_prose_and_blocks_that_do_not_run_change_nothing(out):
    changed = replace(document(*CODE), blocks=(Prose("Other.", 1), *CODE))
    assert sorted(reusable(changed, read_kept(out, "page"), out, "page")) == [0, 1, 2, 3]


def test_another_tracer_runs_everything_again(out, monkeypatch):
    monkeypatch.setattr("tracer.docgen.kept.made_with", lambda: "another")
    assert reused(out, *CODE) == []


def test_a_module_of_its_own_that_changed_runs_everything_again(out):
    (out / "helper.py").write_text("changed", "utf-8")
    assert reused(out, *CODE) == []


def test_a_picture_changed_by_hand_is_drawn_again(out):
    (out / "page/block-2-pass-1.svg").write_text("<svg>changed</svg>", "utf-8")
    assert reused(out, *CODE) == [2, 3]


def test_what_failed_runs_again(out):
    failed = replace(steps()[3], failure=Failure("OSError", "no file", 11, "no file"))
    keep(document(*CODE), Page("page", "", "", (*steps()[:3], failed)), [], out)
    assert reused(out, *CODE) == [0, 1]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"keys": 3}', "\udce9", '{"keys": [1]}'])
def test_a_file_that_is_not_what_was_kept_counts_as_none(out, text):
    (out / "page" / FILE).write_text(text, "utf-8", "surrogateescape")
    assert read_kept(out, "page") is None


def test_a_value_of_another_type_counts_as_none(out):
    fields = json.loads((out / "page" / FILE).read_text("utf-8"))
    fields["code"][0]["line"] = "<script>"
    (out / "page" / FILE).write_text(json.dumps(fields), "utf-8")
    assert read_kept(out, "page") is None


def test_keys_depend_on_all_blocks_before_in_the_same_process():
    before = keys(document(*CODE))
    after = keys(document(replace(CODE[0], text="A"), *CODE[1:]))
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True, True]
