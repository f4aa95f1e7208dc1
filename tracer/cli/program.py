"""The command line's top: finds the command that is asked for, and turns errors into one line."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from tracer.errors import OptionError, ScriptError, TracerError

COMMANDS = {
    "run": "Run a script exactly as `python` would, and record every backward pass.",
    "show": "Print what a trace holds: passes, leaves, hooks, cuts, failures.",
    "draw": "Draw a pass of a trace: gradients, hooks, sums and cuts.",
    "timeline": "Print a trace's events, a line each, in the engine's order.",
    "docs": "Build pages from documents whose code is run and traced, and check they still hold.",
}
"""Each command with its summary, so that listing them imports none of them."""

_READING = ("show", "draw", "timeline")

EPILOG = """\b
Example:
  tracer run train.py                     record it, in train.trace
  tracer show train.trace                 what is in it
  tracer timeline train.trace             what happened, in order
  tracer draw train.trace                 a backward pass, in the terminal
  tracer draw train.trace -o train.svg    and as a picture
"""


class Commands(click.Group):
    """A group that imports a command's module when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a first session."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and return its command; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"tracer.cli.{cmd_name}").command
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which name may have been meant."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches  # costs more than this module does

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean `tracer {near[0]}`?" if near else "`tracer --help` lists them."
            ctx.fail(f"no command `{args[0]}`. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Print the installed version and stop."""
    if wanted and not ctx.resilient_parsing:
        from importlib import metadata  # costs as much as all the rest of `tracer --help`

        click.echo(f"tracer {metadata.version('autograd-tracer')}")
        ctx.exit()


@click.group(cls=Commands, epilog=EPILOG)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the version and exit.",
)
def tracer() -> None:
    """See how gradients flow through PyTorch code: record a script, then draw, read and show it."""


def run() -> None:
    """Run the command that `sys.argv` asks for and exit: 0, 1 for a refusal, 2 for misuse."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = tracer(prog_name="tracer", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except TracerError as error:
        click.echo(f"tracer: {error}", err=True)
        status = 2 if isinstance(error, (OptionError, ScriptError)) else 1
    except click.Abort:
        status = 130
    except BrokenPipeError:
        status = close_quietly()
    except OSError as error:
        click.echo(f"tracer: {error.filename or 'the output'}: {error.strerror}", err=True)
        status = 1
    if sys.argv[1:2] and sys.argv[1] in _READING:
        import gc  # `--help` imports nothing that it does not use

        gc.freeze()  # no code but ours ran, and what a trace is read into goes with the process
    sys.exit(status)


def close_quietly() -> int:
    """Let Python's last flush succeed though the reader is gone; return click's status for it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
