"""Lines in; on a terminal through a pager, as git does, and elsewhere as they are, out."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPED_WIDTH = 120
_PAGER_DEFAULTS = {"LESS": "FRX", "LV": "-c"}
"""As git has them: quit if all fits on one screen (F), keep colours (R), leave the text (X)."""

_MOST_AT_ONCE = 1024
"""How many lines are written as one."""

_AT_ONCE = 200
"""How many lines the pager is given as they come; after that, by the block."""


def width() -> int:
    """The columns of the terminal, or of what is written for nobody's in particular."""
    return shutil.get_terminal_size((PIPED_WIDTH, 24)).columns


def wants_color() -> bool:
    """Whether to colour what is printed: on a terminal that can, unless NO_COLOR is set.

    FORCE_COLOR colours what is piped, too. See https://no-color.org and https://force-color.org.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def lines_of(renderable: RenderableType) -> Iterator[str]:
    """What `rich` prints, as wide and as coloured as the terminal is; part by part of a group."""
    from rich.console import Console, Group  # costs more than all the rest of `tracer timeline`

    out = io.StringIO()
    color = wants_color()
    console = Console(
        file=out, width=width(), force_terminal=color, no_color=not color, highlight=False,
        color_system="standard" if color else None,
    )  # fmt: skip
    for part in renderable.renderables if isinstance(renderable, Group) else [renderable]:
        console.print(part)
        yield from (line.rstrip() for line in out.getvalue().splitlines())
        out.seek(0)
        out.truncate()


def print_lines(lines: Iterable[str]) -> bool:
    """Print lines as they come, and return whether there were any.

    What raises before the first line has printed nothing.
    """
    iterator = iter(lines)
    first = next(iterator, None)
    if first is None:
        return False
    lines = chain([first], iterator)
    command = _pager() if sys.stdout.isatty() else ""
    if command:
        _page(command, lines)
    else:
        for block in _blocks(lines):
            sys.stdout.write(block)
    return True


def _blocks(lines: Iterable[str]) -> Iterator[str]:
    """Lines joined to larger and larger blocks: the first is there at once, and a hundred thousand
    are not as many writes where output is not buffered (PYTHONUNBUFFERED)."""
    waiting: list[str] = []
    many = 1
    try:
        for line in lines:
            waiting.append(line)
            if len(waiting) >= many:
                yield _ended(waiting)
                waiting.clear()
                many = min(2 * many, _MOST_AT_ONCE)
    except Exception:
        yield _ended(waiting)
        raise
    yield _ended(waiting)


def _ended(lines: Sequence[str]) -> str:
    return "\n".join((*lines, "")) if lines else ""


def _pager() -> str:
    """The pager's command: TRACER_PAGER, PAGER, or less; empty for none."""
    for name in ("TRACER_PAGER", "PAGER"):
        if name in os.environ:
            command = os.environ[name].strip()
            return "" if command == "cat" else command
    return "less" if shutil.which("less") else ""


def _page(command: str, lines: Iterable[str]) -> None:
    sys.stdout.flush()
    process = subprocess.Popen(
        command, shell=True, stdin=subprocess.PIPE, text=True, encoding="utf-8",
        errors="backslashreplace", env={**_PAGER_DEFAULTS, **os.environ},
    )  # fmt: skip
    stdin = process.stdin
    assert stdin is not None
    try:
        with suppress(BrokenPipeError, KeyboardInterrupt):  # the reader has seen enough
            stdin.writelines(_flushing(lines, stdin.flush))
            stdin.flush()
    finally:
        with suppress(BrokenPipeError):
            stdin.close()
        _wait(process)


def _flushing(lines: Iterable[str], flush: Callable[[], None]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{line}\n"
        if number < _AT_ONCE:
            flush()


def _wait(process: subprocess.Popen[str]) -> None:
    """Wait for the pager: Ctrl-C is its business while it is there."""
    while True:
        with suppress(KeyboardInterrupt):
            process.wait()
            return
