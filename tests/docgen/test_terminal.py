"""Output is shown as a terminal would end up showing it."""

from __future__ import annotations

import pytest

from tracer.docgen.terminal import MOST_LINES, as_shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain\n", "plain"),
        ("\x1b[1;31mred\x1b[0m and \x1b]0;title\x07plain\n", "red and plain"),
        (" 10%\r 50%\r100%\n", "100%"),
        ("done\r\nnext\r\n", "done\nnext"),
        ("100%\r", "100%"),
        ("a\x00b\x1bc", "a�b�c"),
        ("tab\tstays", "tab\tstays"),
        ("中文 <b>\n", "中文 <b>"),
        ("", ""),
    ],
)
def test_output_is_what_a_terminal_ends_up_showing(written, shown):
    assert as_shown(written) == shown


def test_of_very_long_output_the_middle_is_left_out_and_counted():
    lines = as_shown("".join(f"{number}\n" for number in range(1000))).split("\n")
    half = MOST_LINES // 2
    assert lines[half - 1 : half + 2] == [
        str(half - 1), f"… {1000 - MOST_LINES:,} lines left out …", str(1000 - half),
    ]  # fmt: skip
    assert len(lines) == MOST_LINES + 1
