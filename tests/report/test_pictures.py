"""A picture is always there, in bounded time, and says what it cost."""

from __future__ import annotations

from typing import Any

import pytest

from tests.transforms import graphs
from tests.transforms.graphs import traced
from tracer.errors import RenderError
from tracer.records.view import View
from tracer.render.picture import LayoutError, LayoutTimeoutError, Picture
from tracer.report import pictures
from tracer.report.figures import describe
from tracer.report.pictures import draw_view, fold_further

BIG = traced(graphs.transformer(12))


class Slow:
    """A Graphviz that is not done in time with more boxes than it can do."""

    def __init__(self, most: int, error: type[LayoutError] = LayoutTimeoutError) -> None:
        self.most = most
        self.error = error
        self.asked: list[int] = []

    def __call__(self, dot: str, *_: Any, **__: Any) -> Picture:
        self.asked.append(dot.count("shape="))
        if self.asked[-1] > self.most:
            raise self.error("too much")
        return Picture(b"drawn", "dot")


def test_a_layout_that_is_not_done_in_time_is_folded_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow(15)
    monkeypatch.setattr(pictures, "draw_dot", slow)
    drawn = draw_view(BIG, 1, View(), "svg", time_limit_s=2.5)
    assert slow.asked == sorted(slow.asked, reverse=True)
    assert slow.asked[-1] <= 15
    assert drawn.data == b"drawn"
    (advice,) = drawn.advice
    assert advice.startswith("folded further: ")
    assert advice.endswith(
        " boxes could not be laid out in 2.5 s; for everything, write DOT text (--no-fold -o g.dot)"
    )
    assert drawn.content.notes[-1] == advice.partition("; ")[0]


def test_what_was_not_to_be_folded_is_folded_to_the_budget_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow(70)
    monkeypatch.setattr(pictures, "draw_dot", slow)
    drawn = draw_view(BIG, 1, View(fold=False), "svg")
    assert (len(slow.asked), slow.asked[0] > 490) == (2, True)
    assert "494 boxes" in drawn.advice[0]


def test_what_no_layout_can_do_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(70)
    monkeypatch.setattr(pictures, "draw_dot", slow)
    drawn = draw_view(BIG, 1, View(fold=False), "svg", time_limit_s=0.2)
    assert len(slow.asked) == 1
    assert drawn.advice[0].startswith("folded: 493 boxes cannot be laid out in 0.2 s; for every")


def test_a_crash_of_graphviz_is_answered_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "draw_dot", Slow(15, LayoutError))
    drawn = draw_view(BIG, 1, View(), "svg")
    assert "could not be laid out without a crash of Graphviz" in drawn.advice[0]


def test_where_no_folding_helps_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "draw_dot", Slow(0))
    with pytest.raises(LayoutTimeoutError, match="too much"):
        draw_view(BIG, 1, View(), "svg")


@pytest.mark.parametrize(
    ("wishes", "boxes", "budget"),
    [
        (View(), 40, 20), (View(budget=200), 150, 75), (View(fold=False), 9_000, 60),
        (View(depth=5), 400, 60), (View(expand=("h",)), 80, 60), (View(), 7, None),
    ],
)  # fmt: skip
def test_a_step_of_folding_halves_what_there_was(
    wishes: View, boxes: int, budget: int | None
) -> None:
    further = fold_further(wishes, boxes)
    assert (further.budget if further else None) == budget


def test_text_needs_no_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.render.picture._run", None)
    assert draw_view(BIG, 1, View(), "mmd").data.startswith(b"---\nconfig: ")
    assert draw_view(BIG, 1, View(fold=False), "g.dot").data.count(b" -> ") > 500
    assert draw_view(BIG, 1, View(), "dot").engine == "none"


def test_letters_without_a_font_get_a_hint_in_png_and_not_in_svg(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pictures, "missing_scripts", lambda text: ("CJK",))
    small = traced(graphs.mlp(1))
    assert draw_view(small, 1, View(), "svg").advice == ()
    (hint,) = draw_view(small, 1, View(), "png").advice
    assert hint.startswith("no font here has CJK characters: they are right in SVG")


def test_another_format_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(RenderError, match=r"end its name in one of"):
        draw_view(BIG, 1, View(), "g.jpeg")


def test_a_page_tells_in_words_of_a_layers_parameters_too() -> None:
    said = describe(draw_view(traced(graphs.mlp(6)), 1, View(), "dot").content)
    assert "10 · Linear, bias (8,) f32  .grad  None → ‖g‖=1" in said
