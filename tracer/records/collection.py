"""Work that makes many records in; the same work, not held up by the garbage collector, out."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection(*, aged: bool = False) -> Iterator[None]:
    """Hold the garbage collector: on a large graph it would look again and again at all there is,
    in vain, for 40 % of the time. What was made counts as old afterwards where it is `aged`."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if aged:
            _age()
        if was_on:
            gc.enable()


@contextmanager
def seldom_collection() -> Iterator[None]:
    """Have the garbage collector look a thousandth as often: for work without end, that may leave
    some garbage."""
    before = gc.get_threshold()
    gc.set_threshold(1000 * before[0], *before[1:])
    try:
        yield
    finally:
        _age()
        gc.set_threshold(*before)


def _age() -> None:
    """Count all there is as old: the collector would look at what is new once it may again."""
    if not gc.get_freeze_count():  # else the process has reasons of its own
        gc.freeze()
        gc.unfreeze()
