"""Loops are found where places in source take turns, whatever their lines are called."""

from __future__ import annotations

from tracer.transforms.loops import Loop, Place, Runs, find_loops


def loops_of(trail: str) -> list[Loop]:
    """Find the loops in a trail of places, one letter each, that counts its calls by itself."""
    places: dict[Place, Runs] = {}
    for start, letter in enumerate(trail):
        if letter != " ":
            runs = places.setdefault((letter, None), Runs([], []))
            runs.calls.append(len(runs.calls) + 1)
            runs.starts.append(start)
    return find_loops(places)


def bodies(trail: str) -> list[tuple[str, int]]:
    return [
        ("".join(sorted(str(place) for place, _ in loop.turns)), len(loop.starts))
        for loop in loops_of(trail)
    ]


def test_places_that_take_turns_are_one_loop() -> None:
    assert bodies("abc abc abc x") == [("abc", 3)]


def test_what_ran_once_is_in_no_loop() -> None:
    assert bodies("abcdef") == []


def test_loops_one_after_the_other_are_two() -> None:
    assert bodies("ab ab ab cd cd cd") == [("ab", 3), ("cd", 3)]


def test_a_place_that_skips_an_iteration_is_in_the_loop() -> None:
    (loop,) = loops_of("ac abc abc")
    assert loop.turns["b", None] == [1, 2]


def test_a_place_whose_calls_begin_later_goes_with_the_calls_of_its_number() -> None:
    lead, late = Runs([1, 2, 3, 4], [0, 2, 4, 6]), Runs([2, 3, 4], [1, 3, 5])
    (loop,) = find_loops({("lead", None): lead, ("late", None): late})
    assert loop.turns["late", None] == [1, 2, 3]
    assert loop.starts == [0, 1, 3, 5]


def test_a_loop_in_a_loop_knows_its_outer_turns() -> None:
    inner, outer = loops_of("o iii o iii")
    assert (inner.outer, inner.outer_turns) == (outer, [0, 0, 0, 1, 1, 1])


def test_a_loop_whose_outer_place_comes_last_is_in_it() -> None:
    inner, outer = loops_of("iii o iii o")
    assert (inner.outer, inner.outer_turns) == (outer, [0, 0, 0, 1, 1, 1])


def test_a_loop_beside_a_rarer_one_is_not_in_it() -> None:
    longer, _ = loops_of("oo iiii")
    assert longer.outer is None
