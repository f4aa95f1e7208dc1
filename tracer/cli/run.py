"""`tracer run`: a script or module in; its trace, its own output and its exit status out."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tracer.cli.files import check_folder, check_output
from tracer.cli.launch import (
    Job,
    become,
    check_script,
    command_line,
    default_output,
    environment,
)
from tracer.cli.selecting import filters
from tracer.errors import OptionError
from tracer.records.limits import limits_of

EPILOG = """\b
Examples:
  tracer run train.py --epochs 3
  tracer run -o first.trace -- train.py --epochs 3
  tracer run -m package.train --epochs 3
  tracer run --follow --kind accumulate,hook train.py
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
@click.option("-m", "module", is_flag=True, help="Run a module, as `python -m` does.")
@click.option(
    "--every",
    metavar="N",
    help="Record the first pass of each backward call in the program, and every N-th after it.",
)
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
@click.option("--follow", is_flag=True, help="Print each event as it happens, on standard error.")
@click.option(
    "--follow-to",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Print each event as it happens in a file.",
)
@filters("With --follow: only")
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
    follow: bool,
    follow_to: Path | None,
    kinds: tuple[str, ...],
    names: tuple[str, ...],
    modules: tuple[str, ...],
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
    chosen = {"kinds": kinds, "names": names, "modules": modules}
    followed = _follow(follow or follow_to is not None, chosen)
    if not module:
        check_script(target)
    shown = output or default_output(target, is_module=module)
    check_output(shown)
    if follow_to is not None:
        check_folder(follow_to)
    job = Job(
        script=target,
        words=1 + len(arguments),
        output=str(shown.absolute()),
        shown=str(shown),
        limits=words,
        follow=followed,
        follow_to=None if follow_to is None else str(follow_to.absolute()),
        torchviz=torchviz,
        library_frames=library_frames,
        quiet=quiet,
    )
    become(command_line(target, arguments, is_module=module), environment(job, os.environ))


def _follow(follows: bool, chosen: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]] | None:
    """Return what to print as it happens, None for nothing; refuse filters of nothing."""
    for what, asked in chosen.items():
        if asked and not follows:
            name = what[:-1]
            raise OptionError(
                f"--{name} picks what --follow prints: add --follow "
                f"(what is recorded is --only {name}:{asked[0]})"
            )
    return chosen if follows else None
