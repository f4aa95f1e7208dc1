"""A document and what running it gave in; the page of it as HTML and as Markdown out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tracer.docgen.blocks import Code, Document, Prose
from tracer.docgen.child import BlockRun, Failure, Output
from tracer.docgen.prose import Heading, Renderer, first_paragraph, plain_text
from tracer.docgen.run import DocumentRun
from tracer.docgen.scrape import Scraped, scrape
from tracer.docgen.terminal import as_shown
from tracer.records import words
from tracer.report.figures import Drawing
from tracer.report.ledger import Entry, LeafLedger
from tracer.report.markup import environment
from tracer.report.plots import Plot

DRAWN = ("pass-*.svg", "plot-*.svg")
"""What the drawings of a page are called in its folder."""

NOT_RUN = "not run: the document had ended before"


@dataclass(frozen=True, slots=True)
class ProseStep:
    """A block of prose on a page, in Markdown."""

    text: str


@dataclass(frozen=True, slots=True)
class CodeStep:
    """A block of code on a page, with what it printed, what it raised and what it recorded."""

    text: str
    line: int
    outputs: tuple[Output, ...] = ()
    failure: Failure | None = None
    scraped: Scraped = Scraped()
    ran: bool = True


@dataclass(frozen=True, slots=True)
class Page:
    """One document, run: all that its page shows. `stem` names the page's files.

    `problems` kept the document as a whole from running or its trace from being read; `left_out`
    says what the recording left out.
    """

    stem: str
    source: str
    title: str
    steps: tuple[ProseStep | CodeStep, ...]
    problems: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The first paragraph of its prose, in Markdown."""
        prose = (first_paragraph(step.text) for step in self.steps if isinstance(step, ProseStep))
        return next((text for text in prose if text), "")

    @property
    def drawings(self) -> tuple[Drawing, ...]:
        """The pictures of passes, in the order they stand on the page."""
        return tuple(
            drawing
            for step in self.code
            for figure in step.scraped.figures
            for drawing in figure.drawings
        )

    @property
    def plots(self) -> tuple[Plot, ...]:
        """The plots of leaves over passes, in the order they stand on the page."""
        return tuple(plot for step in self.code for plot in step.scraped.plots)

    @property
    def code(self) -> tuple[CodeStep, ...]:
        """The blocks of code."""
        return tuple(step for step in self.steps if isinstance(step, CodeStep))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page is among the others: their stems and titles in order."""

    stem: str
    pages: tuple[tuple[str, str], ...]

    @property
    def before(self) -> tuple[str, str] | None:
        """Stem and title of the page before, if there is one."""
        at = self._at
        return self.pages[at - 1] if at else None

    @property
    def after(self) -> tuple[str, str] | None:
        """Stem and title of the page after, if there is one."""
        at = self._at
        return self.pages[at + 1] if at + 1 < len(self.pages) else None

    @property
    def _at(self) -> int:
        return [stem for stem, _ in self.pages].index(self.stem)


def make_page(stem: str, document: Document, run: DocumentRun) -> Page:
    """Put together what a page shows. The trace of the run must still be there to read."""
    runs = {block.block: block for block in run.blocks}
    steps: list[ProseStep | CodeStep] = []
    number = 0
    for block in document.blocks:
        if isinstance(block, Prose):
            steps.append(ProseStep(block.text))
        else:
            steps.append(_code_step(block, run, runs.get(number)))
            number += 1
    left_out = tuple(
        f"The recording left out {number:,}: {reason}."
        for reason, number in run.trace.dropped.items()
    )
    problems = (run.problem,) if run.problem else ()
    return Page(stem, document.path.name, document.title, tuple(steps), problems, left_out)


def _code_step(block: Code, run: DocumentRun, done: BlockRun | None) -> CodeStep:
    if done is None:
        return CodeStep(block.text, block.line, ran=False)
    outputs = tuple(Output(output.stream, as_shown(output.text)) for output in done.outputs)
    return CodeStep(block.text, block.line, outputs, done.failure, scrape(run, done))


# ---- HTML


def to_html(page: Page, place: Place) -> str:
    """Return the page as one HTML file that stands on its own."""
    renderer = Renderer()
    prose = [
        renderer.block(step.text) if isinstance(step, ProseStep) else "" for step in page.steps
    ]
    template = environment("tracer.docgen").get_template("page.html.j2")
    return template.render(
        page=page,
        place=place,
        title=renderer.inline(page.title),
        plain_title=plain_text(page.title),
        steps=list(zip(page.steps, prose, strict=True)),
        sections=_sections(renderer.headings),
        inline=renderer.inline,
        not_run=NOT_RUN,
    )


def _sections(headings: Sequence[Heading]) -> list[Heading]:
    return [heading for heading in headings if heading.level <= 2]


# ---- Markdown


def to_markdown(page: Page, place: Place) -> str:
    """Return the page as Markdown that refers to the drawings by `picture_path`."""
    made = environment("tracer.docgen")
    made.filters.update(fenced=fenced, alt=_alt, ledger=_ledger_text)
    text = made.get_template("page.md.j2").render(
        page=page, place=place, path=picture_path, plot_path=plot_path, not_run=NOT_RUN
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def picture_path(page: Page, drawing: Drawing) -> str:
    """Return where a drawing goes, relative to the pages."""
    return f"{page.stem}/pass-{drawing.pass_id}.svg"


def plot_path(page: Page, plot: Plot) -> str:
    """Return where a plot goes, relative to the pages."""
    return f"{page.stem}/plot-{page.plots.index(plot) + 1}.svg"


def _alt(text: str) -> str:
    """Return text as the description of a picture in Markdown, in which nothing is a mark."""
    return re.sub(r"([\\`*_\[\]<>!&])", r"\\\1", words.one_line(text))


def fenced(text: str, language: str = "text") -> str:
    """Return text as a fenced block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _ledger_text(book: LeafLedger) -> str:
    rows = [_cells(one) for one in (*book.first, *book.last)]
    widths = [max(words.width(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join(words.padded(*cell) for cell in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if book.skipped:
        lines.insert(len(book.first), f"… {book.skipped:,} more")
    return "\n".join(lines)


def _cells(one: Entry) -> tuple[str, str, str, str, str]:
    where = f"pass {one.pass_id}" if one.pass_id is not None else ""
    return where, one.subject, one.how, one.change, one.place
