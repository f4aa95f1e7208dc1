"""A leaf over passes, as a plot and as a line of bars."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from tests.builders import hooks, perceptron, sgd
from tracer.errors import NotInTraceError
from tracer.render.plot import Series, leaf_series, plot, plot_leaf, sparkline

SVG = "{http://www.w3.org/2000/svg}"


def test_b_goes_to_one_hundred_and_its_gradient_to_zero() -> None:
    value, grad = leaf_series(sgd(), 1)
    assert (value.name, value.passes[0], value.passes[-1]) == ("b", 0, 200)
    assert (value.values[0], round(value.values[-1], 3)) == (1.0, 100.0)
    assert (grad.name, grad.passes[0], grad.passes[-1]) == ("b.grad", 1, 200)
    assert (grad.values[0], round(grad.values[-1], 2)) == (-19800.0, 0.0)


def test_a_leaf_of_many_elements_is_followed_by_its_norm() -> None:
    (value, grad) = leaf_series(hooks(), 1)
    assert (value.name, value.values) == ("‖v‖", (math.sqrt(12),))
    assert (grad.name, grad.passes) == ("‖v.grad‖", (1, 2))
    assert [series.name for series in leaf_series(perceptron(1), 1)] == [
        "‖layers.0.linear.bias‖", "‖layers.0.linear.bias.grad‖",
    ]  # fmt: skip


def test_a_missing_leaf_says_how_many_there_are() -> None:
    with pytest.raises(NotInTraceError, match="no leaf 9 in this trace: it has 1 leaf"):
        leaf_series(hooks(), 9)


def test_the_plot_of_a_leaf_has_a_panel_for_its_value_and_one_for_its_grad() -> None:
    root = ElementTree.fromstring(plot_leaf(sgd(20), 1))
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles == ["b, pass 0–20: 1 → 98.86", "b.grad, pass 1–20: -19800 → -285.3"]


def test_a_plot_draws_what_it_is_given() -> None:
    root = ElementTree.fromstring(plot([Series("a<b", (1, 2, 3), (0.0, 5.0, 10.0))]))
    (line,) = root.iter(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
    across, down = zip(*points, strict=True)
    assert across == (10.0, 142.0, 274.0)
    assert down == (100.0, 63.0, 26.0)
    assert root.findtext(f".//{SVG}title") == "a<b, pass 1–3: 0 → 10"


@pytest.mark.parametrize("values", [(3.0,), (3.0, 3.0), (0.0, 0.0), (-1.0, -5.0), (1e300, -1e300)])
def test_any_values_fit_into_the_plot(values: tuple[float, ...]) -> None:
    passes = tuple(range(len(values)))
    root = ElementTree.fromstring(plot([Series("x", passes, values)]))
    (line,) = root.iter(f"{SVG}polyline")
    for point in line.get("points", "").split():
        x, y = map(float, point.split(","))
        assert 0 <= x <= 300
        assert 0 <= y <= 120


def test_a_plot_of_nothing_is_empty() -> None:
    assert list(ElementTree.fromstring(plot([])).iter(f"{SVG}polyline")) == []


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "▁▂▃▄▅▆▇█"),
        ([5.0, 5.0], "▁▁"),
        ([1.0, math.nan, 2.0, math.inf], "▁!█!"),
        ([], ""),
    ],
)
def test_a_sparkline_is_a_bar_for_each_value(values: list[float], bars: str) -> None:
    assert sparkline(values) == bars


def test_a_long_sparkline_is_thinned_and_keeps_its_ends() -> None:
    bars = sparkline([float(number) for number in range(1000)], columns=10)
    assert (len(bars), bars[0], bars[-1]) == (10, "▁", "█")
