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
    """Print what a trace holds: passes, leaves, hooks, cuts, failures.

    Says, too, why a `.grad` is None, and what was not recorded. Passes that are alike are one row.
    """
    terminal.print_lines(terminal.lines_of(open_trace(file).summary()))
