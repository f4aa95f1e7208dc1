"""A part of a trace holds just the events and passes of that part."""

from __future__ import annotations

from dataclasses import replace

from tests import builders
from tracer.records import EventList, PassBegin, PassEnd, TraceRecord
from tracer.report.window import Episode, cut_into_episodes, look_at


def seqs(trace: TraceRecord) -> list[int]:
    return [event.seq for event in trace.events]


def test_a_part_holds_the_events_between_and_the_passes_that_began_there():
    whole = builders.hooks()
    part = look_at(whole, 1, 5)
    assert seqs(part) == [2, 3, 4, 5]
    assert [one.id for one in part.passes] == [1]
    assert len(part.events) == 4


def test_a_part_is_selected_from_like_a_whole():
    part = look_at(builders.hooks(), 1, 9)
    assert [event.seq for event in part.events.select(kinds=("hook",))] == [3, 7]
    assert [event.seq for event in part.events.select(kinds=("hook",), pass_id=2)] == [7]
    assert [event.seq for event in part.events.select(kinds=("hook",), since=4)] == [7]


def test_parts_of_a_part_stay_inside_it():
    part = look_at(look_at(builders.hooks(), 2, 6), 0, 4)
    assert seqs(part) == [3, 4]


def test_each_pass_is_an_episode_with_what_led_to_it_and_the_rest_is_one_too():
    episodes = cut_into_episodes(builders.hooks())
    assert episodes == [Episode(0, 5, (1,)), Episode(5, 9, (2,)), Episode(9, 10)]


def test_episodes_of_a_part_begin_where_it_begins():
    part = look_at(builders.hooks(), 5, 10)
    assert cut_into_episodes(part) == [Episode(5, 9, (2,)), Episode(9, 10)]


def marks(*events: tuple[type, int]) -> TraceRecord:
    made = tuple(
        kind(seq=seq, pass_id=number) for seq, (kind, number) in enumerate(events, start=1)
    )
    return replace(builders.hooks(), events=EventList(made))


def test_passes_inside_one_another_are_one_episode():
    trace = marks((PassBegin, 1), (PassBegin, 2), (PassEnd, 2), (PassEnd, 1))
    assert cut_into_episodes(trace) == [Episode(0, 4, (1, 2))]


def test_a_pass_that_never_ended_is_in_the_last_episode():
    trace = marks((PassBegin, 1), (PassEnd, 1), (PassBegin, 2))
    assert cut_into_episodes(trace) == [Episode(0, 2, (1,)), Episode(2, 3, (2,))]


def test_a_trace_without_events_has_no_episodes():
    assert cut_into_episodes(TraceRecord()) == []
