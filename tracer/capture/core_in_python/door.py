"""The engine's own `run_backward` in, one that calls us before and after each run out."""

from __future__ import annotations

from itertools import count
from typing import Any

from tracer.capture.core_in_python.around import Around


class RunBackward(Around):
    """Each run begins and ends with the Python side: no pass is recorded by the core alone."""

    is_idle: bool
    runs: bool

    def __init__(self, function: Any, engine: Any, *_of_plain_passes: Any) -> None:
        super().__init__(function, engine.before, engine.after)
        self.__dict__.update(is_idle=True, runs=False, _numbers=count(1))

    def next_id(self) -> int:
        """The number of the pass that begins."""
        number: int = next(self.__dict__["_numbers"])
        return number

    def take_walk(self) -> None:
        """What was found of the graph of the pass that begins: nothing yet."""

    def take_ran(self) -> tuple[list[Any], list[Any]]:
        """The passes that the core recorded alone, and the graphs that they had."""
        return [], []

    def compiles(self) -> None:
        """Code may be compiled from now on."""
