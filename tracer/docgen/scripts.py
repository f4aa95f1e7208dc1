"""A Python script's text in; its title and its cells of prose and code out.

In the style of sphinx-gallery: a docstring (title line, then prose), then cells that begin with
`# %%` or a line of at least twenty `#`. The comment lines right below are prose, in Markdown; what
follows them is code. A line `# tracer: setup` in the prose, or first in the code, marks the code.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tracer.docgen.blocks import Block, Code, Document, Prose
from tracer.docgen.marks import Marks, parse_marks, read_remark

_CELL = re.compile(r"#\s?%%(?:\s*\[markdown\])?\s*(?P<title>.*?)\s*$|#{20,}\s*$")
_BEFORE_DOCSTRING = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING})
_BROKEN = (tokenize.TokenError, SyntaxError)


def parse_script(path: Path, text: str) -> Document:
    """Split a Python script into its title and blocks."""
    lines = text.split("\n")  # as Python counts them: splitlines() breaks at form feeds too
    title, prose, begin = _split_docstring(text)
    starts = [number for number in _cell_lines(text, lines) if number > begin]
    ends = [*(start - 1 for start in starts), len(lines)]
    blocks: list[Block] = [prose] if prose else []
    blocks += _code(lines, begin, ends[0])
    for start, end in zip(starts, ends[1:], strict=True):
        blocks += _cell(lines, start, end)
    return Document(path, text, title or path.stem, tuple(blocks))


def _split_docstring(text: str) -> tuple[str, Prose | None, int]:
    """Return the docstring's title, the prose below it, and the number of its last line (or 0)."""
    token = _first_statement(text)
    if token is None or token.type != tokenize.STRING:
        return "", None, 0
    try:
        content = ast.literal_eval(token.string)
    except (SyntaxError, ValueError):
        return "", None, 0
    if not isinstance(content, str):
        return "", None, 0
    head, below, rest = _split_title(content)
    prose = Prose(rest, token.start[0] + below) if rest else None
    return head, prose, token.end[0]


def _first_statement(text: str) -> tokenize.TokenInfo | None:
    try:
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        return next((token for token in tokens if token.type not in _BEFORE_DOCSTRING), None)
    except _BROKEN:
        return None


def _split_title(docstring: str) -> tuple[str, int, str]:
    """Return the title, how many lines below the first the rest begins, and the rest."""
    lines = docstring.splitlines()
    skipped = 0
    while lines and not lines[0].strip(" =\t"):
        lines, skipped = lines[1:], skipped + 1
    title = lines[0].strip().removeprefix("# ").strip() if lines else ""
    lines, skipped = lines[1:], skipped + 1
    while lines and not lines[0].strip(" =-\t"):
        lines, skipped = lines[1:], skipped + 1
    return title, skipped, "\n".join(lines).rstrip()


def _cell_lines(text: str, lines: list[str]) -> list[int]:
    """Return the numbers of the lines that begin a cell: comments, not lines within a string."""
    within = _lines_within_strings(text)
    return [
        number
        for number, line in enumerate(lines, start=1)
        if number not in within and _CELL.match(line)
    ]


def _lines_within_strings(text: str) -> set[int]:
    within: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            within.update(range(token.start[0] + 1, token.end[0] + 1) if _spans(token) else ())
    except _BROKEN:
        pass  # below a string that never ends, what looks like a cell is taken for one
    return within


def _spans(token: tokenize.TokenInfo) -> bool:
    return token.start[0] != token.end[0] and token.type not in (tokenize.NEWLINE, tokenize.NL)


def _cell(lines: list[str], start: int, end: int) -> Iterator[Block]:
    """Yield the prose and the code of the cell whose marker is line `start`."""
    marker = _CELL.match(lines[start - 1])
    title = (marker and marker["title"]) or ""
    last = start
    while last < end and lines[last].startswith("#"):
        last += 1
    comments = [_uncomment(line) for line in lines[start:last] if read_remark(line) is None]
    remarks = [remark for line in lines[start:last] if (remark := read_remark(line)) is not None]
    text = "\n".join([f"## {title}", "", *comments] if title else comments)
    if text.strip():
        yield Prose(text.strip("\n"), start if title else start + 1)
    yield from _code(lines, last, end, " ".join(remarks))


def _uncomment(line: str) -> str:
    return line[2:].rstrip() if line.startswith("# ") else line[1:].rstrip()


def _code(lines: list[str], after: int, end: int, remark: str = "") -> Iterator[Code]:
    """Yield what lies below line `after`, down to line `end`, where there is code in it."""
    numbers = [number for number in range(after + 1, end + 1) if lines[number - 1].strip()]
    if any(not lines[number - 1].startswith("#") for number in numbers):
        first, last = numbers[0], numbers[-1]
        text, skipped, marks = take_remark("\n".join(lines[first - 1 : last]), remark)
        yield Code(text, first + skipped, marks)


def take_remark(code: str, remark: str = "") -> tuple[str, int, Marks]:
    """Return code without a first line that marks it, how many lines that was, and the marks."""
    lines = code.split("\n")
    found = read_remark(lines[0])
    if found is None:
        return code, 0, parse_marks(remark)
    skipped = 1
    while skipped < len(lines) and not lines[skipped].strip():
        skipped += 1
    return "\n".join(lines[skipped:]), skipped, parse_marks(f"{remark} {found}")
