"""The text of a Jupyter notebook in; its title, its prose and its code cells out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from tracer.docgen.blocks import Block, Code, Document, Prose
from tracer.docgen.fences import split_title
from tracer.docgen.scripts import take_remark
from tracer.errors import ScriptError

TAGS = {
    "skip-execution": "skip",
    "raises-exception": "expect-error",
    "remove-cell": "setup",
    "remove-input": "setup",
}
"""The tags that notebooks know, and the marks they stand for."""

_MAGIC = re.compile(r"^(\s*)([%!].*|[A-Za-z_][\w.]*\?{1,2})$", re.MULTILINE)
_CELL_MAGIC = re.compile(r"%%(?P<name>\w+)(?P<words>.*)\n?")
_STILL_PYTHON = frozenset({"tracer", "time", "capture", "prun"})


def parse_notebook(path: Path, text: str) -> Document:
    """Split a notebook into its title and blocks; raise `ScriptError` where it is none.

    Lines count through the code of all cells, one empty line between two.
    """
    notebook = _read(path, text)
    blocks: list[Block] = []
    lines: list[str] = []
    cells = []
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code" and cell.source.strip():
            first = len(lines) + 1
            cells.append((first, number))
            blocks += _code(cell.source, first, cell.metadata.get("tags", ()))
            lines += [*cell.source.split("\n"), ""]
        elif cell.cell_type == "markdown":
            blocks += [Prose(cell.source, len(lines) + 1)] if cell.source.strip() else []
    title, blocks = _title(path, blocks)
    return Document(path, "\n".join(lines), title, tuple(blocks), tuple(cells))


def _read(path: Path, text: str) -> Any:
    try:
        nbformat = import_module("nbformat")
    except ImportError as error:
        raise ScriptError(
            f"{path} is a notebook, which takes nbformat: pip install 'autograd-tracer[notebook]'"
        ) from error
    try:
        notebook = nbformat.reads(text, as_version=4)
    except Exception as error:  # nbformat raises what its parts raise: JSON, schema, attributes
        raise ScriptError(f"{path} is no notebook: {str(error).splitlines()[0]}") from error
    language = notebook.metadata.get("language_info", {}).get("name", "python")
    if not str(language).lower().startswith(("python", "ipython")):
        raise ScriptError(f"{path} is a notebook in {language}, not in Python")
    return notebook


def _title(path: Path, blocks: list[Block]) -> tuple[str, list[Block]]:
    """Return the title and the blocks without it: the heading that the first cell begins with."""
    if not blocks or not isinstance(blocks[0], Prose):
        return path.stem, blocks
    title, rest = split_title("", blocks[0].text)
    first = [Prose(rest.strip("\n"), blocks[0].line)] if rest.strip() else []
    return title or path.stem, [*first, *blocks[1:]]


def _code(source: str, first: int, tags: object) -> Iterator[Block]:
    words = " ".join(TAGS[tag] for tag in tags if tag in TAGS)  # type: ignore[attr-defined]
    magic = _CELL_MAGIC.match(source)
    if magic is not None and magic["name"] not in _STILL_PYTHON:
        yield Prose(f"~~~~~~\n{source.rstrip()}\n~~~~~~", first)
        return
    if magic is not None:
        words += magic["words"] if magic["name"] == "tracer" else ""
        source, first = source[magic.end() :], first + 1
    text, skipped, marks = take_remark(source.rstrip(), words)
    if text.strip():
        yield Code(text, first + skipped, marks, "last", python=plain_python(text))


def plain_python(source: str) -> str:
    """Return a cell's source as Python: lines that only IPython understands do nothing."""
    return _MAGIC.sub(lambda line: f"{line[1]}pass  # {line[2]}", source)
