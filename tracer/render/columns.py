"""Cells in, one aligned and perhaps coloured line of text for a terminal or a log out."""

from __future__ import annotations

import re
import textwrap
from enum import Enum

from tracer.records import words
from tracer.records.graph import Site

_LEAST_ROOM = 40
"""How many columns a text that is told on several lines has at least, where there are as many."""

_HANGING = 4
_TIME = 11
"""How many columns the time of a line has."""
_APART = re.compile(" {3,}")
_MOST_KEPT = 4096


class Tone(str, Enum):
    """How a line is coloured where colour is wanted: the ANSI code."""

    PLAIN = ""
    FAINT = "2"
    HEADING = "1"
    HOOK = "33"
    GRAD = "32"
    CUT = "2;3"
    WRONG = "1;31"


class Columns:
    """The columns of a timeline, laid out for a width; places are short where one file ran."""

    def __init__(
        self,
        width: int,
        color: bool,
        *,
        files: int = 1,
        steps: int = 3,
        wrap: bool = False,
        times: bool = True,
    ) -> None:
        self._color = color
        self.times = times
        self._width = width if wrap else 0
        self._is_plain = not (color or wrap)
        event = 20 if width >= 100 else 15
        where = min(max((width - 30) * 4 // 10, 20), 44)
        self._widths = (steps, _TIME, event, where, 5 if files <= 1 else 16)
        self._events, self._wheres, self._places = map(_Fitted, self._widths[2:])
        self.call = where + event

    def header(self) -> str:
        """The names of the columns."""
        return self.row("#", "t µs", "event", "where", "line", "gradient", Tone.FAINT)

    def heading(self, left: str, right: str) -> str:
        """The first line of a section; two, where both parts do not fit on one."""
        room = sum(self._widths) + 2 * len(self._widths)
        if self._width and room + words.width(right) > self._width:
            room = self._width - words.width(right)
            if room <= words.width(left):
                return f"{self.dye(left, Tone.HEADING)}\n{' ' * _HANGING}{right}".rstrip()
        return f"{self.dye(words.padded(left, room - 1), Tone.HEADING)} {right}".rstrip()

    def rule(self, title: str, facts: str) -> str:
        """A heading with a rule across the page behind it."""
        room = sum(self._widths) + 2 * len(self._widths)
        title = words.shorten(title, room - 8)
        line = "─" * max(room - 5 - words.width(title), 3)
        return f"{self.dye(f'── {title} {line}', Tone.HEADING)} {facts}".rstrip()

    def row(
        self, step: str, time: str, event: str, where: str, place: str, text: str, tone: Tone
    ) -> str:
        """One line; the last cell takes the room it needs."""
        return self.put(step, time, self.cells(event, where, place), text, tone)

    def cells(self, event: str, where: str, place: str) -> str:
        """The cells in the middle of a line: what happened, and where."""
        return f"{self._events[event]}  {self._wheres[where]}  {self._places[place]}"

    def event(self, event: str) -> str:
        """The cell of what happened."""
        return self._events[event]

    def where(self, where: str, place: str) -> str:
        """The cells of where it happened."""
        return f"{self._wheres[where]}  {self._places[place]}"

    def put(self, step: str, time: str, cells: str, text: str, tone: Tone) -> str:
        """One line around cells that are laid out."""
        left = f"{step.rjust(self._widths[0])}  "
        if self.times:
            left = f"{left}{time.rjust(_TIME)}  "
        if self._is_plain:
            return f"{left}{cells}  {words.one_line(text)}".rstrip()
        return self.line(cells, text, tone, left=left)

    def line(self, start: str, text: str, tone: Tone, *, left: str = "") -> str:
        """A start and, behind it, text that may go on in further lines; `left` is not coloured."""
        text = words.one_line(text)
        if not self._width:
            return f"{left}{self.dye(f'{start}  {text}'.rstrip(), tone)}".rstrip()
        texts, indent = self._wrapped(text, words.width(f"{left}{start}  "))
        first = f"{left}{self.dye(f'{start}  {texts[0]}'.rstrip(), tone)}".rstrip()
        return "\n".join([first, *(f"{indent}{self.dye(more, tone)}" for more in texts[1:])])

    def _wrapped(self, text: str, start: int) -> tuple[list[str], str]:
        """The lines that a text is told in behind `start` columns, and what all but the first are
        indented by."""
        if start + words.width(text) <= self._width:
            return [text], ""
        indent = min(start, max(self._width - _LEAST_ROOM, _HANGING))
        lines = _filled(text, self._width - start, self._width - indent)
        return lines, " " * indent

    def place(self, site: Site | None, script: str) -> str:
        """`:7` in the script itself, `model.py:7` elsewhere."""
        if site is None:
            return ""
        return f":{site.line}" if site.file == script else words.file_line(site)

    def dye(self, text: str, tone: Tone) -> str:
        """The text in the tone's colour, where colour is wanted."""
        return f"\x1b[{tone.value}m{text}\x1b[0m" if self._color and tone.value else text


def _filled(text: str, first: int, others: int) -> list[str]:
    """A text's parts, those that stand apart in it, on lines of so many columns."""
    lines, room = [""], first
    for part in _APART.split(text):
        joined = f"{lines[-1]}   {part}" if lines[-1] else part
        if words.width(joined) <= room:
            lines[-1] = joined
        else:
            lines += textwrap.wrap(part, max(others, 8))
            room = others
    return lines


class _Fitted(dict[str, str]):
    """Texts in just so many columns: what events are and where they happen comes often."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self._columns = columns

    def __missing__(self, text: str) -> str:
        if len(self) >= _MOST_KEPT:
            self.clear()
        fitted = self[text] = _fitted(text, self._columns)
        return fitted


def _fitted(text: str, columns: int) -> str:
    if len(text) <= columns and text.isascii() and text.isprintable():
        return text.strip(" ").ljust(columns)
    short = words.shorten(text, columns)
    while words.width(short) > columns:
        short = words.shorten(short, len(short) - 1)
    return words.padded(short, columns)
