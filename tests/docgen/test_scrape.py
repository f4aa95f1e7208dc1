"""A block is followed by what it recorded, and by nothing where that is not worth a picture."""

from __future__ import annotations

from dataclasses import replace

from tests import builders
from tracer.docgen.child import mark_of
from tracer.docgen.job import BlockRun
from tracer.docgen.marks import parse_marks
from tracer.docgen.run import DocumentRun
from tracer.docgen.scrape import Scraped, scrape
from tracer.records import EventList, Mark, TraceRecord


def run_of(trace: TraceRecord, *ends: int) -> DocumentRun:
    """A run of a document whose blocks end at these events, with marks where each begins."""
    events = [replace(event, seq=10 * event.seq) for event in trace.events]
    begins = [0, *ends]
    events += [Mark(seq=10 * end + 5, text=mark_of(number)) for number, end in enumerate(begins)]
    events.sort(key=lambda event: event.seq)
    blocks = tuple(BlockRun(number, ended=True) for number in range(len(begins)))
    return DocumentRun(blocks, (replace(trace, events=EventList(tuple(events))),))


def scraped(run: DocumentRun, marks: str = "") -> list[Scraped]:
    return [
        scrape(run.whole_trace_of(block), run.trace_of(block), parse_marks(marks))
        for block in run.blocks
    ]


def pictured(one: Scraped) -> list[int]:
    return [drawing.pass_id for figure in one.figures for drawing in figure.drawings]


def test_each_block_gets_the_pictures_of_its_own_passes():
    added, first, second, removed = scraped(run_of(builders.hooks(), 1, 5, 9))
    assert [pictured(one) for one in (added, first, second, removed)] == [[], [1], [2], []]


def test_a_block_that_adds_a_hook_gets_a_brief_timeline():
    added, _, _, removed = scraped(run_of(builders.hooks(), 1, 5, 9))
    assert (added.said, added.brief) == ("1 hook added", True)
    assert (removed.said, removed.brief) == ("1 hook removed", True)
    assert "hook removed" in removed.story[0].text


def test_a_block_that_only_computes_gets_nothing():
    defined, passed, read = scraped(run_of(builders.vector_jacobian(), 3, 11))
    assert defined == Scraped()
    assert (passed.said, passed.brief) == ("1 pass, 8 events", False)
    assert (read.figures, read.said) == ((), "3 reads of a .grad that is None")


def test_many_passes_get_first_and_last_picture_a_plot_and_a_ledger():
    (loop,) = scraped(run_of(builders.sgd()))
    assert pictured(loop) == [1, 200]
    assert [plot.leaf for plot in loop.plots] == [1]
    assert [book.leaf.name for book in loop.ledgers] == ["b"]
    assert [chapter.skipped for chapter in loop.story] == [
        "", "198 passes with the same graph left out (2 to 199)",
    ]  # fmt: skip


def test_one_pass_gets_neither_plot_nor_ledger():
    _, passed, _ = scraped(run_of(builders.vector_jacobian(), 3, 11))
    assert (passed.plots, passed.ledgers) == ((), ())


def test_a_block_that_the_trace_knows_nothing_of_gets_nothing():
    (nothing,) = scraped(DocumentRun((BlockRun(0),)))
    assert nothing == Scraped()


def test_a_mark_chooses_what_is_shown():
    (graph,) = scraped(run_of(builders.sgd()), "graph")
    assert (pictured(graph), len(graph.plots), graph.story, graph.ledgers) == ([1, 200], 1, (), ())
    (timeline,) = scraped(run_of(builders.sgd()), "timeline")
    assert (timeline.figures, timeline.plots, timeline.brief) == ((), (), True)
    assert [book.leaf.name for book in timeline.ledgers] == ["b"]
    assert scraped(run_of(builders.sgd()), "output") == [Scraped()]
    assert scraped(run_of(builders.sgd()), "setup") == [Scraped()]


def test_a_mark_picks_one_pass_of_the_block():
    assert [pictured(one) for one in scraped(run_of(builders.sgd()), "pass=3")] == [[3]]
    assert [pictured(one) for one in scraped(run_of(builders.sgd()), "pass=-1")] == [[200]]
    (none,) = scraped(run_of(builders.sgd()), "pass=201")
    assert none.wrong == "there is no pass 201 in this block, which has 200 passes"
