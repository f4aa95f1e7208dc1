"""The page of a trace shows all of it, stands on its own, and lets nothing in the trace act."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import builders
from tests.report.html_pages import read_page
from tracer.records import Outcome, Run, TraceRecord
from tracer.report.model import MOST_PASSES, read_report
from tracer.report.page import html_report

EVIL = "</pre></style><script>alert(1)</script><img src=x onerror=alert(1)>&amp;"


@pytest.mark.parametrize(
    "trace",
    [builders.vector_jacobian(), builders.hooks(), builders.no_grad(2), builders.sgd(30)],
    ids=["vector_jacobian", "hooks", "no_grad", "sgd"],
)
def test_a_page_is_well_formed_and_fetches_nothing(trace):
    page = read_page(html_report(trace))
    assert page.counts["h1"] == 1
    assert page.counts["svg"] >= 1


def test_a_page_shows_pass_leaf_picture_timeline_and_source():
    text = "".join(read_page(html_report(builders.vector_jacobian())).text)
    for shown in (
        "vector_jacobian.py", "1 pass · 1 graph · 3 leaves", "y.backward(gradients)", "1 + 4 = 5",
        "None → 10", "x1.grad → None: x1 is not a leaf", "m2 = torch.full((3, 2), 2.0",
    ):  # fmt: skip
        assert shown in text


def test_a_trace_without_passes_says_so():
    text = "".join(read_page(html_report(TraceRecord())).text)
    assert "No backward pass ran, so there is no graph to draw." in text


def test_what_was_left_out_or_went_wrong_is_said():
    trace = replace(
        builders.hooks(), dropped={"over the budget": 1234}, complete=False,
        run=Run("run.py", outcome="ValueError: no"),
    )  # fmt: skip
    assert read_report(trace).warnings == (
        "Left out 1,234: over the budget.",
        "The recording was cut off: it ends where the process last wrote to its file.",
        "The program ended with ValueError: no.",
    )


def test_of_many_passes_the_first_and_last_are_listed_and_one_graph_is_drawn_twice():
    report = read_report(builders.sgd())
    assert [row.pass_id for row in report.passes] == [*range(1, 11), *range(191, 201)]
    assert report.passes_skipped == 200 - MOST_PASSES
    (figure,) = report.figures
    assert [(drawing.pass_id, drawing.which) for drawing in figure.drawings] == [
        (1, "The first of 200 passes with this graph"),
        (200, "The last of 200 passes with this graph"),
    ]
    assert [plot.leaf for plot in report.plots] == [1]
    assert report.plots[0].alt == (
        "b goes from 1 at pass 0 to 100 at pass 200. "
        "b.grad goes from -19800 at pass 1 to -0.003052 at pass 200"
    )


def test_the_picture_is_told_to_those_who_cannot_see_it():
    (figure,) = read_report(builders.vector_jacobian()).figures
    assert figure.drawings[0].alt == (
        "y.backward(gradients), vector_jacobian.py:10, pass 1, 3 nodes, 3 leaves, 0.021 ms. "
        "m1 .grad  None → 10. m2 .grad  None → 5. m3 .grad  None → 2"
    )


def test_a_pass_that_failed_says_how():
    trace = builders.hooks()
    failed = replace(trace.passes[1], outcome=Outcome("RuntimeError", "<b>no</b>"), end_ns=None)
    report = read_report(replace(trace, passes=(trace.passes[0], failed)))
    assert (report.passes[1].failure, report.passes[1].time) == (
        "RuntimeError: <b>no</b>", "never ended",
    )  # fmt: skip


def test_nothing_in_a_trace_acts_in_the_page():
    trace = builders.hooks()
    leaf = replace(trace.leaves[1], name=EVIL)
    site = replace(trace.passes[0].site, expression=EVIL, statement=EVIL, file=f"{EVIL}.py")
    evil = replace(
        trace,
        run=Run(EVIL, versions=((EVIL, EVIL),), outcome=EVIL),
        sources={f"{EVIL}.py": EVIL},
        leaves={1: leaf},
        passes=tuple(replace(one, site=site) for one in trace.passes),
        dropped={EVIL: 1},
    )
    page = read_page(html_report(evil))
    assert "".join(page.text).count("<script>alert(1)</script>") >= 6


def test_a_picture_that_cannot_be_drawn_leaves_the_page_whole(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("tracer.render.picture._pygraphviz_folder", lambda: "")
    text = "".join(read_page(html_report(builders.vector_jacobian())).text)
    assert "No picture: no Graphviz to draw with" in text
    assert "None → 10" in text


def test_source_lines_that_the_trace_tells_about_are_marked():
    (listing,) = read_report(builders.vector_jacobian()).sources
    assert listing.file == "vector_jacobian.py"
    assert listing.marked == frozenset({3, 4, 5, 6, 7, 8, 10})
