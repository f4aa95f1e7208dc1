"""Python source of any shape comes in; the same on one line, not too long, goes out."""

from __future__ import annotations

import re

LONGEST = 120

_PART = re.compile(
    r"""(?P<string>'''(?:\\.|(?!''').)*''' | \"""(?:\\.|(?!\""").)*\"""
                 | '(?:\\.|[^'\\\n])*'     | "(?:\\.|[^"\\\n])*")
      | (?P<gap>(?:[ \t\f\n] | \\\n | \#[^\n]*)+)
      | (?P<rest>.)""",
    re.VERBOSE | re.DOTALL,
)
_OPENING, _CLOSING = "([{", ")]}"


def one_line(source: str) -> str:
    """Put source on one line as its author would have, at most `LONGEST` characters of it."""
    if "\n" not in source and "#" not in source and "  " not in source and "\t" not in source:
        return shorten(source.strip())
    line = _Line()
    for part in _PART.finditer(source.strip()):
        line.add(part.lastgroup or "", part.group())
    return shorten(line.text.strip())


def shorten(text: str) -> str:
    """Leave out the middle of a text of more than `LONGEST` characters."""
    if len(text) <= LONGEST:
        return text
    half = (LONGEST - 3) // 2
    return f"{text[:half].rstrip()} … {text[-half:].lstrip()}"


class _Line:
    """A line that grows by parts; knows which brackets are open and how many commas each has."""

    def __init__(self) -> None:
        self.text = ""
        self._gap = ""
        self._commas = [0]

    def add(self, kind: str, part: str) -> None:
        if kind == "gap":
            self._gap = part
            return
        self._close_gap(part)
        if part in _OPENING:
            # What is called or indexed has no one-tuple to lose: its last comma may go.
            is_applied = bool(re.search(r"[\w\])'\"]$", self.text))
            self._commas.append(1 if is_applied and part == "(" else 0)
        elif part in _CLOSING and len(self._commas) > 1:
            self._commas.pop()
        elif part == ",":
            self._commas[-1] += 1
        self.text += re.sub(r"\s*\n\s*", " ", part) if kind == "string" else part

    def _close_gap(self, part: str) -> None:
        """Write the space that separates what is there from the part that follows."""
        gap, self._gap = self._gap, ""
        if "\n" not in gap:
            self.text += " " if gap else ""
            return
        if part in _CLOSING and self.text.endswith(",") and self._commas[-1] > 1:
            self.text = self.text[:-1]
        if not (part in _CLOSING or part == "." or self.text[-1:] in _OPENING):
            self.text += " "
