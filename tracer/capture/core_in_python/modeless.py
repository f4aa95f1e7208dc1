"""A function in, the same one called while our mode is off out."""

from __future__ import annotations

from typing import Any

from tracer.capture.core_in_python.around import After, Around, Before


class Modeless(Around):
    """The callbacks take the mode off and put it on again."""

    def __init__(self, function: Any, before: Before, after: After, *_of_mode: Any) -> None:
        super().__init__(function, before, after)
