"""Markdown in; HTML in which nothing runs and nothing is fetched, its headings, its gist, out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a page: `anchor` is its id, `text` is plain."""

    level: int
    anchor: str
    text: str


class Renderer:
    """Renders the prose of one page; remembers its headings, whose anchors differ from each other.

    Raw HTML in the Markdown is shown as text, and a picture becomes a link to it, since a page has
    to stand on its own.
    """

    def __init__(self) -> None:
        self._markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
        self.headings: list[Heading] = []

    def block(self, text: str) -> str:
        """Return paragraphs, lists and so on as HTML."""
        tokens = self._markdown.parse(text)
        for opening, inline in _headings(tokens):
            heading = self._heading(int(opening.tag[1:]), _plain(inline.children or []))
            opening.attrSet("id", heading.anchor)
            self.headings.append(heading)
        return self._render(tokens)

    def inline(self, text: str) -> str:
        """Return a title, or any text that stays on one line, as HTML."""
        return self._render(self._markdown.parseInline(text))

    def _render(self, tokens: Sequence[Token]) -> str:
        for token in tokens:
            if token.children:
                token.children = list(_without_images(token.children))
        return str(self._markdown.renderer.render(tokens, self._markdown.options, {}))

    def _heading(self, level: int, text: str) -> Heading:
        wanted = re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"
        taken = {heading.anchor for heading in self.headings}
        anchor, number = wanted, 1
        while anchor in taken:
            number += 1
            anchor = f"{wanted}-{number}"
        return Heading(level, anchor, text)


def plain_text(text: str) -> str:
    """Return the text of one line of Markdown without its marks."""
    tokens = MarkdownIt("commonmark", {"html": False}).parseInline(text)
    return "".join(_plain(token.children or []) for token in tokens)


def first_paragraph(text: str) -> str:
    """Return the first paragraph, in Markdown, on one line; empty where there is none."""
    tokens = MarkdownIt("commonmark", {"html": False}).parse(text)
    for opening, inline in zip(tokens, tokens[1:], strict=False):
        if opening.type == "paragraph_open" and opening.level == 0:
            return " ".join(inline.content.split())
    return ""


def _headings(tokens: Sequence[Token]) -> Iterator[tuple[Token, Token]]:
    for opening, inline in zip(tokens, tokens[1:], strict=False):
        if opening.type == "heading_open":
            yield opening, inline


def _plain(tokens: Sequence[Token]) -> str:
    parts = []
    for token in tokens:
        if token.type in ("text", "code_inline", "image"):
            parts.append(token.content)
        elif token.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return "".join(parts)


def _without_images(tokens: Sequence[Token]) -> Iterator[Token]:
    """Yield the tokens with each picture made a link to it."""
    for token in tokens:
        if token.type != "image":
            yield token
            continue
        address = str(token.attrGet("src") or "")
        yield Token("link_open", "a", 1, attrs={"href": address})
        yield Token("text", "", 0, content=token.content or address)
        yield Token("link_close", "a", -1)
