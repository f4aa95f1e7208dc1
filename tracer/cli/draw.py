"""`tracer draw`: a trace in, the picture of one of its passes out."""

from __future__ import annotations

from pathlib import Path

import click

from tracer.cli.files import check_folder, open_trace
from tracer.cli.progress import working

EPILOG = """\b
Examples:
  tracer draw train.trace
  tracer draw train.trace -o train.png --pass 3 --dpi 200
  tracer draw train.trace --like torchviz -o familiar.svg
"""


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="PICTURE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .svg, .png, .pdf or .dot file.  [default: an .svg named after FILE]",
)
@click.option("--pass", "pass_id", metavar="N", type=int, help="Draw pass N.  [default: the last]")
@click.option(
    "--like",
    type=click.Choice(["torchviz"]),
    help="torchviz's own drawing with our values on it; record with `tracer run --torchviz`.",
)
@click.option("--dpi", metavar="N", type=click.IntRange(10, 1200), help="Resolution of a PNG.")
def command(
    *, file: Path, output: Path | None, pass_id: int | None, like: str | None, dpi: int | None
) -> None:
    """Draw a pass of a trace: gradients, hooks, sums and cuts."""
    path = output or Path(file.with_suffix(".svg").name)
    check_folder(path)
    trace = open_trace(file)
    with working(f"drawing {path}"):
        trace.draw(path, pass_id=pass_id, like=like or "", dpi=dpi)
    drawn = trace.find_pass(pass_id)
    click.echo(f"{path}: pass {drawn.id} of {len(trace.passes)}")
