"""RunCount: which runs of the engine were entered through Python, by the engine's own numbers."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def enter(count: Any, *tasks: int) -> None:
    """Runs that the engine numbers so begin and end, one after another."""
    for task in tasks:
        count.enter()
        count.began(task)
        count.leave()


def test_nothing_is_known_before_a_run_has_its_number(core: ModuleType) -> None:
    count = core.RunCount()
    assert count.since_first() is None
    count.enter()
    count.leave()
    assert count.since_first() is None


def test_runs_are_counted_from_the_first_that_has_a_number(core: ModuleType) -> None:
    count = core.RunCount()
    count.enter()
    count.leave()
    enter(count, 5)
    assert count.since_first() == (5, 0)
    enter(count, 6, 9)
    count.enter()  # one without a number: none of its nodes ran, or it is not recorded
    assert count.since_first() == (5, 3)


def test_a_run_within_another_is_counted_and_never_the_first(core: ModuleType) -> None:
    count = core.RunCount()
    count.enter()
    count.enter()
    count.began(8)
    assert count.since_first() is None
    count.leave()
    count.began(7)  # another was entered since: it may have a smaller number, or a greater one
    assert count.since_first() is None
    count.leave()
    enter(count, 9)
    assert count.since_first() == (9, 0)


def test_a_run_within_the_first_is_counted_after_it(core: ModuleType) -> None:
    count = core.RunCount()
    count.enter()
    count.began(3)
    enter(count, 4, 5)
    count.leave()
    assert count.since_first() == (3, 2)


def test_a_run_entered_while_another_was_under_way_is_not_the_first(core: ModuleType) -> None:
    count = core.RunCount()
    count.enter()
    count.enter()
    count.leave()  # by the one that had begun before: which of the two has which number is open
    count.began(4)
    assert count.since_first() is None


def test_counting_begins_anew_after_runs_that_are_not_to_be_counted(core: ModuleType) -> None:
    count = core.RunCount()
    enter(count, 1, 2)
    count.forget()
    assert count.since_first() is None
    enter(count, 10, 11)
    assert count.since_first() == (10, 1)
