"""`tracer timeline`: a trace in, its events in the engine's order, a line each, out."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from tracer.cli import terminal
from tracer.cli.files import check_folder, open_trace
from tracer.cli.selecting import filters, read_passes
from tracer.errors import NotInTraceError
from tracer.records.collection import seldom_collection
from tracer.records.picking import Selection, nothing_matches

EPILOG = """\b
Examples:
  tracer timeline train.trace
  tracer timeline train.trace --pass 2
  tracer timeline train.trace --kind accumulate --name "*.weight"
  tracer timeline train.trace --since "epoch 3" --module encoder
  tracer timeline train.trace -o train.json     (open it in ui.perfetto.dev)
"""
FORMS = {"text": "", "jsonl": ".jsonl", "csv": ".csv", "chrome": ".json"}
"""The formats, each with what names of its files end in."""


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--pass",
    "passes",
    metavar="N",
    callback=read_passes,
    help="Pass N, and what led to it, in full; also 3-7, or all.",
)
@filters("Only")
@click.option("--since", metavar="MARK", default="", help="Only what came after tracer.mark(MARK).")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMS)),
    help="Aligned text; an object a line; a row for each tensor; or a file that Perfetto opens. "
    "[default: as the name after -o ends (.jsonl, .csv, .json), else text]",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to a file.  [default: the terminal]",
)
def command(
    *,
    file: Path,
    passes: tuple[int, int] | str | None,
    kinds: tuple[str, ...],
    names: tuple[str, ...],
    modules: tuple[str, ...],
    since: str,
    form: str | None,
    output: Path | None,
) -> None:
    """Print a trace's events, a line each, in the engine's order.

    A long trace is told pass by pass, passes that are alike together; --pass, --kind, --name,
    --module and --since ask for the events themselves.
    """
    trace = open_trace(file)
    chosen = passes if isinstance(passes, tuple) else None
    selection = Selection(chosen, kinds, names, modules, since)
    wanted = None if passes is None and selection == Selection() else selection
    form = form or _form_of(output)
    if output is not None:
        check_folder(output)
        from tracer.cli.progress import working  # costs more than all else here, and only files

        with working(f"writing {output}"), seldom_collection():
            write_lines(output, trace.timeline_lines(wanted, form=form))
        return
    color, width = terminal.wants_color(), terminal.width()
    lines = trace.timeline_lines(
        wanted, form=form, color=color, width=width, wrap=sys.stdout.isatty()
    )
    with seldom_collection():
        told = terminal.print_lines(lines)
    if not told and selection.is_particular:
        raise NotInTraceError(nothing_matches(trace.record, selection))


def _form_of(output: Path | None) -> str:
    suffix = output.suffix.lower() if output is not None else ""
    return next((form for form, ending in FORMS.items() if ending == suffix), "text")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write the lines to a file; where there is an error before the first, leave no file."""
    iterator = iter(lines)
    first = next(iterator, None)
    with path.open("w", encoding="utf-8") as file:
        if first is not None:
            file.write(f"{first}\n")
        file.writelines(f"{line}\n" for line in iterator)
