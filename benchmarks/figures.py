"""Rows of figures in; one JSON file out, which holds those of every benchmark with the machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import describe_machine


class Figures:
    """What one benchmark finds, kept in a file as it comes: a run that is stopped loses nothing.

    The file holds a part for each benchmark; the parts of others stay as they are.
    """

    def __init__(self, part: str, file: str | None) -> None:
        self._part = part
        self._file = None if file is None else Path(file)
        self._machine = asdict(describe_machine())
        self._rows: list[dict[str, Any]] = []

    def add(self, rows: Iterable[Any]) -> None:
        """Keep some more rows, each a dataclass."""
        self._rows += [asdict(row) for row in rows]
        self._write(complete=False)

    def finish(self) -> None:
        """Say that these are all that were asked for."""
        self._write(complete=True)

    def _write(self, *, complete: bool) -> None:
        if self._file is None:
            return
        told = read_figures(self._file)
        told[self._part] = {"machine": self._machine, "complete": complete, "rows": self._rows}
        fresh = self._file.with_name(f".{self._file.name}.new")
        fresh.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        fresh.replace(self._file)


def read_figures(file: Path) -> dict[str, Any]:
    """Read what a file holds, by part; nothing where there is no file."""
    if not file.exists():
        return {}
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return told


def tell(*cells: str, widths: Sequence[int]) -> None:
    """Print cells as a row: to the left in columns of positive width, to the right in others."""
    pairs = zip(cells, widths, strict=False)
    fitted = (f"{cell:<{width}}" if width > 0 else f"{cell:>{-width}}" for cell, width in pairs)
    sys.stdout.write("  ".join(fitted).rstrip() + "\n")
    sys.stdout.flush()
