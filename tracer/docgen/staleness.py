"""Documents and the pages that were made of them in; what in the pages is no longer true, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tracer.docgen.kept import FILE, Kept, digest, read_kept
from tracer.docgen.making import BuildFailure, Made, Options, Progress, failures_of, make_all
from tracer.docgen.page import CodeStep, drawings_of, picture_path, plot_path
from tracer.docgen.site import INDEX, Site, check_names, find_documents, read_all
from tracer.docgen.writing import to_markdown
from tracer.records import words

_ROOM = 60


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What `check` found: how many documents ran, what failed in them, and what is stale."""

    documents: int
    failures: tuple[BuildFailure, ...]
    stale: tuple[BuildFailure, ...]


def check(
    sources: Sequence[Path],
    out: Path | None,
    options: Options | None = None,
    *,
    progress: Progress | None = None,
) -> CheckResult:
    """Run each document again and compare what it does with the pages in a folder, if one is named.

    Nothing is written. What was laid out is compared, not how: another machine's fonts make no
    picture stale. Raises `ScriptError` as `build` does.
    """
    options = options or Options()
    paths = find_documents(sources)
    check_names(paths)
    documents, failures = read_all(paths)
    made = make_all(documents, None, options, progress)
    failures += [failure for one in made for failure in failures_of(one)]
    stale: list[BuildFailure] = []
    if out is not None:
        site = Site.of(sources, documents, out, options)
        stale = [found for one in made for found in _compare(one, site)]
        stale += _compare_index(made, failures, site)
    return CheckResult(len(documents), tuple(failures), tuple(stale))


def _compare(made: Made, site: Site) -> list[BuildFailure]:
    """Compare a document with what was kept of its page."""
    path, stem = made.document.path, made.page.stem
    if made.page.code:
        kept = read_kept(site.out, stem)
        if kept is None:
            return [BuildFailure(path, 0, f"{site.out / stem / FILE} is missing: build it first")]
        found = [*_blocks(made, kept), *_edited(path, kept, site.out)]
        if found:
            return found
    return _page(made, site) if stem != INDEX else []


def _page(made: Made, site: Site) -> list[BuildFailure]:
    """Compare the page as Markdown, which holds what its prose says."""
    file = site.out / f"{made.page.stem}.md"
    now = to_markdown(made.page, site.place(made.document))
    return _same(made.document.path, file, now, "its prose has changed since it was built")


def _same(source: Path, file: Path, now: str, message: str) -> list[BuildFailure]:
    if not file.is_file():
        return [BuildFailure(source, 0, f"{file} is missing: build it first")]
    return [BuildFailure(source, 0, f"{file}: {message}")] * (file.read_text("utf-8") != now)


def _compare_index(
    made: Sequence[Made], failures: Sequence[BuildFailure], site: Site
) -> list[BuildFailure]:
    now = site.index_markdown([one.page for one in made], failures)
    source = site.index.path if site.index is not None else site.out
    return _same(source, site.out / f"{INDEX}.md", now, "it lists other pages, or other words")


def _edited(source: Path, kept: Kept, out: Path) -> Iterator[BuildFailure]:
    """Yield the files that are not what was written."""
    for name, was in kept.files.items():
        if digest(out / name) != was:
            what = "was changed by hand" if (out / name).is_file() else "is missing"
            yield BuildFailure(source, 0, f"{out / name} {what}")


def _blocks(made: Made, kept: Kept) -> Iterator[BuildFailure]:
    path, stem = made.document.path, made.page.stem
    for now, was in zip_longest(made.page.code, kept.code):
        if now is None:
            yield BuildFailure(path, 0, f"block {was.number} is gone since the page was built")
        elif was is None:
            yield BuildFailure(
                path, now.line, f"block {now.number} is new since the page was built"
            )
        elif (now.text, now.marks) != (was.text, was.marks):
            yield BuildFailure(path, now.line, f"block {now.number} has changed")
        else:
            for message in _results(stem, now, was):
                yield BuildFailure(path, now.line, f"block {now.number}: {message}")


def _results(stem: str, now: CodeStep, was: CodeStep) -> Iterator[str]:
    """Yield what a block does that it did not do when its page was built."""
    if now.outputs != was.outputs:
        yield f"its output has changed: {_difference(_printed(was), _printed(now))}"
    if _raised(now) != _raised(was):
        yield f"it ends otherwise: {_difference(_raised(was), _raised(now))}"
    shown, before = _shown(stem, now), _shown(stem, was)
    for name in dict.fromkeys((*before, *shown)):
        if shown.get(name) != before.get(name):
            how = "has changed" if name in shown and name in before else "comes or goes"
            yield f"its picture {name} {how}"
    if now.scraped.story != was.scraped.story:
        yield f"its timeline has changed: {_difference(_told(was), _told(now))}"
    if now.scraped.ledgers != was.scraped.ledgers:
        yield "its ledger has changed"


def _printed(step: CodeStep) -> str:
    return "\n".join(output.text for output in step.outputs)


def _raised(step: CodeStep) -> str:
    failure = step.failure
    return f"{failure.type}: {failure.message}" if failure is not None else ""


def _told(step: CodeStep) -> str:
    return "\n".join(chapter.text for chapter in step.scraped.story)


def _shown(stem: str, step: CodeStep) -> dict[str, str]:
    """Return what each picture below a block shows, by its path."""
    drawn = {
        picture_path(stem, step, one): f"{one.digest} {one.which}" for one in drawings_of(step)
    }
    plots = {plot_path(stem, step, one): f"{one.digest}" for one in step.scraped.plots}
    return drawn | plots


def _difference(before: str, now: str) -> str:
    """Show the first line that differs, as it was and as it is."""
    for old, new in zip_longest(before.split("\n"), now.split("\n"), fillvalue=""):
        if old != new:
            return f"`{words.shorten(old, _ROOM)}` is now `{words.shorten(new, _ROOM)}`"
    return "other lines"
