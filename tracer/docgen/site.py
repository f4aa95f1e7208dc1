"""Documents in; a folder of pages, with an index, as HTML and as Markdown out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracer.docgen.blocks import Document, Prose
from tracer.docgen.kept import keep, read_kept
from tracer.docgen.making import BuildFailure, Made, Options, Progress, failures_of, make_all
from tracer.docgen.page import NOT_RUN, CodeStep, Page, ProseStep
from tracer.docgen.prose import Links, Renderer, plain_text
from tracer.docgen.run import stretches
from tracer.docgen.sources import KINDS, read_document
from tracer.docgen.writing import (
    Place,
    alt,
    prose_filter,
    shown_steps,
    squeezed,
    to_html,
    to_markdown,
)
from tracer.errors import ScriptError
from tracer.report.figures import Drawing
from tracer.report.markup import environment

INDEX = "index"


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What `build` wrote: the index, a page for each document, and what failed on the way.

    `blocks` is how many blocks run, `reused` how many of them did not have to run again.
    """

    index: Path
    pages: tuple[Path, ...]
    failures: tuple[BuildFailure, ...]
    blocks: int = 0
    reused: int = 0


@dataclass(frozen=True, slots=True)
class _Card:
    """A page on the index, its title and summary as HTML."""

    stem: str
    title: str
    summary: str
    drawing: Drawing | None


def build(
    sources: Sequence[Path],
    out: Path,
    options: Options | None = None,
    *,
    progress: Progress | None = None,
) -> BuildResult:
    """Run each document under tracing and write a page of it, and an index, into a folder.

    A source is a document or a folder of them. `progress` is called with what is being done, how
    many documents are done and how many there are. A block that fails is shown with its error and
    is among the failures; the pages are written all the same. Raises `ScriptError` where there is
    nothing to build, or two documents would get the same page.
    """
    options = options or Options()
    paths = find_documents(sources)
    check_names(paths)
    out.mkdir(parents=True, exist_ok=True)
    documents, failures = read_all(paths)
    made = make_all(documents, None if options.again else out, options, progress)
    site = Site.of(sources, documents, out, options)
    for one in made:
        failures += failures_of(one)
        site.write(one)
    site.write_index([one.page for one in made], failures)
    return BuildResult(
        out / f"{INDEX}.html",
        tuple(out / f"{one.page.stem}.html" for one in made if one.page.stem != INDEX),
        tuple(failures),
        sum(map(len, (number for one in made for number in stretches(one.document.code)))),
        sum(one.reused for one in made),
    )


def find_documents(sources: Sequence[Path]) -> list[Path]:
    """List the documents that the sources are or hold; raises `ScriptError` where there is none."""
    return list(dict.fromkeys(path for source in sources for path in _documents_in(source)))


def _documents_in(source: Path) -> Iterator[Path]:
    if source.is_dir():
        found = sorted(path for path in source.iterdir() if _is_document(path))
        if not found:
            raise ScriptError(f"no document in {source}: they end in {', '.join(KINDS)}")
        yield from found
    elif not source.exists():
        raise ScriptError(f"no such document: {source}")
    elif source.suffix not in KINDS:
        raise ScriptError(f"{source} is no document: they end in {', '.join(KINDS)}")
    else:
        yield source


def _is_document(path: Path) -> bool:
    return path.suffix in KINDS and not path.name.startswith((".", "_")) and path.is_file()


def check_names(paths: Sequence[Path]) -> None:
    """Raise `ScriptError` where two documents would get the same page."""
    taken: dict[str, Path] = {}
    for path in paths:
        if path.stem in taken:
            raise ScriptError(
                f"{path} and {taken[path.stem]} would both become {path.stem}.html: rename one"
            )
        taken[path.stem] = path


def read_all(paths: Sequence[Path]) -> tuple[list[Document], list[BuildFailure]]:
    """Read the documents, in the order that the index gives them, and say which cannot be read."""
    documents, failures = [], []
    for path in paths:
        try:
            documents.append(read_document(path))
        except ScriptError as error:
            failures.append(BuildFailure(path, 0, str(error)))
    return _in_order(documents), failures


def _in_order(documents: Sequence[Document]) -> list[Document]:
    """Put the documents in the order in which the one called `index` links to them."""
    index = next((one for one in documents if one.path.stem == INDEX), None)
    if index is None:
        return list(documents)
    text = "\n".join(block.text for block in index.blocks if isinstance(block, Prose))
    links = [Path(link).stem for link in re.findall(r"\]\(([^)\s#]+)", text)]
    place = {stem: number for number, stem in reversed(list(enumerate(links)))}
    return sorted(
        documents,
        key=lambda one: (one is not index, place.get(one.path.stem, len(links))),
    )


@dataclass(frozen=True, slots=True)
class Site:
    """The folder of pages: `index` is the document that introduces them, where there is one."""

    out: Path
    title: str
    index: Document | None
    pages: tuple[tuple[str, str], ...]
    stems: dict[Path, str]
    raw_html: bool = False

    @classmethod
    def of(
        cls, sources: Sequence[Path], documents: Sequence[Document], out: Path, options: Options
    ) -> Site:
        """Lay out the folder for some documents."""
        index = next((one for one in documents if one.path.stem == INDEX), None)
        rest = [one for one in documents if one is not index]
        return cls(
            out,
            index.title if index is not None else _title(sources),
            index,
            tuple((one.path.stem, one.title) for one in rest),
            {one.path.resolve(): one.path.stem for one in documents},
            options.raw_html,
        )

    def place(self, document: Document) -> Place:
        """Return where the page of a document is among the others."""
        links = self.links(document)
        return Place(document.path.stem, self.pages, links, self.raw_html)

    def links(self, document: Document) -> Links:
        """Return where links in a document lead."""
        return Links(document.path.resolve().parent, self.out, self.stems)

    def write(self, made: Made) -> None:
        """Write the page of a document and its pictures, and take away those it had before."""
        page = made.page
        before = read_kept(self.out, page.stem)
        for name in before.files if before else ():
            if name not in page.pictures and Path(name).parts[:-1] == (page.stem,):
                (self.out / name).unlink(missing_ok=True)
        for name, svg in page.pictures.items():
            (self.out / name).parent.mkdir(exist_ok=True)
            (self.out / name).write_text(svg, "utf-8")
        if made.document is not self.index:
            place = self.place(made.document)
            (self.out / f"{page.stem}.html").write_text(to_html(page, place), "utf-8")
            (self.out / f"{page.stem}.md").write_text(to_markdown(page, place), "utf-8")
        if page.code:
            keep(made.document, page, made.modules, self.out)

    def write_index(self, pages: Sequence[Page], failures: Sequence[BuildFailure]) -> None:
        """Write the page that leads to all others."""
        html = self.index_html(pages, failures)
        (self.out / f"{INDEX}.html").write_text(html, "utf-8")
        (self.out / f"{INDEX}.md").write_text(self.index_markdown(pages, failures), "utf-8")

    def index_html(self, pages: Sequence[Page], failures: Sequence[BuildFailure]) -> str:
        """Return the index as one HTML file."""
        links = self.links(self.index) if self.index is not None else Links()
        renderer = Renderer(links, raw_html=self.raw_html)
        index = next((page for page in pages if page.stem == INDEX), None)
        steps = shown_steps(index, renderer) if index is not None else []
        return (
            environment("tracer.docgen")
            .get_template("index.html.j2")
            .render(
                title=renderer.inline(self.title),
                plain_title=plain_text(self.title),
                steps=steps,
                cards=[self._card(page) for page in pages if page is not index],
                failures=failures,
                not_run=NOT_RUN,
                raw_html=self.raw_html,
            )
        )

    def index_markdown(self, pages: Sequence[Page], failures: Sequence[BuildFailure]) -> str:
        """Return the index as Markdown."""
        index = next((page for page in pages if page.stem == INDEX), None)
        links = self.links(self.index) if self.index is not None else Links()
        place = Place(INDEX, self.pages, links, self.raw_html)
        steps: tuple[ProseStep | CodeStep, ...] = index.steps if index is not None else ()
        made = environment("tracer.docgen")
        made.filters.update(prose=prose_filter(place), alt=alt)
        rest = [page for page in pages if page is not index]
        text = made.get_template("index.md.j2").render(
            title=self.title, steps=steps, pages=rest, failures=failures
        )
        return squeezed(text)

    def _card(self, page: Page) -> _Card:
        path = next((path for path, stem in self.stems.items() if stem == page.stem), None)
        links = Links(path.parent if path else None, self.out, self.stems)
        renderer = Renderer(links)
        drawn = [drawing for drawing in page.drawings if drawing.svg]
        return _Card(
            page.stem,
            renderer.inline(page.title),
            renderer.inline(page.summary),
            drawn[-1] if drawn else None,
        )


def _title(sources: Sequence[Path]) -> str:
    """Return what to call the whole: the folder that was given, else `Documents`."""
    folder = sources[0].resolve().name if len(sources) == 1 and sources[0].is_dir() else ""
    return folder.replace("_", " ").replace("-", " ").strip().capitalize() or "Documents"
