"""The statistics that follow from a tensor's few values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.records import Gradient, TensorMeta
from tracer.records.statistics import gradient_of_values

META = TensorMeta((4,))
NAN, INF = math.nan, math.inf


def statistics(gradient: Gradient) -> str:
    """All statistics in one comparable text, as NaN equals nothing."""
    return repr(
        (gradient.norm, gradient.min, gradient.max, gradient.mean)
        + (gradient.zeros, gradient.nans, gradient.infs)
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((3.0, -4.0, 0.0, -0.0), (5.0, -4.0, 3.0, -0.25, 2, 0, 0)),
        ((NAN, 1.0, 0.0, INF), (NAN, NAN, NAN, NAN, 1, 1, 1)),
        ((INF, 1.0), (INF, 1.0, INF, INF, 0, 0, 1)),
        ((INF, -INF), (INF, -INF, INF, NAN, 0, 0, 2)),
        ((3, -4), (5.0, -4.0, 3.0, -0.5, 0, 0, 0)),
        ((True, False, True, True), (math.sqrt(3), 0.0, 1.0, 0.75, 1, 0, 0)),
        ((3 + 4j, 0j), (5.0, 0.0, 5.0, 2.5, 1, 0, 0)),
        ((complex(NAN, 1), complex(INF, 0)), (NAN, NAN, NAN, NAN, 0, 1, 1)),
        ((1e200, 1e200), (math.sqrt(2) * 1e200, 1e200, 1e200, 1e200, 0, 0, 0)),
        ((1.7e308, 1.7e308), (INF, 1.7e308, 1.7e308, 1.7e308, 0, 0, 0)),
        ((3e-170, 4e-170), (5e-170, 3e-170, 4e-170, 3.5e-170, 0, 0, 0)),
        ((), (0.0, None, None, None, 0, 0, 0)),
    ],
)
def test_statistics_follow_from_the_values(
    values: tuple[float, ...], expected: tuple[float | None, ...]
) -> None:
    assert statistics(gradient_of_values(META, values)) == repr(expected)


def test_the_values_and_the_metadata_are_kept() -> None:
    gradient = gradient_of_values(META, (1.0, 2.0))
    assert (gradient.meta, gradient.values, gradient.unread) == (META, (1.0, 2.0), "")


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1).map(tuple))
def test_the_norm_is_the_length_of_the_vector(values: tuple[float, ...]) -> None:
    norm = gradient_of_values(META, values).norm
    assert norm is not None
    assert math.isclose(norm, math.hypot(*values), rel_tol=1e-15)
