"""`tracer docs`: documents whose code is run and traced in, pages out."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tracer import docgen
from tracer.cli.progress import counting
from tracer.records.words import count

EPILOG = """\b
Example:
  tracer docs build examples -o build/docs
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """Build pages from examples that are run and traced."""


@command.command(epilog=EPILOG)
@click.argument(
    "sources", metavar="SRC...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder that the pages go to; it is made if it is not there.",
)
def build(*, sources: tuple[Path, ...], output: Path) -> None:
    """Run each script under tracing and write a page of it: prose, code, output, picture, timeline.

    SRC is a script whose comments are its prose, or a folder of such scripts. The pages are HTML
    and Markdown, with an index. A script that fails has its page all the same, with the error in
    its place; the exit status is then 1.
    """
    with counting() as progress:
        result = docgen.build(sources, output, progress=progress)
    for failure in result.failures:
        click.echo(f"tracer: {failure}", err=True)
    click.echo(f"{result.index}: an index of {count(len(result.pages), 'page')}")
    if result.failures:
        sys.exit(1)
