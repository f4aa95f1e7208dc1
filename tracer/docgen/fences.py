"""The text of a Markdown document in; its title, its prose and its fenced code out."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tracer.docgen.blocks import Block, Code, Document, Prose
from tracer.docgen.marks import PYTHON, parse_marks, read_comment, read_info

_FRONT_MATTER = re.compile(r"---[ \t]*\n(?P<fields>.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE = re.compile(r"^title:\s*(?P<title>.+?)\s*$", re.MULTILINE)
_PROMPT = re.compile(r"(?:>>>|\.\.\.)(?: |$)")


@dataclass(frozen=True, slots=True)
class Fence:
    """A fenced block: lines `start` to `end` of the text, counted from 0, `end` not included.

    `comment` are the marks in an HTML comment above it, which then begins at line `start`;
    `opening` is the line of the fence itself.
    """

    start: int
    opening: int
    end: int
    info: str
    content: str
    indent: int
    comment: str | None = None

    @property
    def language(self) -> str:
        """What it says it is written in."""
        return read_info(self.info)[0]

    @property
    def words(self) -> str | None:
        """Its marks; None where it is not marked at all."""
        marked = read_info(self.info)[1]
        if marked is None and self.comment is None:
            return None
        return f"{self.comment or ''} {marked or ''}".strip()

    @property
    def is_python(self) -> bool:
        """Whether it runs: it says that it is Python, or says nothing and is marked."""
        return self.language in PYTHON or (not self.language and self.words is not None)


def find_fences(text: str) -> list[Fence]:
    """Find the fenced blocks of a Markdown text, those in lists too; not those in quotations."""
    lines = text.split("\n")
    tokens = MarkdownIt("commonmark").parse(text)
    return [
        _fence(lines, before, token)
        for before, token in zip([None, *tokens], tokens, strict=False)
        if token.type == "fence" and token.map is not None and not _is_quoted(lines, token)
    ]


def _is_quoted(lines: Sequence[str], token: Token) -> bool:
    return token.map is not None and lines[token.map[0]].lstrip().startswith(">")


def _fence(lines: Sequence[str], before: Token | None, token: Token) -> Fence:
    start, end = token.map or [0, 0]
    opening = lines[start]
    indent = opening.find(token.markup)
    comment, above = None, start
    if before is not None and before.type == "html_block" and before.map is not None:
        comment = read_comment(before.content)
        above = before.map[0] if comment is not None else start
    return Fence(above, start, end, token.info, token.content, max(indent, 0), comment)


def parse_markdown(path: Path, text: str) -> Document:
    """Split a Markdown document into its title and blocks."""
    title, body = _split_front_matter(text)
    title, body = split_title(title, body)
    lines = body.split("\n")
    blocks: list[Block] = []
    at, indent = 0, 0
    for fence in find_fences(body):
        if not fence.is_python:
            continue
        blocks += _prose(lines, at, fence.start, indent)
        blocks += filter(None, [code_of(fence)])
        at, indent = fence.end, fence.indent
    blocks += _prose(lines, at, len(lines), indent)
    return Document(path, text, title or path.stem, tuple(blocks))


def _split_front_matter(text: str) -> tuple[str, str]:
    """Return the title that front matter gives, and the text with the front matter blanked."""
    found = _FRONT_MATTER.match(text)
    if found is None:
        return "", text
    title = _TITLE.search(found["fields"])
    blank = "\n" * found[0].count("\n")
    return title["title"].strip("\"'") if title else "", blank + text[found.end() :]


def split_title(title: str, text: str) -> tuple[str, str]:
    """Return the title and the text with its first heading blanked, where that is a title."""
    tokens = MarkdownIt("commonmark").parse(text)
    first = next((n for n, token in enumerate(tokens) if token.type != "html_block"), None)
    if first is None or tokens[first].type != "heading_open" or tokens[first].tag != "h1":
        return title, text
    start, end = tokens[first].map or [0, 0]
    lines = text.split("\n")
    lines[start:end] = [""] * (end - start)
    return tokens[first + 1].content, "\n".join(lines)


def _prose(lines: Sequence[str], start: int, end: int, indent: int) -> Iterator[Prose]:
    """Yield the lines [start, end) where there is text in them, without blank lines around it."""
    numbers = [number for number in range(start, end) if lines[number].strip()]
    if numbers:
        kept = lines[numbers[0] : numbers[-1] + 1]
        yield Prose("\n".join(_outdented(kept, indent)), numbers[0] + 1)


def _outdented(lines: Sequence[str], indent: int) -> Iterator[str]:
    """Take what went on in a list item after a fence out of it, down to the next item."""
    for number, line in enumerate(lines):
        if line.strip() and len(line) - len(line.lstrip()) < indent:
            yield from lines[number:]
            return
        yield line[indent:]


def code_of(fence: Fence) -> Code | None:
    """Return the code of a fence without blank lines around it; None where there is none."""
    lines = fence.content.rstrip("\n").split("\n")
    skipped = next((number for number, line in enumerate(lines) if line.strip()), None)
    if skipped is None:
        return None
    text, line = "\n".join(lines[skipped:]).rstrip(), fence.opening + 2 + skipped
    marks = parse_marks(fence.words or "")
    if _PROMPT.match(text):
        return Code(without_prompts(text), line, marks, echo="each")
    return Code(textwrap.dedent(text), line, marks)


def without_prompts(text: str) -> str:
    """Return what was typed at `>>>` and `...`; what was printed becomes empty lines."""
    lines = [line[4:] if _PROMPT.match(line) else "" for line in text.split("\n")]
    return "\n".join(lines).rstrip()
