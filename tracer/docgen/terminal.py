"""What a program wrote to its output in; the text that a terminal would end up showing out."""

from __future__ import annotations

import re

MOST_LINES = 400
_CONTROL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def as_shown(output: str) -> str:
    """Return the text without colours and what was overwritten; the middle left out if long."""
    plain = _CONTROL_SEQUENCE.sub("", output.replace("\r\n", "\n"))
    lines = [_overwritten(line) for line in plain.rstrip("\n").split("\n")]
    if len(lines) > MOST_LINES:
        half = MOST_LINES // 2
        left_out = f"… {len(lines) - 2 * half:,} lines left out …"
        lines = [*lines[:half], left_out, *lines[-half:]]
    return "\n".join(lines)


def _overwritten(line: str) -> str:
    """Return what is left of a line that goes back to its beginning, as progress bars do."""
    return _UNSEEN.sub("�", line.rstrip("\r").rpartition("\r")[2])
