"""A document's code blocks in, run in order as `__main__` under tracing; what each did, out.

This is what the process of a document runs. Each line of the results file is one JSON object,
written as soon as there is something to say, so that a block which kills the process does not take
along what the blocks before it did.
"""

from __future__ import annotations
import __future__

import ast
import faulthandler
import io
import json
import linecache
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any

from tracer import api
from tracer.docgen.job import BlockRun, Failure, Job, JobBlock
from tracer.docgen.streams import Streams

OURS = os.path.dirname(os.path.abspath(__file__))
FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
Runnable = ast.Module | ast.Interactive


class Timeout(BaseException):
    """A block's time is up; no `except Exception` in the block stops it."""

    __module__ = "builtins"  # so that a traceback shows the bare name


@contextmanager
def limited(seconds: float, grace: float, last_words: io.TextIOWrapper) -> Iterator[None]:
    """Raise `Timeout` after `seconds`; end the process where the block goes on for `grace` more."""
    if not seconds:
        yield
        return

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise Timeout(f"ran longer than {seconds:g} s and was stopped")

    faulthandler.dump_traceback_later(seconds + grace, exit=True, file=last_words)
    if hasattr(signal, "setitimer"):  # Windows has none
        signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def readable_text(job: Job) -> str:
    """Return the document with all but its sound code blanked, so that it parses as a whole.

    Sources are read by file: a block that is no Python would hide what the others say.
    """
    kept = [""] * len(job.text.split("\n"))
    for block in job.blocks:
        if _is_sound(block.source):
            lines = block.source.split("\n")
            kept[block.line - 1 : block.line - 1 + len(lines)] = lines
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

    def run(self, block: JobBlock) -> tuple[Failure | None, bool]:
        """Run a block; return what it raised, if anything, and whether it ended the document."""
        try:
            for code in self._compile(block):
                exec(code, self._module.__dict__)
        except SystemExit as leaving:
            if leaving.code in (None, 0):
                return None, True
            return self._failure(leaving, block.line), False
        except BaseException as error:
            return self._failure(error, block.line), False
        return None, False

    def _compile(self, block: JobBlock) -> Iterator[CodeType]:
        """Compile a block at its own lines, with the `from __future__` imports of those before."""
        text = "\n" * (block.line - 1) + block.source + "\n"
        tree = self._code(text, ast.PyCF_ONLY_AST)
        for part, mode in parts_to_run(tree, block.echo):
            yield self._code(part, mode=mode)

    def _code(self, part: str | Runnable, flags: int = 0, mode: str = "exec") -> Any:
        made = compile(part, self._name, mode, flags | self._future, dont_inherit=True)
        if isinstance(made, CodeType):
            self._future |= made.co_flags & FUTURE
        return made

    def _failure(self, error: BaseException, line: int) -> Failure:
        error = error.with_traceback(_without_ours(error.__traceback__))
        shown = traceback.TracebackException.from_exception(error)
        shown.stack[:] = [frame for frame in shown.stack if not frame.filename.startswith(OURS)]
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


def parts_to_run(tree: ast.Module, echo: str) -> Iterator[tuple[Runnable, str]]:
    """Yield what to run: the whole, or what prints the value of an expression as a prompt does."""
    body = tree.body
    if echo == "each":
        yield from ((ast.Interactive([statement]), "single") for statement in body)
    elif echo == "last" and body and isinstance(body[-1], ast.Expr):
        yield ast.Module(body[:-1], []), "exec"
        yield ast.Interactive([body[-1]]), "single"
    else:
        yield tree, "exec"


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
    process = os.getpid()
    with (
        job.results.open("w", encoding="utf-8") as results,
        job.last_words.open("w", encoding="utf-8") as last_words,
    ):
        faulthandler.enable(last_words, all_threads=False)
        streams = Streams(job)
        blocks = Blocks(job)
        script = str(Path(job.folder, job.name))
        with api.Trace(recording=api.Recording(job.trace, script=script)) as recording:
            for block in job.blocks:
                _write(results, BlockRun(block.number, again=block.again))
                api.mark(mark_of(block.number))
                with limited(job.timeout, job.grace, last_words):
                    failure, leaving = blocks.run(block)
                if os.getpid() != process:
                    os._exit(0)  # a fork of the block's came back from it
                _save(recording)
                outputs = streams.take()
                _write(results, BlockRun(block.number, outputs, failure, True, block.again))
                if leaving and not block.again:
                    break
        job.modules.write_text("\n".join(own_modules(job.folder)), "utf-8")


def own_modules(folder: str) -> Iterator[str]:
    """Yield the files below the document's folder that it imported, installed packages aside."""
    inside = os.path.join(folder, "")
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.startswith(inside) or "-packages" in file:
            continue
        if file.endswith(".py"):
            yield file


def _save(recording: api.Trace) -> None:
    """Have what was recorded so far written to the file, lest the next block take it along."""
    len(recording.passes)  # reading a trace that is being recorded writes out what waits


MARK = "block {} of the document"


def mark_of(block: int) -> str:
    """Return the text of the mark in the trace where a block begins, by its number from 0."""
    return MARK.format(block + 1)


def _write(results: io.TextIOWrapper, run: BlockRun) -> None:
    results.write(json.dumps(asdict(run)) + "\n")
    results.flush()


def main(job: str) -> None:
    """Run the job that is described in a file."""
    run_job(Job.from_text(Path(job).read_text("utf-8")))
