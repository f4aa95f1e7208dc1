"""The file of a document in; the document, read in the way of its kind, out."""

from __future__ import annotations

import tokenize
from collections.abc import Callable
from pathlib import Path

from tracer.docgen.blocks import Document
from tracer.docgen.fences import parse_markdown
from tracer.docgen.notebooks import parse_notebook
from tracer.docgen.plain import parse_plain
from tracer.docgen.scripts import parse_script
from tracer.errors import ScriptError

_PARSERS: dict[str, Callable[[Path, str], Document]] = {
    ".py": parse_script,
    ".md": parse_markdown,
    ".markdown": parse_markdown,
    ".txt": parse_plain,
    ".ipynb": parse_notebook,
}
KINDS = tuple(_PARSERS)
"""The endings of files that are documents."""


def read_document(path: Path) -> Document:
    """Read a document from its file.

    Raises `ScriptError` where it cannot be read as text in the encoding that it declares, or is no
    notebook though it is called one.
    """
    try:
        text = _read_script(path) if path.suffix == ".py" else path.read_text("utf-8-sig")
    except OSError as error:
        raise ScriptError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, SyntaxError) as error:
        raise ScriptError(f"{path} is not text in UTF-8: save it as UTF-8") from error
    return _PARSERS[path.suffix](path, text)


def _read_script(path: Path) -> str:
    with tokenize.open(path) as file:
        return file.read()
