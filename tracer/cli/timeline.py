"""`tracer timeline`: a trace in, its events in the engine's order, a line each, out."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from tracer.cli.files import check_folder, open_trace

EPILOG = """\b
Examples:
  tracer timeline train.trace
  tracer timeline train.trace --pass 2
  tracer timeline train.trace --format jsonl -o train.jsonl
"""
PIPED_WIDTH = 120


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "jsonl"]),
    default="text",
    show_default=True,
    help="Aligned text for people, or one JSON object a line.",
)
@click.option("--pass", "pass_id", metavar="N", type=int, help="Only pass N.  [default: all]")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to a file.  [default: the terminal]",
)
def command(*, file: Path, form: str, pass_id: int | None, output: Path | None) -> None:
    """Print a trace's events, a line each, in the engine's order."""
    trace = open_trace(file)
    if output is None:
        lines = trace.timeline_lines(
            pass_id=pass_id,
            form=form,
            color=sys.stdout.isatty() and not os.environ.get("NO_COLOR"),
            width=shutil.get_terminal_size((PIPED_WIDTH, 24)).columns,
        )
        sys.stdout.writelines(f"{line}\n" for line in lines)
    else:
        check_folder(output)
        write_lines(output, trace.timeline_lines(pass_id=pass_id, form=form))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write the lines to a file; where there is an error before the first, leave no file."""
    iterator = iter(lines)
    first = next(iterator, None)
    with path.open("w", encoding="utf-8") as file:
        if first is not None:
            file.write(f"{first}\n")
        file.writelines(f"{line}\n" for line in iterator)
