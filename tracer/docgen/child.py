"""A document's code blocks in, run in order as `__main__` under tracing; what each did, out.

This is what the process of a document runs. Each line of the results file is one JSON object,
written as soon as there is something to say, so that a block which kills the process does not take
along what the blocks before it did.
"""

from __future__ import annotations
import __future__

import ast
import io
import json
import linecache
import os
import sys
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import cast

from tracer import api

OURS = os.path.dirname(os.path.abspath(__file__))
FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)


@dataclass(frozen=True, slots=True)
class Job:
    """What to run: `name` is the document's file name, `blocks` are (line, source) pairs.

    `place` is an empty folder for the trace, the results and what bypasses `sys.stdout`.
    """

    name: str
    folder: str
    text: str
    blocks: tuple[tuple[int, str], ...]
    place: str

    @property
    def trace(self) -> Path:
        """The trace file."""
        return Path(self.place, "document.trace")

    @property
    def results(self) -> Path:
        """The file of results, a line each."""
        return Path(self.place, "results.jsonl")

    def stream(self, name: str) -> Path:
        """The file that descriptor 1 (`stdout`) or 2 (`stderr`) of the process leads to."""
        return Path(self.place, name)

    def to_text(self) -> str:
        """Return the job as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Job:
        """Read back what `to_text` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "blocks": tuple((line, code) for line, code in fields["blocks"])})


@dataclass(frozen=True, slots=True)
class Output:
    """Text that a block wrote; `stream` is `stdout` or `stderr`."""

    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception that ended a block: `line` is the document's, `text` the traceback in full."""

    type: str
    message: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class BlockRun:
    """What a block did; `ended` is False for one that has begun and not been heard of since."""

    block: int
    outputs: tuple[Output, ...] = ()
    failure: Failure | None = None
    ended: bool = False


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


def readable_text(job: Job) -> str:
    """Return the document with all but its sound code blanked, so that it parses as a whole.

    Sources are read by file: a block that is no Python would hide what the others say.
    """
    lines = job.text.split("\n")
    kept = [""] * len(lines)
    for line, source in job.blocks:
        if _is_sound(source):
            count = source.count("\n") + 1
            kept[line - 1 : line - 1 + count] = lines[line - 1 : line - 1 + count]
    return "\n".join(kept)


def _is_sound(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the source warns of, it says when it is run
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


class Blocks:
    """Runs the code blocks of a document in one namespace."""

    def __init__(self, job: Job) -> None:
        self._name = job.name
        self._future = 0
        self._module = ModuleType("__main__")
        self._module.__dict__.update(
            __file__=os.path.join(job.folder, job.name), __builtins__=__builtins__
        )
        sys.modules["__main__"] = self._module
        text = readable_text(job)
        lines = [f"{line}\n" for line in text.split("\n")]
        linecache.cache[job.name] = (len(text), None, lines, job.name)

    def run(self, line: int, source: str) -> tuple[Failure | None, bool]:
        """Run a block; return what it raised, if anything, and whether it ended the document."""
        try:
            exec(self._compile(line, source), self._module.__dict__)
        except SystemExit as leaving:
            return self._leave(leaving, line)
        except BaseException as error:
            return self._failure(error, line), False
        return None, False

    def _compile(self, line: int, source: str) -> CodeType:
        """Compile a block at its own lines, with the `from __future__` imports of those before."""
        text = "\n" * (line - 1) + source + "\n"
        code: CodeType = compile(text, self._name, "exec", self._future, dont_inherit=True)
        self._future |= code.co_flags & FUTURE
        return code

    def _leave(self, leaving: SystemExit, line: int) -> tuple[Failure | None, bool]:
        if leaving.code in (None, 0):
            return None, True
        return self._failure(leaving, line), True

    def _failure(self, error: BaseException, line: int) -> Failure:
        error = error.with_traceback(_without_ours(error.__traceback__))
        shown = traceback.TracebackException.from_exception(error)
        return Failure(
            type=type(error).__name__,
            message=_message(error),
            line=self._line(error, shown) or line,
            text="".join(shown.format()),
        )

    def _line(self, error: BaseException, shown: traceback.TracebackException) -> int | None:
        if isinstance(error, SyntaxError) and error.filename == self._name:
            return error.lineno
        lines = [frame.lineno for frame in shown.stack if frame.filename == self._name]
        return lines[-1] if lines else None


def _message(error: BaseException) -> str:
    try:
        return error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:
        return "(its message cannot be printed)"


def _without_ours(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(OURS):
        frames = frames.tb_next
    return frames


def run_job(job: Job) -> None:
    """Run the document and write its results."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = job.folder
    sys.argv = [job.name]
    os.chdir(job.folder)
    with job.results.open("w", encoding="utf-8") as results:
        streams = Streams(job)
        blocks = Blocks(job)
        script = str(Path(job.folder, job.name))
        with api.Trace(recording=api.Recording(job.trace, script=script)) as recording:
            for number, (line, source) in enumerate(job.blocks):
                _write(results, BlockRun(number))
                api.mark(mark_of(number))
                failure, leaving = blocks.run(line, source)
                _save(recording)
                _write(results, BlockRun(number, streams.take(), failure, True))
                if leaving:
                    break


def _save(recording: api.Trace) -> None:
    """Have what was recorded so far written to the file, lest the next block take it along."""
    len(recording.passes)  # reading a trace that is being recorded writes out what waits


def mark_of(block: int) -> str:
    """Return the text of the mark in the trace where a block begins."""
    return f"block {block + 1} of the document"


def _write(results: io.TextIOWrapper, run: BlockRun) -> None:
    results.write(json.dumps(asdict(run)) + "\n")
    results.flush()


def main(job: str) -> None:
    """Run the job that is described in a file."""
    run_job(Job.from_text(Path(job).read_text("utf-8")))
