"""How much came along a path: exact where a part of a sum is a known multiple of it, else open."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tracer
from tests.builders import full, spread, vector, vector_jacobian
from tracer.records.passes import view_pass
from tracer.records.tensors import Gradient
from tracer.records.view import View
from tracer.transforms import diagram
from tracer.transforms.paths import paths
from tracer.transforms.shares import brought_along, multiple_of, scaled, shares_of


@pytest.mark.parametrize(
    ("whole", "part", "factor"),
    [
        (full(5.0, (3, 2)), full(4.0, (3, 2)), 0.8),
        (full(2.0, (30, 20)), full(-1.0, (30, 20)), -0.5),
        (vector(2.0, 4.0, 0.0), vector(3.0, 6.0, 0.0), 1.5),
        (vector(2.0, 4.0), vector(3.0, 6.1), None),
        (vector(0.0, 0.0), vector(1.0, 2.0), None),
        (spread(2.0, (30, 20)), spread(1.0, (30, 20)), None),
        (full(math.inf), full(1.0), 0.0),
        (full(1.0), full(math.inf), None),
        (None, full(1.0), None),
    ],
)
def test_a_multiple_is_known_of_kept_values_and_of_one_value_everywhere(
    whole: Gradient | None, part: Gradient, factor: float | None
) -> None:
    assert multiple_of(whole, part) == factor


def test_a_scaled_gradient_has_scaled_statistics() -> None:
    assert scaled(vector(1.0, -3.0, 0.0), -2.0) == vector(-2.0, 6.0, -0.0)
    assert scaled(spread(3.0, (4, 4)), None) == spread(3.0, (4, 4))


def drawn(trace: tracer.Trace, one: str, other: str) -> tuple[list[str], list[str]]:
    """What a picture says of the paths between two places, and what is on its arrows."""
    made = diagram(trace.record, trace.passes[-1].id, View(path=(one, other)))
    said = [note for note in made.notes if "not drawn" not in note and "folded" not in note]
    return said, [arrow.text for arrow in made.arrows if arrow.text]


def test_paths_that_share_their_end_are_told_apart() -> None:
    made = diagram(vector_jacobian(), 1, View(path=("y", "m1")))
    assert made.notes[:4] == (
        "2 paths from y to m1",
        "2: y → x1 → m1",
        "8: y → x2 → x1 → m1",
        "together all that m1 receives: 10",
    )


def test_what_came_from_elsewhere_is_left_out() -> None:
    made = diagram(vector_jacobian(), 1, View(path=("x2", "m1")))
    assert made.notes[:3] == (
        "1 path from x2 to m1",
        "8: x2 → x1 → m1",
        "together 8 of the 10 that m1 receives",
    )
    assert [arrow.text for arrow in made.arrows if arrow.text] == ["4", "8"]


def test_what_cannot_be_told_apart_is_marked() -> None:
    w = torch.linspace(-1, 1, 40).requires_grad_()
    with tracer.trace() as trace:
        h = w * 3
        one, other = h.sin(), h.exp()
        loss = (one + other).sum()
        loss.backward()
    said, texts = drawn(trace, "other", "w")
    from_other, whole = texts
    assert said == [
        "1 path from other to w",
        f"part of {whole.removesuffix(' *')} (adds up at h): other → h → w",
        f"together some of the {whole.removesuffix(' *')} that w receives",
        "*: with what came from elsewhere than other, which cannot be told apart",
    ]
    assert not from_other.endswith("*")
    assert whole.endswith(" *")
    said, texts = drawn(trace, "loss", "w")
    assert not any(text.endswith("*") for text in texts)
    assert said[-1] == f"together all that w receives: {texts[-1]}"


class Signs(torch.autograd.Function):
    """A function whose backward is not linear."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.sign()


@pytest.mark.parametrize("bend", ["function", "hook"])
def test_no_part_is_followed_through_what_need_not_be_linear(bend: str) -> None:
    w = torch.ones((), requires_grad=True)
    with tracer.trace() as trace:
        h = Signs.apply(w) if bend == "function" else w * 1
        if bend == "hook":
            h.register_hook(torch.sign)
        one, other = h * 2, h * 3
        (one + other).backward()
    said, texts = drawn(trace, "other", "w")
    assert said[1] == "part of 1 (adds up at h): other → h → w"
    assert "1 *" in texts
    assert drawn(trace, "h", "w")[0][1] == "1: h → w"  # all of it, whatever was made of it


# ---- derivatives by hand are the oracle

OPERATIONS = {
    "mul": (lambda a, b: a * b, lambda a, b: (b, a)),
    "add": (lambda a, b: a + b, lambda a, b: (1.0, 1.0)),
    "sin": (lambda a, _: a.sin(), lambda a, _: (math.cos(a),)),
    "scale": (lambda a, _: 3 * a, lambda a, _: (3.0,)),
}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(1, 4), st.integers(1, 4)),
        min_size=1, max_size=7,
    )
)  # fmt: skip
def test_a_path_brings_the_product_of_the_derivatives_along_it(
    steps: list[tuple[str, int, int]],
) -> None:
    slopes: dict[int, tuple[float, ...]] = {}
    with tracer.trace() as trace:
        values = [torch.tensor(0.7, dtype=torch.float64, requires_grad=True)]
        for name, i, j in steps:
            run, derive = OPERATIONS[name]
            one, other = values[-min(i, len(values))], values[-min(j, len(values))]
            values.append(run(one, other))
            slopes[values[-1].grad_fn._sequence_nr()] = derive(one.item(), other.item())
        values[-1].backward()
    view = view_pass(trace.record, 1)
    (leaf,) = view.graph.leaves
    found = paths(view.graph, 0, leaf.id, first=1000)
    whole = 0.0
    for path in found.first:
        slope = 1.0
        for edge in path:
            slope *= slopes[view.graph.nodes[edge.source].sequence_nr or 0][edge.slot]
        brought, mixed = brought_along(view, path)
        whole += slope
        assert mixed is None
        assert brought is not None
        assert brought.values == (pytest.approx(slope),)
    assert values[0].grad is not None
    assert whole == pytest.approx(values[0].grad.item())
    assert set(shares_of(view, found).values()) == {1.0}
