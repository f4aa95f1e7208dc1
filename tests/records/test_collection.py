"""What work that makes many records leaves to the garbage collector: nothing to look at anew."""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager

import pytest

from tracer.records.collection import no_collection, seldom_collection


@pytest.mark.parametrize("work", [no_collection(aged=True), seldom_collection()])
def test_what_was_made_counts_as_old(work: AbstractContextManager[None]) -> None:
    gc.unfreeze()  # a command that ran in this process may have frozen what there was
    before = gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()
    with work:
        made = [[number] for number in range(5_000)]
    assert gc.get_count()[0] < 1_000
    assert any(one is made[17] for one in gc.get_objects(generation=2))
    assert (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()) == before


def test_a_process_that_froze_objects_keeps_them_frozen() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with seldom_collection():
            pass
        assert gc.get_freeze_count() == frozen > 0
    finally:
        gc.unfreeze()
