"""What a document is made of: a title, and blocks of prose and code, each with its line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tracer.docgen.marks import Marks


@dataclass(frozen=True, slots=True)
class Prose:
    """Markdown text; `line` is its first line in the document, from 1."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Code:
    """Source without blank lines around it; `line` is its first line in the document.

    `echo` says which expressions print their value, as at a prompt: `last`, `each`, or none.
    `python` is what runs, where that is not `text` itself.
    """

    text: str
    line: int
    marks: Marks = Marks()
    echo: str = ""
    python: str = ""


Block = Prose | Code


@dataclass(frozen=True, slots=True)
class Document:
    """One source of one page: `text` is what the blocks' lines count, `title` is in Markdown.

    `cells` are the first lines of a notebook's cells with their numbers, where it is one.
    """

    path: Path
    text: str
    title: str
    blocks: tuple[Block, ...]
    cells: tuple[tuple[int, int], ...] = ()

    @property
    def code(self) -> tuple[Code, ...]:
        """The blocks of code, in order."""
        return tuple(block for block in self.blocks if isinstance(block, Code))

    def place(self, line: int) -> str:
        """Name a line for a reader: `line 12`, or `cell 3, line 2` in a notebook."""
        begun = [(first, number) for first, number in self.cells if first <= line]
        if not begun:
            return f"line {line}"
        first, number = begun[-1]
        return f"cell {number}, line {line - first + 1}"
