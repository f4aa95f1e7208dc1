"""`tracer run`: a script or module in; its trace, its own output and its exit status out."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tracer.cli.files import check_output
from tracer.cli.launch import (
    Job,
    become,
    check_script,
    command_line,
    default_output,
    environment,
)
from tracer.records.limits import limits_of

EPILOG = """\b
Examples:
  tracer run train.py --epochs 3
  tracer run -o first.trace -- train.py --epochs 3
  tracer run -m package.train --epochs 3
"""


@click.command(
    epilog=EPILOG,
    context_settings={"allow_interspersed_args": False},  # what follows the script is the script's
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where the trace goes.  [default: SCRIPT.trace in this folder]",
)
@click.option("-m", "--module", is_flag=True, help="Run a module, as `python -m` does.")
@click.option("--every", metavar="N", help="Record the first backward pass, and every N-th after.")
@click.option(
    "--only",
    metavar="WHAT",
    multiple=True,
    help="Record only name:PATTERN, module:PATTERN or kind:EVENT; may be given again.",
)
@click.option("--last", metavar="N", help="Keep the last N passes; older ones leave the file.")
@click.option("--max-bytes", metavar="SIZE", help="Let the file take so much at most: 50MB.")
@click.option(
    "--detail",
    metavar="LEVEL",
    help="structure, statistics, values, or values:N for tensors of up to N elements.  "
    "[default: statistics]",
)
@click.option("--torchviz", is_flag=True, help="Keep torchviz's drawing of each pass as well.")
@click.option(
    "--library-frames",
    is_flag=True,
    help="Show lines of installed packages too, not only those of your own files.",
)
@click.option("--quiet", is_flag=True, help="Say nothing at the end.")
@click.argument("target", metavar="SCRIPT")
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
def command(
    *,
    output: Path | None,
    module: bool,
    every: str | None,
    only: tuple[str, ...],
    last: str | None,
    max_bytes: str | None,
    detail: str | None,
    torchviz: bool,
    library_frames: bool,
    quiet: bool,
    target: str,
    arguments: tuple[str, ...],
) -> None:
    """Run a script exactly as `python` would, and record every backward pass.

    SCRIPT is a file, a folder or an archive with a __main__.py, or, with -m, a module. All that
    follows it is the script's own. The exit status is the script's.
    """
    asked = {
        "every": every, "only": ",".join(only), "last": last, "max_bytes": max_bytes,
        "detail": detail,
    }  # fmt: skip
    words = {name: word for name, word in asked.items() if word}
    limits_of(words)
    if not module:
        check_script(target)
    shown = output or default_output(target, is_module=module)
    check_output(shown)
    job = Job(
        script=target,
        words=1 + len(arguments),
        output=str(shown.absolute()),
        shown=str(shown),
        limits=words,
        torchviz=torchviz,
        library_frames=library_frames,
        quiet=quiet,
    )
    become(command_line(target, arguments, is_module=module), environment(job, os.environ))
