"""Plain text with code in it, as people paste it, in; its title, prose and code out.

Where the text has fences they say what is code. Else code is what stands at `>>>` prompts, what is
indented by four columns below a line that is not, and lines that look like Python.
"""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from tracer.docgen.blocks import Block, Code, Document, Prose
from tracer.docgen.fences import find_fences, parse_markdown, without_prompts
from tracer.docgen.marks import Marks, parse_marks, read_comment, read_remark

_NAME = r"[A-Za-z_][\w.]*(?:\[[^\]]*\])*"
_SURELY_PYTHON = re.compile(
    r"(?:import|from)\s+[A-Za-z_][\w.]*(?:\s+(?:import|as)\s+\S.*|\s*,.*)?$"
    rf"|{_NAME}(?:\s*,\s*{_NAME})*\s*(?::\s*{_NAME}\s*)?(?:[-+*/@%|&^]|//|\*\*)?=(?!=)\s*\S.*$"
    rf"|{_NAME}\(.*$"
    r"|@[A-Za-z_][\w.]*(?:\(.*)?$|(?:def|class)\s+\w+\s*\(.*$|#.*$"
)
_PERHAPS_PYTHON = re.compile(
    r"(?:async|def|class|for|while|if|elif|else|with|try|except|finally|del|assert|raise|pass|global)\b"
)
_BEFORE = {"elif": "if 1: pass\n", "else": "if 1: pass\n", "except": "try: pass\n",
           "finally": "try: pass\n"}  # fmt: skip
_GOES_ON = re.compile(r"\s+\S|[)\]}]")
_PROMPT = ">>>"
_STRING = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|#.*")
_MARK = re.compile(r"([\\`*_\[\]<>#&~|])")


def parse_plain(path: Path, text: str) -> Document:
    """Split a text into its title and blocks."""
    if find_fences(text):
        return parse_markdown(path, text)
    lines = text.split("\n")
    title, start = _title(lines)
    blocks: list[Block] = []
    marks = Marks()
    for begin, end, is_code in _runs(lines, start):
        if is_code:
            blocks += _code(lines, begin, end, marks)
            marks = Marks()
            continue
        comment = read_comment(lines[end - 1])
        if comment is not None:
            marks, end = parse_marks(comment), end - 1
        blocks += _prose(lines, begin, end)
    return Document(path, text, title or path.stem, tuple(blocks))


def _title(lines: Sequence[str]) -> tuple[str, int]:
    """Return the title, and the number of lines down to it: a first line that stands alone."""
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None or (first + 1 < len(lines) and lines[first + 1].strip()):
        return "", 0
    line = lines[first].strip()
    if len(line) > 100 or looks_like_python(line):
        return "", 0
    return line.lstrip("# ").strip(), first + 1


def looks_like_python(line: str) -> bool:
    """Whether a line that begins at the margin is more likely code than prose."""
    if _SURELY_PYTHON.match(line):
        return True
    word = _PERHAPS_PYTHON.match(line)
    if word is None:
        return False
    body = " pass" if line.partition("#")[0].rstrip().endswith(":") else ""
    try:
        ast.parse(f"{_BEFORE.get(word[0], '')}{line}\n{body}\n")
    except (SyntaxError, ValueError):
        return False
    return True


def _runs(lines: Sequence[str], start: int) -> Iterator[tuple[int, int, bool]]:
    """Yield stretches of lines [begin, end), without blank lines around them, and if code."""
    at = start
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        end = _end_of_code(lines, at)
        is_code = end > at
        if not is_code:
            end = _end_of_prose(lines, at)
        yield at, end, is_code
        at = end


def _begins_code(lines: Sequence[str], at: int) -> bool:
    line = lines[at]
    indented = line.startswith(("    ", "\t")) and (at == 0 or not lines[at - 1].strip())
    return line.startswith(_PROMPT) or indented or looks_like_python(line)


def _end_of_code(lines: Sequence[str], at: int) -> int:
    """Return the line below the code that begins at a line; the line itself where none does."""
    if not _begins_code(lines, at):
        return at
    if lines[at].startswith(_PROMPT):
        return _end_of_paragraph(lines, at)
    end = at
    while end < len(lines):
        line = lines[end]
        goes_on = not line.strip() or _begins_code(lines, end) or _GOES_ON.match(line)
        if not goes_on and not (end > at and _is_open(lines[at:end])):
            break
        end += 1
    while not lines[end - 1].strip():
        end -= 1
    return end


def _end_of_prose(lines: Sequence[str], at: int) -> int:
    """Return the line below the prose that begins at a line: down to code, blank lines included."""
    end = at + 1
    while end < len(lines) and (not lines[end].strip() or not _begins_code(lines, end)):
        end += 1
    while not lines[end - 1].strip():
        end -= 1
    return end


def _end_of_paragraph(lines: Sequence[str], at: int) -> int:
    end = at
    while end < len(lines) and lines[end].strip():
        end += 1
    return end


def _is_open(lines: Sequence[str]) -> bool:
    """Whether code goes on below: its last line leaves a string open, or the whole a bracket."""
    if not lines[-1].strip():
        return False
    if set(_STRING.sub("", lines[-1])) & set("'\""):
        return True
    try:
        list(tokenize.generate_tokens(io.StringIO("\n".join(lines) + "\n").readline))
    except tokenize.TokenError:
        return True
    except SyntaxError:
        pass
    return False


def _code(lines: Sequence[str], begin: int, end: int, marks: Marks) -> Iterator[Block]:
    text = textwrap.dedent("\n".join(lines[begin:end]))
    if text.startswith(_PROMPT):
        yield Code(without_prompts(text), begin + 1, marks, echo="each")
    elif any(line.strip() and not line.startswith("#") for line in text.split("\n")):
        remark = read_remark(lines[begin])
        yield Code(text, begin + 1, marks if remark is None else parse_marks(remark))
    else:
        yield Prose(text, begin + 1)


def _prose(lines: Sequence[str], begin: int, end: int) -> Iterator[Prose]:
    """Yield lines as Markdown in which nothing is a mark but the hyphens and numbers of lists."""
    text = "\n".join(lines[begin:end]).strip("\n")
    if text.strip():
        yield Prose(_MARK.sub(r"\\\1", text), begin + 1)
