"""`tracer show`: a trace in, a table of what it holds out."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from tracer.cli.files import open_trace

EPILOG = """\b
Example:
  tracer show train.trace
"""
PIPED_WIDTH = 160


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Print a table of what a trace holds."""
    summary = open_trace(file).summary()
    console = Console()
    console.print(summary, width=None if console.is_terminal else PIPED_WIDTH)
