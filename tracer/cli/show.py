"""`tracer show`: a trace in, a table of what it holds out."""

from __future__ import annotations

from pathlib import Path

import click

from tracer.cli import terminal
from tracer.cli.files import open_trace

EPILOG = """\b
Example:
  tracer show train.trace
"""


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Print a table of what a trace holds."""
    terminal.print_lines(terminal.lines_of(open_trace(file).summary()))
