"""A page in; its text as HTML and as Markdown out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracer.docgen.page import (
    NOT_RUN,
    CodeStep,
    Page,
    ProseStep,
    drawings_of,
    picture_path,
    plot_path,
)
from tracer.docgen.prose import Heading, Links, Renderer, outside_fences, plain_text, without_html
from tracer.records import words
from tracer.report.ledger import Entry, LeafLedger
from tracer.report.markup import environment


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page is among the others: their stems and titles in order.

    `links` knows where the links in its prose lead; `raw_html` lets HTML in its prose act.
    """

    stem: str
    pages: tuple[tuple[str, str], ...]
    links: Links = Links()
    raw_html: bool = False

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


# ---- HTML


def to_html(page: Page, place: Place) -> str:
    """Return the page as one HTML file that stands on its own."""
    renderer = Renderer(place.links, raw_html=place.raw_html)
    steps = shown_steps(page, renderer)
    template = environment("tracer.docgen").get_template("page.html.j2")
    return template.render(
        page=page,
        place=place,
        title=renderer.inline(page.title),
        plain_title=plain_text(page.title),
        steps=steps,
        sections=_sections(renderer.headings),
        inline=renderer.inline,
        not_run=NOT_RUN,
    )


def shown_steps(page: Page, renderer: Renderer) -> list[tuple[ProseStep | CodeStep, str]]:
    """Return what a page shows, in order; with each block of prose its HTML."""
    return [
        (step, renderer.block(step.text) if isinstance(step, ProseStep) else "")
        for step in page.steps
        if isinstance(step, ProseStep) or step.is_shown
    ]


def _sections(headings: Sequence[Heading]) -> list[Heading]:
    return [heading for heading in headings if heading.level <= 2]


# ---- Markdown


def to_markdown(page: Page, place: Place) -> str:
    """Return the page as Markdown that refers to the drawings by `picture_path`."""
    steps = [step for step in page.steps if isinstance(step, ProseStep) or step.is_shown]
    made = environment("tracer.docgen")
    made.filters.update(fenced=fenced, alt=alt, ledger=_ledger_text, prose=prose_filter(place))
    text = made.get_template("page.md.j2").render(
        page=page,
        place=place,
        steps=steps,
        drawings=drawings_of,
        path=picture_path,
        plot_path=plot_path,
        not_run=NOT_RUN,
    )
    return squeezed(text)


def squeezed(markdown: str) -> str:
    """Return Markdown with no more than one empty line in a row, but in code."""
    one = outside_fences(markdown, lambda part: re.sub(r"\n{3,}", "\n\n", part))
    return one.strip() + "\n"


def prose_filter(place: Place) -> Callable[[str], str]:
    """Return what makes a document's prose fit for a page in Markdown."""
    if place.raw_html:
        return place.links.in_text
    return lambda text: place.links.in_text(without_html(text))


def alt(text: str) -> str:
    """Return text as the description of a picture in Markdown, in which nothing is a mark."""
    return re.sub(r"([\\`*_\[\]<>!&|])", r"\\\1", words.one_line(text))


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
