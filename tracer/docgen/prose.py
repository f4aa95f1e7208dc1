"""Markdown in; HTML in which nothing runs and nothing is fetched, its headings, its gist, out."""

from __future__ import annotations

import base64
import mimetypes
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token

from tracer.report.highlight import highlight_code

MOST_IMAGE_BYTES = 4 << 20
_COMMENT = re.compile(r"\s*(?:<!--.*?-->\s*)+", re.DOTALL)
_TARGET = re.compile(r"(?<=\]\()([^)\s]+)")
_FENCED = re.compile(r"^([ \t]*(`{3,}|~{3,}).*?^[ \t]*\2[`~]*[ \t]*$)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a page: `anchor` is its id, `text` is plain."""

    level: int
    anchor: str
    text: str


@dataclass(frozen=True, slots=True)
class Links:
    """Where links in the prose of a document lead: from its `folder`, for a page in `out`.

    `stems` are the pages by the document they are made of.
    """

    folder: Path | None = None
    out: Path | None = None
    stems: Mapping[Path, str] = field(default_factory=dict)

    def lead(self, href: str, ending: str) -> str:
        """Return a link as it is to stand on a page; `ending` is that of the other pages."""
        name, mark, anchor = href.partition("#")
        path = self.file(href) or self._page_called(name)
        if path is None or self.out is None:
            return href
        if path in self.stems:
            return f"{quote(self.stems[path])}{ending}{mark}{anchor}"
        return quote(Path(os.path.relpath(path, self.out.resolve())).as_posix()) + mark + anchor

    def _page_called(self, name: str) -> Path | None:
        """Return the document of that name among those with a page, wherever it lies."""
        return next((path for path in self.stems if path.name == unquote(name)), None)

    def file(self, href: str) -> Path | None:
        """Return the file on this machine that a link leads to, where it does."""
        if self.folder is None or href.startswith("#") or re.match(r"[A-Za-z][\w+.-]*:|/", href):
            return None
        path = (self.folder / unquote(href.partition("#")[0])).resolve()
        return path if path.exists() else None

    def in_text(self, markdown: str) -> str:
        """Return Markdown with its links as they are to stand on a page in Markdown."""
        return outside_fences(
            markdown, lambda part: _TARGET.sub(lambda target: self.lead(target[1], ".md"), part)
        )


class Renderer:
    """Renders the prose of one page; remembers its headings, whose anchors differ from each other.

    Raw HTML in the Markdown is shown as text unless `raw_html` lets it act, and comments are left
    out. A picture that lies on this machine is put into the page and any other becomes a link to
    it, since a page has to stand on its own.
    """

    def __init__(self, links: Links | None = None, *, raw_html: bool = False) -> None:
        options = {"html": True, "highlight": highlight_code}
        self._markdown = MarkdownIt("commonmark", options).enable(["table", "strikethrough"])
        self._markdown.add_render_rule("table_open", _open_table)
        self._markdown.add_render_rule("table_close", _close_table)
        self._links = links or Links()
        self._raw_html = raw_html
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
        kept = [self._harmless(token) for token in tokens]
        for token in kept:
            if token.children:
                token.children = [self._harmless(c) for c in self._pictures(token.children)]
        return str(self._markdown.renderer.render(kept, self._markdown.options, {}))

    def _harmless(self, token: Token) -> Token:
        """Return the token: raw HTML as text, a link leading to where the page finds its end."""
        if token.type == "link_open":
            token.attrSet("href", self._links.lead(str(token.attrGet("href") or ""), ".html"))
        if token.type not in ("html_block", "html_inline") or self._raw_html:
            return token
        if _COMMENT.fullmatch(token.content):
            token.content = ""
        else:
            shown = escapeHtml(token.content.strip())
            token.content = f"<p>{shown}</p>\n" if token.type == "html_block" else shown
        return token

    def _pictures(self, tokens: Sequence[Token]) -> Iterator[Token]:
        for token in tokens:
            if token.type != "image":
                yield token
                continue
            address = str(token.attrGet("src") or "")
            data = _embedded(self._links.file(address))
            if data:
                token.attrSet("src", data)
                yield token
                continue
            yield Token("link_open", "a", 1, attrs={"href": address})
            yield Token("text", "", 0, content=token.content or address)
            yield Token("link_close", "a", -1)

    def _heading(self, level: int, text: str) -> Heading:
        wanted = re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"
        taken = {heading.anchor for heading in self.headings}
        anchor, number = wanted, 1
        while anchor in taken:
            number += 1
            anchor = f"{wanted}-{number}"
        return Heading(level, anchor, text)


def _open_table(*_: object) -> str:
    """Begin a table that is scrolled where it is wider than the page."""
    return '<div class="table">\n<table>\n'


def _close_table(*_: object) -> str:
    return "</table>\n</div>\n"


def _embedded(path: Path | None) -> str:
    """Return a picture as a `data:` address; empty for what is none, or too large."""
    kind = mimetypes.guess_type(path.name)[0] if path is not None else None
    if path is None or kind is None or not kind.startswith("image/") or not path.is_file():
        return ""
    if path.stat().st_size > MOST_IMAGE_BYTES:
        return ""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """Change the parts of a Markdown text that are not fenced code."""
    parts = _FENCED.split(markdown)
    parts[::3] = [change(part) for part in parts[::3]]
    del parts[2::3]  # the fences themselves, which the group around them holds as well
    return "".join(parts)


def without_html(markdown: str) -> str:
    """Return Markdown whose raw HTML is text to whoever renders it, and whose comments are gone."""
    lines = markdown.split("\n")
    for token in MarkdownIt("commonmark").parse(markdown):
        raw = [one.content for one in token.children or () if one.type == "html_inline"]
        if token.map is None or not (raw or token.type == "html_block"):
            continue
        part = slice(*token.map)
        text = "\n".join(lines[part])
        if token.type == "html_block":
            text = _escape_html(text)
        for content in raw:
            text = text.replace(content, _escape_html(content))
        blank = "\n" * (token.map[1] - token.map[0] - 1 - text.count("\n"))
        lines[part] = (text + blank).split("\n")
    return "\n".join(lines)


def _escape_html(text: str) -> str:
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).replace("<", "&lt;")


def plain_text(text: str) -> str:
    """Return the text of one line of Markdown without its marks."""
    tokens = MarkdownIt("commonmark", {"html": False}).parseInline(text)
    return "".join(_plain(token.children or []) for token in tokens)


def first_paragraph(text: str) -> str:
    """Return the first paragraph, in Markdown, on one line; empty where there is none."""
    tokens = MarkdownIt("commonmark").parse(text)
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
