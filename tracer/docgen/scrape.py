"""What a block recorded in; the pictures, plots, ledgers and timeline to show below it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tracer.docgen.marks import SHOWN, Marks
from tracer.records import Pass, TraceRecord, words
from tracer.report.figures import Figure, draw_figures
from tracer.report.ledger import LeafLedger, read_ledgers
from tracer.report.plots import Plot, plot_leaves
from tracer.report.story import Chapter, tell_story

MOST_OPEN_LINES = 6
_SAID = {
    "hook_added": ("hook added", "hooks added"),
    "hook_removed": ("hook removed", "hooks removed"),
    "grad_read": ("read of a .grad that is None", "reads of a .grad that is None"),
    "grad_write": ("write to a .grad", "writes to a .grad"),
    "data_write": ("write to a leaf", "writes to a leaf"),
    "optimizer_step": ("optimizer step", "optimizer steps"),
}
"""The events that are worth a timeline where no pass ran, and what one and several are called."""


@dataclass(frozen=True, slots=True)
class Scraped:
    """What to show below a block; all empty for one that only defined, computed or printed.

    `said` sums the timeline up; `brief` is whether it is short enough, or wanted enough, to be
    shown at once. `wrong` says what the marks ask for that there is not.
    """

    figures: tuple[Figure, ...] = ()
    plots: tuple[Plot, ...] = ()
    ledgers: tuple[LeafLedger, ...] = ()
    story: tuple[Chapter, ...] = ()
    said: str = ""
    brief: bool = False
    wrong: str = ""


def scrape(
    whole: TraceRecord, part: TraceRecord, marks: Marks | None = None, *, folder: str = ""
) -> Scraped:
    """Collect what a block made: `part` is its part of the `whole` trace of its process.

    Files in `folder` are named from there. Raises `NotInTraceError` for a place in the marks that
    is not in the graph.
    """
    marks = marks or Marks()
    if marks.setup:
        return Scraped()
    try:
        passes = _picked(part.passes, marks)
    except LookupError as error:
        return Scraped(wrong=str(error.args[0]))
    pictures = _pictures(whole, part, passes, marks, folder) if marks.shows("graph") else Scraped()
    return _tell(part, passes, marks, pictures) if marks.shows("timeline") else pictures


def _picked(passes: Sequence[Pass], marks: Marks) -> Sequence[Pass]:
    if marks.pick is None:
        return passes
    at = marks.pick - 1 if marks.pick > 0 else marks.pick
    if not -len(passes) <= at < len(passes):
        counted = words.count(len(passes), "pass") if passes else "none"
        raise LookupError(f"there is no pass {marks.pick} in this block, which has {counted}")
    return (passes[at],)


def _pictures(
    whole: TraceRecord, part: TraceRecord, passes: Sequence[Pass], marks: Marks, folder: str
) -> Scraped:
    if not passes:
        return Scraped()
    return Scraped(
        figures=draw_figures(whole, passes, marks.view, folder=folder),
        plots=plot_leaves(part) if len(passes) > 1 else (),
    )


def _tell(part: TraceRecord, passes: Sequence[Pass], marks: Marks, made: Scraped) -> Scraped:
    """Add the timeline, and for several passes the ledgers, to the pictures."""
    wanted = marks.show != SHOWN
    if passes:
        ledgers = read_ledgers(part) if len(passes) > 1 else ()
        return replace(
            made,
            ledgers=tuple(_without_values(book) for book in ledgers),
            story=tell_story(part, times=False),
            said=f"{words.count(len(part.passes), 'pass')}, "
            f"{words.count(len(part.events), 'event')}",
            brief=wanted,
        )
    counts = Counter(event.kind for event in part.events.select(kinds=tuple(_SAID)))
    if not counts:
        return made
    story = tell_story(part, times=False)
    lines = sum(chapter.text.count("\n") + 1 for chapter in story)
    said = ", ".join(_count(count, _SAID[kind]) for kind, count in counts.items())
    return replace(made, story=story, said=said, brief=wanted or lines <= MOST_OPEN_LINES)


def _without_values(book: LeafLedger) -> LeafLedger:
    """Leave out what a page does not show of a leaf, and a file of results need not hold."""
    return replace(book, leaf=replace(book.leaf, value=None, grad=None))


def _count(number: int, named: tuple[str, str]) -> str:
    one, several = named
    return f"{number:,} {one if number == 1 else several}"
