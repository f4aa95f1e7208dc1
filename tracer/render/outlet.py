"""The name of a file, or none for standard error, in; where lines go as things happen, out."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from typing import TextIO

from tracer.errors import TraceFileError

_FILE_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Outlet:
    """A stream that has each line as soon as it is written."""

    stream: TextIO
    opened: bool = False

    @property
    def color(self) -> bool:
        """Whether it shows colours and the reader wants them (https://no-color.org)."""
        return self.stream.isatty() and not os.environ.get("NO_COLOR")

    @property
    def width(self) -> int:
        """Its columns."""
        if not self.stream.isatty():
            return _FILE_WIDTH
        return shutil.get_terminal_size((_FILE_WIDTH, 24)).columns

    def write(self, line: str) -> None:
        """Write a line and keep none of it back."""
        self.stream.write(line)
        self.stream.flush()

    def close(self) -> None:
        """Close the file, where it is one."""
        if self.opened:
            self.stream.close()

    def failed(self, error: Exception) -> None:
        """Say that no more lines come, unless their reader has gone or the stream is closed."""
        if not isinstance(error, (OSError, ValueError)):
            sys.stderr.write(
                f"tracer: events are no longer printed ({type(error).__name__}: {error}); "
                "the recording goes on.\n"
            )


def open_outlet(path: str | os.PathLike[str] | None) -> Outlet:
    """Open the file, or take standard error. Raises TraceFileError where it cannot be written."""
    if path is None:
        return Outlet(sys.stderr)
    try:
        file = open(path, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    except OSError as error:
        raise TraceFileError(f"{os.fspath(path)} cannot be written: {error.strerror}") from error
    return Outlet(file, opened=True)
