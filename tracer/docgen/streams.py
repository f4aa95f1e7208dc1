"""What a run writes to standard output and error in; pieces of text, by stream, in order, out."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, field
from typing import cast

from tracer.docgen.job import Job, Output


@dataclass(slots=True)
class Tee:
    """Collects what is written to both streams, in order."""

    pieces: list[tuple[str, bytearray]] = field(default_factory=list)

    def add(self, stream: str, data: bytes) -> None:
        """Append to the last piece where it is of the same stream, else begin another."""
        if not data:
            return
        if not self.pieces or self.pieces[-1][0] != stream:
            self.pieces.append((stream, bytearray()))
        self.pieces[-1][1].extend(data)

    def take(self) -> tuple[Output, ...]:
        """Return what has been collected, and forget it."""
        taken = tuple(
            Output(stream, data.decode("utf-8", "replace")) for stream, data in self.pieces
        )
        self.pieces.clear()
        return taken


class _Raw(io.RawIOBase):
    """The lowest layer of a replaced `sys.stdout` or `sys.stderr`."""

    def __init__(self, stream: str, descriptor: int, tee: Tee) -> None:
        self._stream = stream
        self._descriptor = descriptor
        self._tee = tee

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: object) -> int:
        copy = bytes(memoryview(data))  # type: ignore[arg-type]
        self._tee.add(self._stream, copy)
        return len(copy)


class Streams:
    """Standard output and error for the time of a run: Python's own, and what bypasses it.

    What is written to the file descriptors (by C code, by programs that are started) is read back
    from the files that they lead to and put after what Python wrote.
    """

    def __init__(self, job: Job) -> None:
        self.tee = Tee()
        self._bypassing = {name: job.stream(name).open("rb") for name in ("stdout", "stderr")}
        sys.stdout = self._out = self._stream("stdout", 1, "strict")
        sys.stderr = self._err = self._stream("stderr", 2, "backslashreplace")

    def _stream(self, name: str, descriptor: int, errors: str) -> io.TextIOWrapper:
        raw = cast("io.BufferedWriter", _Raw(name, descriptor, self.tee))  # as `python -u` has it
        return io.TextIOWrapper(raw, "utf-8", errors, newline="", write_through=True)

    def take(self) -> tuple[Output, ...]:
        """Return what has been written since the last time."""
        for stream in (self._out, self._err):
            if not stream.closed:
                stream.flush()
        for name, file in self._bypassing.items():
            self.tee.add(name, file.read())
        return self.tee.take()
