"""`tracer show`: a trace in, a table of what it holds out."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
from rich.console import Console

from tracer.cli.files import open_trace

EPILOG = """\b
Example:
  tracer show train.trace
"""
PIPED_WIDTH = 120


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Print a table of what a trace holds."""
    console = Console(width=shutil.get_terminal_size((PIPED_WIDTH, 24)).columns)
    console.print(open_trace(file).summary())
