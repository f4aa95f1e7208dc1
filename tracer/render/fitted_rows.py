"""Rows of cells in; aligned lines that fit so many columns of a terminal out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tracer.records import words

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Column:
    """How a column gives way where there is no room for all.

    It is shortened in the middle down to `least` columns (0: never), and columns are left out whole
    from the greatest `leave` on (0: never).
    """

    least: int = 0
    leave: int = 0


def fitted_rows(
    rows: Sequence[Row], columns: Sequence[Column], *, width: int, indent: int = 2, gap: int = 2
) -> Iterator[str]:
    """Lay rows out; of a line that is too long whatever gives way, the middle is left out."""
    cells = [[words.one_line(cell) for cell in row] for row in rows]
    kept = [at for at in range(len(columns)) if any(row[at] for row in cells)]
    room = width - indent
    while _needed(cells, columns, kept, gap) > room:
        leaving = [at for at in kept if columns[at].leave]
        if not leaving:
            break
        kept.remove(max(leaving, key=lambda at: columns[at].leave))
    widths = _widths(cells, columns, kept, room - gap * (len(kept) - 1))
    for row in cells:
        parts = (words.padded(_fitted(row[at], widths[at]), widths[at]) for at in kept)
        line = (" " * gap).join(parts).rstrip()
        yield f"{' ' * indent}{_fitted(line, room)}"


def _natural(cells: Sequence[Row], at: int) -> int:
    return max((words.width(row[at]) for row in cells), default=0)


def _least(cells: Sequence[Row], columns: Sequence[Column], at: int) -> int:
    natural, least = _natural(cells, at), columns[at].least
    return min(natural, least) if least else natural


def _needed(
    cells: Sequence[Row], columns: Sequence[Column], kept: Sequence[int], gap: int
) -> int:  # fmt: skip
    return sum(_least(cells, columns, at) for at in kept) + gap * (len(kept) - 1)


def _widths(
    cells: Sequence[Row], columns: Sequence[Column], kept: Sequence[int], room: int
) -> dict[int, int]:
    """Columns as wide as they would be, the widest of those that can give way made narrower."""
    widths = {at: _natural(cells, at) for at in kept}
    while sum(widths.values()) > room:
        giving = [at for at in kept if widths[at] > _least(cells, columns, at)]
        if not giving:
            break
        widths[max(giving, key=lambda at: widths[at])] -= 1
    return widths


def _fitted(text: str, columns: int) -> str:
    limit = columns
    while words.width(text) > columns and limit > 0:
        text = words.shorten(text, limit)
        limit -= 1
    return text
