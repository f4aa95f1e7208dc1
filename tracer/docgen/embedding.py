"""The blocks of a page that another tool builds in; the blocks, run, with their results, out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tracer.docgen.blocks import Code, Document
from tracer.docgen.kept import keep, read_kept, reusable
from tracer.docgen.page import CodeStep, Page, make_page
from tracer.docgen.run import TIMEOUT, run_document, stretches

Warn = Callable[[int, str], None]


def run_blocks(
    path: Path,
    text: str,
    code: Sequence[Code],
    *,
    cache: Path,
    stem: str,
    timeout: float = TIMEOUT,
    warn: Warn,
) -> tuple[CodeStep, ...]:
    """Run blocks of a document whose other parts are somebody else's, reusing what `cache` keeps.

    `text` is the whole document, in whose lines the blocks stand; `stem` tells it from the others
    in the cache. `warn` is called with line and message of all that fails.
    """
    document = Document(path, text, stem, tuple(code))
    cache.mkdir(parents=True, exist_ok=True)
    kept = read_kept(cache, stem)
    reused = reusable(document, kept, cache, stem)
    only = [numbers for numbers in stretches(document.code) if not set(numbers) <= set(reused)]
    with run_document(document, only=only, timeout=timeout) as run:
        page = make_page(stem, document, run, reused)
    _store(document, page, run.modules or tuple(kept.modules if kept else ()), cache)
    for mistake in page.mistakes:
        warn(mistake.line, mistake.message)
    return page.code


def _store(document: Document, page: Page, modules: Sequence[str], cache: Path) -> None:
    for name, svg in page.pictures.items():
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_text(svg, "utf-8")
    keep(document, page, modules, cache)


def find_line(text: str, code: str, guess: int) -> int:
    """Return the line of a document that code begins at: the guess if it is there, else where it is
    found first, else the guess all the same."""
    wanted = [line.strip() for line in code.split("\n")]
    lines = [line.strip() for line in text.split("\n")]
    near = sorted(range(len(lines) - len(wanted) + 1), key=lambda at: abs(at + 1 - guess))
    found = (at + 1 for at in near if lines[at : at + len(wanted)] == wanted)
    return next(found, guess)
