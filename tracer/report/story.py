"""A trace in; its timeline as text, long stretches of equal passes folded, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

from tracer.records import TraceRecord, words
from tracer.render.timeline import timeline_text
from tracer.report.window import Episode, cut_into_episodes, look_at

MOST_ALIKE = 3
MOST_LINES = 300
TIMELINE_WIDTH = 84
"""Columns of text, after which what flowed may go on: pages are narrower than terminals."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """A stretch of the timeline; `skipped` says what was left out in front of it, if anything."""

    text: str
    skipped: str = ""


def tell_story(trace: TraceRecord, *, times: bool = True) -> tuple[Chapter, ...]:
    """Tell what happened, in order; of more than `MOST_ALIKE` equal passes the first and last.

    Without `times` it does not say when.
    """
    chapters: list[Chapter] = []
    begin = end = None
    skipped = ""
    for episode, folded in _without_repeats(trace):
        if folded and begin is not None and end is not None:
            chapters.append(_chapter(trace, begin, end, skipped, times))
            begin, skipped = None, folded
        begin, end = begin or episode, episode
    if begin is not None and end is not None:
        chapters.append(_chapter(trace, begin, end, skipped, times))
    return tuple(chapter for chapter in chapters if chapter.text)


def _without_repeats(trace: TraceRecord) -> Iterator[tuple[Episode, str]]:
    """Yield the episodes to tell, each with what was left out in front of it."""
    graph_of = {one.id: one.graph for one in trace.passes}

    def structure(episode: Episode) -> list[int]:
        return [graph_of[number] for number in episode.passes]

    for graphs, group in groupby(cut_into_episodes(trace), structure):
        alike = list(group)
        if len(alike) <= MOST_ALIKE or not graphs:
            yield from ((episode, "") for episode in alike)
        else:
            yield alike[0], ""
            yield alike[-1], _say_skipped(alike[1:-1])


def _say_skipped(episodes: Sequence[Episode]) -> str:
    numbers = [number for episode in episodes for number in episode.passes]
    return (
        f"{words.count(len(numbers), 'pass')} with the same graph left out "
        f"({numbers[0]} to {numbers[-1]})"
    )


def _chapter(
    trace: TraceRecord, begin: Episode, end: Episode, skipped: str, times: bool
) -> Chapter:
    part = look_at(trace, begin.after, end.until)
    told = iter(timeline_text(part, width=TIMELINE_WIDTH, times=times))
    lines = list(islice(told, MOST_LINES))
    more = sum(1 for _ in told)
    if more:
        lines.append(f"… {words.count(more, 'more line')} left out")
    return Chapter("\n".join(lines), skipped)
