"""Documents in; a folder of pages, with an index, as HTML and as Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tracer.docgen.blocks import Document, read_document
from tracer.docgen.page import (
    DRAWN,
    Page,
    Place,
    make_page,
    picture_path,
    plot_path,
    to_html,
    to_markdown,
)
from tracer.docgen.prose import Renderer
from tracer.docgen.run import run_document
from tracer.errors import ScriptError, TracerError
from tracer.records import TraceRecord, words
from tracer.report.figures import Drawing
from tracer.report.markup import environment

Progress = Callable[[str, int, int], None]
INDEX = "index"


@dataclass(frozen=True, slots=True)
class BuildFailure:
    """Something in a document that failed; `line` is 0 where it is the document as a whole."""

    source: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.source}{f':{self.line}' if self.line else ''}: {self.message}"


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What `build` wrote: the index, a page for each document, and what failed on the way."""

    index: Path
    pages: tuple[Path, ...]
    failures: tuple[BuildFailure, ...]


@dataclass(frozen=True, slots=True)
class _Card:
    """A page on the index, its title and summary as HTML."""

    stem: str
    title: str
    summary: str
    drawing: Drawing | None


def build(sources: Sequence[Path], out: Path, *, progress: Progress | None = None) -> BuildResult:
    """Run each document under tracing and write a page of it, and an index, into a folder.

    A source is a Python script or a folder of them. `progress` is called with what is being done,
    how many steps are done and how many there are. A block that fails is shown with its error and
    is among the failures; the pages are written all the same. Raises `ScriptError` where there is
    nothing to build, or two documents would get the same page.
    """
    paths = find_documents(sources)
    _check_names(paths)
    out.mkdir(parents=True, exist_ok=True)
    documents, failures = _read_all(paths)
    titles = tuple((document.path.stem, document.title) for document in documents)
    tell = progress or _tell_nobody
    pages = []
    for done, document in enumerate(documents):
        tell(document.path.name, done, len(documents))
        page = _run(document)
        _write(page, Place(page.stem, titles), out)
        pages.append(page)
        failures += _failures(document, page)
    tell(INDEX, len(documents), len(documents))
    index = _write_index(pages, failures, out, _title(sources))
    written = tuple(out / f"{page.stem}.html" for page in pages)
    return BuildResult(index, written, tuple(failures))


def _tell_nobody(what: str, done: int, total: int) -> None:
    pass


def find_documents(sources: Sequence[Path]) -> list[Path]:
    """List the documents that the sources are or hold; raises `ScriptError` where there is none."""
    return list(dict.fromkeys(path for source in sources for path in _documents_in(source)))


def _documents_in(source: Path) -> Iterator[Path]:
    if source.is_dir():
        found = sorted(path for path in source.glob("*.py") if not path.name.startswith((".", "_")))
        if not found:
            raise ScriptError(f"no Python script in {source}: name a folder that holds some")
        yield from found
    elif not source.exists():
        raise ScriptError(f"no such document: {source}")
    elif source.suffix != ".py":
        raise ScriptError(f"{source} is no Python script: documents end in .py")
    else:
        yield source


def _check_names(paths: Sequence[Path]) -> None:
    taken = {INDEX: Path(f"{INDEX}.html")}
    for path in paths:
        if path.stem in taken:
            raise ScriptError(
                f"{path} and {taken[path.stem]} would both become {path.stem}.html: rename one"
            )
        taken[path.stem] = path


def _read_all(paths: Sequence[Path]) -> tuple[list[Document], list[BuildFailure]]:
    documents, failures = [], []
    for path in paths:
        try:
            documents.append(read_document(path))
        except ScriptError as error:
            failures.append(BuildFailure(path, 0, str(error)))
    return documents, failures


def _run(document: Document) -> Page:
    """Run a document; a trace that cannot be read costs its pictures, not the page."""
    with run_document(document) as run:
        try:
            return make_page(document.path.stem, document, run)
        except TracerError as error:
            told = replace(run, trace=TraceRecord(), problem=words.one_line(str(error)))
            return make_page(document.path.stem, document, told)


def _failures(document: Document, page: Page) -> Iterator[BuildFailure]:
    for problem in page.problems:
        yield BuildFailure(document.path, 0, problem)
    for failure in (step.failure for step in page.code if step.failure):
        said = f"{failure.type}: {failure.message}".removeprefix(": ")
        yield BuildFailure(document.path, failure.line, words.one_line(said))
    undrawn = {drawing.problem for drawing in page.drawings if drawing.problem}
    yield from (BuildFailure(document.path, 0, problem) for problem in sorted(undrawn))


def _write(page: Page, place: Place, out: Path) -> None:
    (out / f"{page.stem}.html").write_text(to_html(page, place), "utf-8")
    (out / f"{page.stem}.md").write_text(to_markdown(page, place), "utf-8")
    pictures = {picture_path(page, drawing): drawing.svg for drawing in page.drawings}
    pictures |= {plot_path(page, plot): plot.svg for plot in page.plots}
    for pattern in DRAWN:
        for old in (out / page.stem).glob(pattern):
            old.unlink()
    for path, svg in pictures.items():
        if svg:
            (out / path).parent.mkdir(exist_ok=True)
            (out / path).write_text(svg, "utf-8")


def _title(sources: Sequence[Path]) -> str:
    """Return what to call the whole: the folder that was given, else `Documents`."""
    folder = sources[0].resolve().name if len(sources) == 1 and sources[0].is_dir() else ""
    return folder.replace("_", " ").replace("-", " ").strip().capitalize() or "Documents"


def _write_index(
    pages: Sequence[Page], failures: Sequence[BuildFailure], out: Path, title: str
) -> Path:
    made = environment("tracer.docgen")
    html = made.get_template("index.html.j2")
    cards = [_card(page) for page in pages]
    index = out / f"{INDEX}.html"
    index.write_text(html.render(title=title, cards=cards, failures=failures), "utf-8")
    markdown = made.get_template("index.md.j2")
    (out / f"{INDEX}.md").write_text(
        markdown.render(title=title, pages=pages, failures=failures), "utf-8"
    )
    return index


def _card(page: Page) -> _Card:
    renderer = Renderer()
    drawn = [drawing for drawing in page.drawings if drawing.svg]
    return _Card(
        page.stem,
        renderer.inline(page.title),
        renderer.inline(page.summary),
        drawn[-1] if drawn else None,
    )
