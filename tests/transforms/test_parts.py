"""A part that a reader asks for comes with what it is, and paths with what each brings."""

from __future__ import annotations

import pytest

from tests.builders import vector_jacobian
from tests.transforms import graphs
from tests.transforms.graphs import traced
from tracer.errors import NotInTraceError, TracerError
from tracer.records.view import View
from tracer.transforms import diagram


def test_each_path_is_listed_with_what_it_brings() -> None:
    drawn = diagram(vector_jacobian(), 1, View(path=("y", "x1")))
    assert drawn.notes[:4] == (
        "2 paths from y to x1",
        "1: y → x1",
        "4: y → x2 → x1",
        "together all that x1 receives: 5",
    )


def test_of_very_many_paths_the_shortest_are_listed_and_the_rest_counted() -> None:
    ends = ("NllLossBackward0", "wte.weight")
    drawn = diagram(traced(graphs.transformer(12)), 1, View(path=ends))
    assert drawn.notes[0].endswith("paths from NllLossBackward0 to wte.weight")
    listed = [note.partition(": ")[2] for note in drawn.notes if " → " in note]
    assert len(listed) == 8
    count = int(drawn.notes[0].split()[0].replace(",", ""))
    assert f"and {count - 8:,} paths more, none of them shorter" in drawn.notes


def test_of_a_long_path_stands_what_the_others_lack() -> None:
    ends = ("NllLossBackward0", "wte.weight")
    drawn = diagram(traced(graphs.transformer(12)), 1, View(path=ends))
    listed = [note.partition(": ")[2] for note in drawn.notes if " → " in note]
    assert len(set(listed)) > 4
    assert any(" → … → " in one for one in listed)
    assert max(len(one.split(" → ")) for one in listed) <= 10


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (View(focus="h.1.mlp", radius=0), "h.1.mlp"),
        (View(upstream="h.1"), "upstream of h.1"),
        (View(downstream="h.1"), "downstream of h.1"),
    ],
)
def test_the_picture_says_which_part_it_shows(view: View, words: str) -> None:
    assert diagram(traced(graphs.transformer(3)), 1, view).notes[0] == words


def test_a_parameter_that_was_asked_for_is_shown_apart_from_its_operation() -> None:
    drawn = diagram(traced(graphs.mlp(6)), 1, View(focus="model.0.weight", radius=3))
    assert "weight" in [box.lines[0].text.rpartition(".")[2] for box in drawn.boxes]


def test_a_parameters_name_may_lack_its_beginning() -> None:
    trace = traced(graphs.mlp(3))
    assert diagram(trace, 1, View(focus="0.weight")).boxes == (
        diagram(trace, 1, View(focus="model.0.weight")).boxes
    )


def test_a_wrong_name_gets_the_right_one() -> None:
    with pytest.raises(NotInTraceError, match=r"called 'h\.1\.mpl'; did you mean h\.1\.mlp"):
        diagram(traced(graphs.transformer(3)), 1, View(focus="h.1.mpl"))


def test_two_parts_at_once_are_refused() -> None:
    with pytest.raises(TracerError, match="choose one of focus, path, upstream and downstream"):
        View(focus="a", upstream="b")
