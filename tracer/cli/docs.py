"""`tracer docs`: documents whose code is run and traced in, pages out, or what in them is stale."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from tracer import docgen
from tracer.cli.progress import counting
from tracer.records.words import count

P = ParamSpec("P")
R = TypeVar("R")

EPILOG = """\b
Examples:
  tracer docs build examples -o build/docs
  tracer docs build notes.md tutorial.ipynb -o build/docs -j 2
  tracer docs check examples -o build/docs
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """Build pages from documents whose code is run and traced, and check they still hold."""


def shared(function: Callable[P, R]) -> Callable[P, R]:
    """Give a command the documents, and the options that say how they are run."""
    options = (
        click.argument(
            "sources", metavar="SRC...", nargs=-1, required=True, type=click.Path(path_type=Path)
        ),
        click.option(
            "-j",
            "--jobs",
            metavar="N",
            default=1,
            show_default=True,
            type=click.IntRange(1, 64),
            help="Run N documents at once.",
        ),
        click.option(
            "--timeout",
            metavar="SECONDS",
            default=60.0,
            show_default=True,
            type=click.FloatRange(0),
            help="What one block may take; 0 for as long as it likes.",
        ),
        click.option(
            "--raw-html",
            is_flag=True,
            help="Let HTML in the prose of Markdown act. It is shown as text otherwise.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@command.command(epilog=EPILOG)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder that the pages go to; it is made if it is not there.",
)
@click.option("--again", is_flag=True, help="Run every block, also where nothing has changed.")
@shared
def build(
    *,
    sources: tuple[Path, ...],
    output: Path,
    jobs: int,
    timeout: float,
    raw_html: bool,
    again: bool,
) -> None:
    """Run documents under tracing and write a page of each: prose, code, output, picture, timeline.

    SRC is a document or a folder of them: Markdown with fenced Python (.md), text with code (.txt),
    a script whose comments are its prose (.py), a notebook (.ipynb). The pages are HTML and
    Markdown, with an index. A block that fails is shown with its error and those below it go on;
    the exit status is then 1. Blocks that have not changed are not run again.
    """
    options = docgen.Options(jobs, timeout, again, raw_html)
    with counting() as progress:
        result = docgen.build(sources, output, options, progress=progress)
    _complain(result.failures)
    reused = f" ({result.reused} of {count(result.blocks, 'block')} as before)"
    said = f"{result.index}: an index of {count(len(result.pages), 'page')}"
    click.echo(f"{said}{reused if result.reused else ''}")
    if result.failures:
        sys.exit(1)


@command.command(epilog=EPILOG)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="The pages to compare with.  [default: none, only what fails is said]",
)
@shared
def check(
    *, sources: tuple[Path, ...], output: Path | None, jobs: int, timeout: float, raw_html: bool
) -> None:
    """Run documents again and say what in the pages that were built of them is no longer true.

    For continuous integration: the exit status is 1 where a block fails, or where a block, its
    output or a picture is not what the pages show. Nothing is written.
    """
    options = docgen.Options(jobs, timeout, raw_html=raw_html)
    with counting() as progress:
        result = docgen.check(sources, output, options, progress=progress)
    _complain((*result.failures, *result.stale))
    if result.failures or result.stale:
        sys.exit(1)
    shown = f", as {output} shows" if output is not None else ""
    click.echo(f"{count(result.documents, 'document')} ran{shown}")


def _complain(failures: Iterable[docgen.BuildFailure]) -> None:
    for failure in failures:
        click.echo(f"tracer: {failure}", err=True)
