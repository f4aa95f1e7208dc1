"""Documents in; each of them run, several at once, as pages that are still plain data, out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

from tracer.docgen.blocks import Document
from tracer.docgen.kept import read_kept, reusable
from tracer.docgen.page import Page, make_page
from tracer.docgen.run import TIMEOUT, run_document, stretches

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How documents are run: `jobs` at once, `timeout` in seconds for each block, all of them
    `again`. `raw_html` lets HTML in their prose act."""

    jobs: int = 1
    timeout: float = TIMEOUT
    again: bool = False
    raw_html: bool = False


@dataclass(frozen=True, slots=True)
class BuildFailure:
    """Something in a document that failed; `line` is 0 where it is the document as a whole."""

    source: Path
    line: int
    message: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.source}{f':{self.line}' if self.line else ''}: {self.message}"


@dataclass(frozen=True, slots=True)
class Made:
    """A document, the page of it, the modules beside it, and how many blocks were reused."""

    document: Document
    page: Page
    modules: tuple[str, ...]
    reused: int = 0


def make_all(
    documents: Sequence[Document],
    reuse: Path | None,
    options: Options,
    progress: Progress | None = None,
) -> list[Made]:
    """Run the documents, some at once; those parts of them that need it, where `reuse` has some."""
    counter = _Counter(len(documents), progress or _tell_nobody)
    with ThreadPoolExecutor(max_workers=max(options.jobs, 1)) as pool:
        made = [pool.submit(_make, one, reuse, options, counter) for one in documents]
        try:
            return [one.result() for one in made]
        finally:
            counter.over.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _tell_nobody(what: str, done: int, total: int) -> None:
    pass


class _Counter:
    """Tells of progress, from several threads; and tells them when it is over."""

    def __init__(self, total: int, tell: Progress) -> None:
        self.over = Event()
        self._total = total
        self._tell = tell
        self._done = 0
        self._lock = Lock()

    def begun(self, what: str) -> None:
        with self._lock:
            self._tell(what, self._done, self._total)

    def ended(self, what: str) -> None:
        with self._lock:
            self._done += 1
            self._tell(what, self._done, self._total)


def _make(document: Document, reuse: Path | None, options: Options, counter: _Counter) -> Made:
    name, stem = document.path.name, document.path.stem
    counter.begun(name)
    kept = read_kept(reuse, stem) if reuse is not None else None
    reused = reusable(document, kept, reuse, stem) if kept and reuse else {}
    only = [numbers for numbers in stretches(document.code) if not set(numbers) <= set(reused)]
    total = len(document.code)

    def tell(block: int) -> None:
        counter.begun(f"{name}, block {block + 1} of {total}")

    with run_document(
        document, only=only, timeout=options.timeout, begun=tell, given_up=counter.over.is_set
    ) as run:
        page = make_page(stem, document, run, reused)
    before = tuple(kept.modules) if kept and reused else ()
    counter.ended(name)
    return Made(document, page, tuple(sorted({*run.modules, *before})), len(reused))


def failures_of(made: Made) -> list[BuildFailure]:
    """Return what failed in a document."""
    path = made.document.path
    return [BuildFailure(path, row.line, row.message, row.place) for row in made.page.mistakes]
