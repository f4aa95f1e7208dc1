"""`tracer draw`: a trace in, the picture of one of its passes out."""

from __future__ import annotations

from pathlib import Path

import click

from tracer.api import Trace
from tracer.cli import terminal
from tracer.cli.files import check_folder, open_trace
from tracer.cli.progress import working
from tracer.cli.view_options import view_options
from tracer.records.collection import no_collection
from tracer.records.gaps import gaps_of
from tracer.records.view import View

EPILOG = """\b
Examples:
  tracer draw train.trace
  tracer draw train.trace -o train.png --pass 3 --dpi 200
  tracer draw train.trace --depth 2 --expand encoder.layers.3
  tracer draw train.trace --focus encoder.layers.3.linear1 --radius 4
  tracer draw train.trace --path loss embed.weight -o why.svg
  tracer draw train.trace -o readme.mmd
  tracer draw train.trace --like torchviz -o familiar.svg
"""


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="PICTURE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .svg, .png, .pdf, .dot or .mmd file.  [default: lines of text on the terminal]",
)
@click.option("--pass", "pass_id", metavar="N", type=int, help="Draw pass N.  [default: the last]")
@click.option(
    "--like",
    type=click.Choice(["torchviz"]),
    help="torchviz's own drawing with our values on it; record with `tracer run --torchviz`.",
)
@click.option("--dpi", metavar="N", type=click.IntRange(10, 1200), help="Resolution of a PNG.")
@click.option(
    "--time-limit",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    help="For the layout; one that takes longer is folded further.  [default: 10]",
)
@view_options
def command(
    *,
    file: Path,
    output: Path | None,
    pass_id: int | None,
    like: str | None,
    dpi: int | None,
    time_limit: float,
    view: View,
) -> None:
    """Draw a pass of a trace: gradients, hooks, sums and cuts.

    A large graph is folded by what it means (modules, loops, equal blocks) to what one can read;
    the options say how much of it to open, which part to show, and what to colour it by.
    """
    if output is None:
        for name, asked in (("--like", like), ("--dpi", dpi)):
            if asked is not None:
                raise click.UsageError(f"{name} is for a picture: name its file with -o")
        draw_in_text(open_trace(file), pass_id, view)
        return
    check_folder(output)
    trace = open_trace(file)
    with no_collection(aged=True):
        draw_to_file(trace, output, view, pass_id=pass_id, like=like, dpi=dpi, limit=time_limit)
    say_gaps(trace)


def draw_to_file(
    trace: Trace,
    output: Path,
    view: View,
    *,
    pass_id: int | None,
    like: str | None,
    dpi: int | None,
    limit: float,
) -> None:
    """Write the picture, and say which pass it is of, and what to know of it."""
    with working(f"drawing {output}"):
        picture = trace.draw(
            output, view, pass_id=pass_id, like=like or "", dpi=dpi, time_limit=limit
        )
    drawn = trace.find_pass(pass_id)
    by = f", drawn by {picture.engine}" if picture.engine != "none" else ""
    click.echo(f"{output}: pass {drawn.id} of {len(trace.passes)}{by}")
    for note in picture.advice:
        click.echo(f"  {note}", err=True)


def say_gaps(trace: Trace) -> None:
    """Say what the recording left out, and so the drawing."""
    for gap in gaps_of(trace.record.dropped):
        click.echo(f"  not recorded: {gap.text}", err=True)


def draw_in_text(trace: Trace, pass_id: int | None, view: View) -> None:
    """Print the drawing as lines of text."""
    with working("drawing"):
        lines = terminal.lines_of(trace.tree(view, pass_id=pass_id, width=terminal.width()))
    terminal.print_lines(lines)
    say_gaps(trace)
