"""Lines of a timeline: cells in, aligned text out."""

from __future__ import annotations

import pytest

from tracer.render.columns import Columns, Tone


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(
    ("text", "told"),
    [("  (same values)", "(same values)"), ("a\nb ", "a b"), ("\x1b[31m", "�[31m")],
)
def test_what_flowed_is_told_on_one_line_from_its_column_on(
    text: str, told: str, wrap: bool
) -> None:
    columns = Columns(110, color=False, wrap=wrap)
    line = columns.row("7", "1.2", "hook", "x = y", ":3", text, Tone.PLAIN)
    assert line.split("  ")[-1].strip() == told
    assert line.index(told) == columns.header().index("gradient")
