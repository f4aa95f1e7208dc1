"""What a block recorded in; the pictures, plots, ledgers and timeline to show below it out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tracer.docgen.child import BlockRun
from tracer.docgen.run import DocumentRun
from tracer.records import TraceRecord, words
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

    `said` sums the timeline up; `brief` is whether it is short enough to be shown at once.
    """

    figures: tuple[Figure, ...] = ()
    plots: tuple[Plot, ...] = ()
    ledgers: tuple[LeafLedger, ...] = ()
    story: tuple[Chapter, ...] = ()
    said: str = ""
    brief: bool = False


def scrape(run: DocumentRun, block: BlockRun) -> Scraped:
    """Collect what one block of a document made."""
    trace = run.trace_of(block.block)
    if trace.passes:
        return _with_passes(run.trace, trace)
    counts = Counter(event.kind for event in trace.events.select(kinds=tuple(_SAID)))
    if not counts:
        return Scraped()
    story = tell_story(trace)
    lines = sum(chapter.text.count("\n") + 1 for chapter in story)
    said = ", ".join(_count(count, _SAID[kind]) for kind, count in counts.items())
    return Scraped(story=story, said=said, brief=lines <= MOST_OPEN_LINES)


def _with_passes(whole: TraceRecord, trace: TraceRecord) -> Scraped:
    many = len(trace.passes) > 1
    events = words.count(len(trace.events), "event")
    return Scraped(
        figures=draw_figures(whole, trace.passes),
        plots=plot_leaves(trace) if many else (),
        ledgers=read_ledgers(trace) if many else (),
        story=tell_story(trace),
        said=f"{words.count(len(trace.passes), 'pass')}, {events}",
    )


def _count(number: int, named: tuple[str, str]) -> str:
    one, several = named
    return f"{number:,} {one if number == 1 else several}"
