"""Cells in, one aligned and perhaps coloured line of text for a terminal or a log out."""

from __future__ import annotations

from enum import Enum

from tracer.records import words
from tracer.records.graph import Site


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

    def __init__(self, width: int, color: bool, *, files: int = 1) -> None:
        self._color = color
        self._event = 20 if width >= 100 else 16
        where = min(max((width - 30) * 4 // 10, 20), 44)
        self._widths = (3, 11, self._event, where, 5 if files <= 1 else 16)
        self.call = where + self._event

    def header(self) -> str:
        """The names of the columns."""
        return self.row(("#", "t µs", "event", "where", "line", "gradient"), Tone.FAINT)

    def heading(self, left: str, right: str) -> str:
        """The first line of a section."""
        room = sum(self._widths) + 2 * len(self._widths)
        return f"{self.dye(words.padded(left, room - 1), Tone.HEADING)} {right}".rstrip()

    def row(self, cells: tuple[str, str, str, str, str, str], tone: Tone = Tone.PLAIN) -> str:
        """One line; the last cell takes the room it needs."""
        step, time, event, where, place, text = cells
        numbers, times, events, wheres, places = self._widths
        columns = (
            " " * (numbers - words.width(step)) + step,
            " " * (times - words.width(time)) + time,
            _fitted(event, events),
            _fitted(where, wheres),
            _fitted(place, places),
        )
        left, line = "  ".join(columns[:2]), "  ".join(columns[2:])
        return f"{left}  {self.dye(f'{line}  {words.one_line(text)}'.rstrip(), tone)}".rstrip()

    def place(self, site: Site | None, script: str) -> str:
        """`:7` in the script itself, `model.py:7` elsewhere."""
        if site is None:
            return ""
        return f":{site.line}" if site.file == script else words.file_line(site)

    def dye(self, text: str, tone: Tone) -> str:
        """The text in the tone's colour, where colour is wanted."""
        return f"\x1b[{tone.value}m{text}\x1b[0m" if self._color and tone.value else text


def _fitted(text: str, columns: int) -> str:
    short = words.shorten(text, columns)
    while words.width(short) > columns:
        short = words.shorten(short, len(short) - 1)
    return words.padded(short, columns)
