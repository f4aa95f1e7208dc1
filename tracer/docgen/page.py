"""A document and what running it gave in; all that its page shows, as plain data, out."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tracer.docgen.blocks import Document, Prose
from tracer.docgen.job import BlockRun, Failure, Output
from tracer.docgen.marks import Marks
from tracer.docgen.prose import first_paragraph
from tracer.docgen.run import DocumentRun
from tracer.docgen.scrape import Scraped, scrape
from tracer.docgen.terminal import as_shown
from tracer.errors import TracerError
from tracer.records import words
from tracer.report.figures import Drawing
from tracer.report.plots import Plot

NOT_RUN = "Not run: the document had ended before."


@dataclass(frozen=True, slots=True)
class ProseStep:
    """A block of prose on a page, in Markdown."""

    text: str


@dataclass(frozen=True, slots=True)
class CodeStep:
    """A block of code on a page, with what it printed, what it raised and what it recorded.

    `number` counts the document's blocks from 1; `ran` is False for one that was not begun. `note`
    says what became of the blocks below one that took its process along.
    """

    text: str
    line: int
    number: int = 1
    marks: Marks = Marks()
    outputs: tuple[Output, ...] = ()
    failure: Failure | None = None
    scraped: Scraped = Scraped()
    ran: bool = True
    note: str = ""

    @property
    def is_shown(self) -> bool:
        """Whether the page shows it; a setup block only where something is wrong with it."""
        return not self.marks.setup or bool(self.wrong)

    @property
    def wrong(self) -> str:
        """What is not as it should be, in one line; empty where all is."""
        said = [self.marks.wrong, self._wrong_ending(), self.scraped.wrong]
        return "; ".join(part for part in said if part)

    @property
    def wrong_line(self) -> int:
        """The line of the document that `wrong` is about."""
        return self.failure.line if self.failure and not self.marks.wrong else self.line

    def _wrong_ending(self) -> str:
        expected, failure = self.marks.expect, self.failure
        if failure is None:
            return "it is marked expect-error and raised nothing" if expected and self.ran else ""
        said = words.one_line(f"{failure.type}: {failure.message}".removeprefix(": "))
        if not expected:
            return said
        return "" if expected in ("*", failure.type) else f"{said}, where {expected} was expected"


@dataclass(frozen=True, slots=True)
class Mistake:
    """A row of the table of what failed: where, in words; `number` is the block's, 0 for none."""

    place: str
    line: int
    message: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """One document, run: all that its page shows. `stem` names the page's files.

    `mistakes` are what failed, `left_out` says what the recording left out.
    """

    stem: str
    source: str
    title: str
    steps: tuple[ProseStep | CodeStep, ...]
    mistakes: tuple[Mistake, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The first paragraph of its prose, in Markdown."""
        prose = (first_paragraph(step.text) for step in self.steps if isinstance(step, ProseStep))
        return next((text for text in prose if text), "")

    @property
    def code(self) -> tuple[CodeStep, ...]:
        """The blocks of code."""
        return tuple(step for step in self.steps if isinstance(step, CodeStep))

    @property
    def drawings(self) -> tuple[Drawing, ...]:
        """The pictures of passes, in the order they stand on the page."""
        return tuple(drawing for step in self.code for drawing in drawings_of(step))

    @property
    def pictures(self) -> dict[str, str]:
        """The SVG of each drawing and plot, by its path relative to the pages."""
        found: dict[str, str] = {}
        for step in self.code:
            found |= {picture_path(self.stem, step, one): one.svg for one in drawings_of(step)}
            found |= {plot_path(self.stem, step, one): one.svg for one in step.scraped.plots}
        return {path: svg for path, svg in found.items() if svg}


def drawings_of(step: CodeStep) -> tuple[Drawing, ...]:
    """Return the pictures of passes below a block."""
    return tuple(drawing for figure in step.scraped.figures for drawing in figure.drawings)


def picture_path(stem: str, step: CodeStep, drawing: Drawing) -> str:
    """Return where a drawing goes, relative to the pages: under the block's name if it has one."""
    if not step.marks.name:
        return f"{stem}/block-{step.number}-pass-{drawing.pass_id}.svg"
    alone = len(drawings_of(step)) == 1
    return f"{stem}/{step.marks.name}{'' if alone else f'-pass-{drawing.pass_id}'}.svg"


def plot_path(stem: str, step: CodeStep, plot: Plot) -> str:
    """Return where a plot goes, relative to the pages."""
    number = step.scraped.plots.index(plot) + 1
    return f"{stem}/{step.marks.name or f'block-{step.number}'}-plot-{number}.svg"


def make_page(
    stem: str,
    document: Document,
    run: DocumentRun,
    kept: Mapping[int, CodeStep] | None = None,
) -> Page:
    """Put together what a page shows; `kept` are the blocks that need not have been run again.

    The traces of the run must still be there to read.
    """
    runs = {block.block: block for block in run.blocks}
    code = {
        number: (kept or {}).get(number) or _code_step(document, number, run, runs.get(number))
        for number in range(len(document.code))
    }
    numbers = iter(code)
    steps = tuple(
        ProseStep(block.text) if isinstance(block, Prose) else code[next(numbers)]
        for block in document.blocks
    )
    left_out = tuple(
        f"The recording left out {number:,}: {reason}."
        for trace in run.traces
        for reason, number in trace.dropped.items()
    )
    mistakes = tuple(_mistakes(document, run, tuple(code.values())))
    return Page(stem, document.path.name, document.title, steps, mistakes, left_out)


def _code_step(
    document: Document, number: int, run: DocumentRun, done: BlockRun | None
) -> CodeStep:
    block = document.code[number]
    step = CodeStep(block.text, block.line, number + 1, block.marks, ran=False)
    if done is None:
        return step
    folder = str(document.path.resolve().parent)
    outputs = tuple(
        Output(output.stream, without_places(as_shown(output.text), folder))
        for output in done.outputs
    )
    failure = done.failure
    if failure is not None:
        failure = replace(failure, text=without_places(failure.text, folder))
    return replace(
        step,
        outputs=outputs if block.marks.shows("output") else (),
        failure=failure,
        scraped=_scrape(document, run, done, block.marks),
        ran=True,
        note=done.note,
    )


def without_places(text: str, folder: str) -> str:
    """Return text in which files are named from the document's folder, or that of libraries.

    Where these lie differs from machine to machine, and is nobody's business.
    """
    paths = sysconfig.get_paths()
    places = {folder, *(paths[name] for name in ("purelib", "platlib", "stdlib", "platstdlib"))}
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place + os.sep, "")
    return text


def _scrape(document: Document, run: DocumentRun, done: BlockRun, marks: Marks) -> Scraped:
    """Collect what a block made; a trace that cannot be read costs its pictures, not the page."""
    try:
        folder = str(document.path.resolve().parent)
        return scrape(run.whole_trace_of(done), run.trace_of(done), marks, folder=folder)
    except TracerError as error:
        return Scraped(wrong=words.one_line(str(error)))


def _mistakes(
    document: Document, run: DocumentRun, code: tuple[CodeStep, ...]
) -> Iterator[Mistake]:
    for problem in run.problems:
        yield Mistake("", 0, problem)
    for step in code:
        if step.wrong:
            place = document.place(step.wrong_line)
            yield Mistake(place, step.wrong_line, step.wrong, step.number)
        undrawn = {drawing.problem for drawing in drawings_of(step) if drawing.problem}
        for problem in sorted(undrawn):
            yield Mistake(document.place(step.line), step.line, problem, step.number)
