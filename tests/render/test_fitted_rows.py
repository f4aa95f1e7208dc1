"""Rows that fit a width: columns give way in order, and nothing is wider than the terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracer.records import words
from tracer.render.fitted_rows import Column, fitted_rows

ROWS = [("1", "encoder.layers.0.weight", "(3,2)", "x"), ("20", "bias", "()", "")]
COLUMNS = (Column(), Column(10), Column(leave=1), Column(leave=2))


def test_rows_are_aligned_where_there_is_room() -> None:
    assert list(fitted_rows(ROWS, COLUMNS, width=80)) == [
        "  1   encoder.layers.0.weight  (3,2)  x",
        "  20  bias                     ()",
    ]


def test_names_give_way_in_the_middle_first() -> None:
    assert list(fitted_rows(ROWS, COLUMNS, width=32)) == [
        "  1   encoder.la…eight  (3,2)  x",
        "  20  bias              ()",
    ]


def test_columns_that_may_are_left_out_next() -> None:
    assert list(fitted_rows(ROWS, COLUMNS, width=18)) == ["  1   encoder…ight", "  20  bias"]


def test_empty_columns_take_no_room() -> None:
    rows = [("a", "", "b"), ("c", "", "d")]
    assert list(fitted_rows(rows, (Column(),) * 3, width=20)) == ["  a  b", "  c  d"]


CELLS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)


@given(
    st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=4),
    st.lists(st.builds(Column, st.integers(0, 5), st.integers(0, 2)), min_size=3, max_size=3),
    st.integers(6, 60),
)
def test_no_line_is_wider_than_asked_for(
    rows: list[tuple[str, str, str]], columns: list[Column], width: int
) -> None:
    assert all(words.width(line) <= width for line in fitted_rows(rows, columns, width=width))
