"""A document in; what each block printed, raised and recorded, in a process of its own, out.

Blocks share one process and its names, down to a block marked `fresh`, which begins another. Where
a block takes its process along, those below it run in a new one in which those above, but for any
that ran too long, are run again, unseen.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import tracer
from tracer import api
from tracer.docgen.blocks import Code, Document
from tracer.docgen.child import MARK, Timeout, mark_of
from tracer.docgen.job import BlockRun, Failure, Job, JobBlock, Output
from tracer.docgen.timeless import without_times
from tracer.errors import TracerError
from tracer.records import Mark, TraceRecord
from tracer.report.window import look_at

TIMEOUT = 60.0
"""Seconds that a block may take."""

GRACE = 5.0
"""Seconds that a block has to end when its time is up, before its process is ended."""

STARTUP = 300.0
"""Seconds that a process may take to import PyTorch before its first block."""

_PROCESS = ("-m", "tracer.docgen")
_FRAME = re.compile(r'File "(?P<file>.*)", line (?P<line>\d+)')
_STOPPED = 1000
"""What stands for the exit status of a process that had to be killed when its time was up."""

_GOES_ON = "The blocks below it ran in a new process"
Begun = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class DocumentRun:
    """What running a document gave: a `BlockRun` for each block that was begun, and the traces.

    `problems` say in one line each what kept a process from running at all, or a trace from being
    read; `modules` are the files beside the document that it imported.
    """

    blocks: tuple[BlockRun, ...] = ()
    traces: tuple[TraceRecord, ...] = ()
    problems: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    def whole_trace_of(self, block: BlockRun) -> TraceRecord:
        """Return the trace of the process that a block ran in."""
        return self.traces[block.trace] if block.trace < len(self.traces) else TraceRecord()

    def trace_of(self, block: BlockRun) -> TraceRecord:
        """Return the part of the trace that a block made."""
        trace = self.whole_trace_of(block)
        begin, end = sys.maxsize, sys.maxsize
        for mark in _marks(trace):
            if mark.text == mark_of(block.block):
                begin, end = mark.seq, sys.maxsize
            elif mark.seq > begin:
                end = min(end, mark.seq)
        return look_at(trace, begin, end - 1)


def _marks(trace: TraceRecord) -> Iterator[Mark]:
    ours = re.compile(MARK.format(r"\d+"))
    for event in trace.events.select(kinds=(Mark.kind,)):
        if isinstance(event, Mark) and ours.fullmatch(event.text):
            yield event


def stretches(code: Sequence[Code]) -> list[tuple[int, ...]]:
    """Return the numbers of the blocks that run, by the process that they share."""
    found: list[list[int]] = [[]]
    for number, block in enumerate(code):
        if not block.marks.skip:
            if block.marks.fresh and found[-1]:
                found.append([])
            found[-1].append(number)
    return [tuple(numbers) for numbers in found if numbers]


@contextmanager
def run_document(
    document: Document,
    *,
    only: Sequence[tuple[int, ...]] | None = None,
    timeout: float = TIMEOUT,
    begun: Begun | None = None,
    given_up: Callable[[], bool] = lambda: False,
) -> Iterator[DocumentRun]:
    """Run a document's blocks under tracing, in order, as `python` would in its own folder.

    `only` are the stretches to run (all by default), `timeout` is in seconds for each block (0:
    no limit), `begun` is called with the number of each block that begins. The traces can be read
    until the context is left. Raises KeyboardInterrupt soon after `given_up` returns True.
    """
    with tempfile.TemporaryDirectory(prefix="tracer-", ignore_cleanup_errors=True) as place:
        running = _Running(document, Path(place), timeout, begun or _tell_nobody, given_up)
        for numbers in stretches(document.code) if only is None else only:
            running.run(numbers)
        yield running.outcome()


def _tell_nobody(block: int) -> None:
    pass


class _Running:
    """The run of a document, process by process."""

    def __init__(
        self,
        document: Document,
        place: Path,
        timeout: float,
        begun: Begun,
        given_up: Callable[[], bool],
    ) -> None:
        self._given_up = given_up
        self._document = document
        self._place = place
        self._timeout = timeout
        self._begun = begun
        self._runs: dict[int, BlockRun] = {}
        self._traces: list[TraceRecord] = []
        self._problems: list[str] = []
        self._modules: set[str] = set()

    def outcome(self) -> DocumentRun:
        """Return what has been found out."""
        runs = tuple(self._runs[number] for number in sorted(self._runs))
        modules = tuple(sorted(self._modules))
        return DocumentRun(runs, tuple(self._traces), tuple(self._problems), modules)

    def run(self, numbers: Sequence[int]) -> None:
        """Run a stretch of blocks, in as many processes as it takes."""
        again: list[int] = []
        waiting = list(numbers)
        while waiting:
            job = self._job(again, waiting)
            status = self._start(job)
            runs = _read_results(job, len(self._traces))
            self._keep(job, runs)
            died = next((run for run in runs if not run.ended), None)
            if died is None:
                if status:
                    self._problems.append(_last_words(job, status, "ended" if runs else ""))
                return
            if died.again:
                again.remove(died.block)
                continue
            at = waiting.index(died.block)
            ended = [number for number in waiting[:at] if not _is_too_long(self._runs[number])]
            again, waiting = [*again, *ended], waiting[at + 1 :]
            self._runs[died.block] = _cut_short(job, died, status, _note(again, waiting))

    def _job(self, again: Sequence[int], numbers: Sequence[int]) -> Job:
        path = self._document.path.resolve()
        place = self._place / str(len(self._traces))
        place.mkdir()
        blocks = tuple(self._block(number, number in again) for number in (*again, *numbers))
        return Job(
            path.name, str(path.parent), self._document.text, blocks, str(place),
            self._timeout, GRACE,
        )  # fmt: skip

    def _block(self, number: int, again: bool) -> JobBlock:
        code = self._document.code[number]
        return JobBlock(number, code.line, code.python or code.text, code.echo, again)

    def _keep(self, job: Job, runs: Sequence[BlockRun]) -> None:
        self._runs.update({run.block: run for run in runs if not run.again})
        try:
            self._traces.append(without_times(api.load(job.trace).record))
        except TracerError as error:
            self._traces.append(TraceRecord())
            if runs:
                self._problems.append(str(error))
        if job.modules.exists():
            self._modules.update(job.modules.read_text("utf-8").split())

    def _start(self, job: Job) -> int:
        """Run the process to its end; return its exit status."""
        described = Path(job.place, "job.json")
        described.write_text(job.to_text(), "utf-8")
        root = Path(tracer.__file__).resolve().parent.parent
        with job.stream("stdout").open("wb") as stdout, job.stream("stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, *_PROCESS, str(described)], cwd=root,
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                start_new_session=True,  # Ctrl-C ends the build, not the block that runs
                env={"MPLBACKEND": "agg", **os.environ},
            )  # fmt: skip
            try:
                return self._watch(job, process)
            finally:
                process.kill()
                process.wait()

    def _watch(self, job: Job, process: subprocess.Popen[bytes]) -> int:
        """Wait for the process; kill it where it cannot even end itself in time."""
        begun, since, limit = -1, time.monotonic(), STARTUP
        while True:
            try:
                return process.wait(0.1)
            except subprocess.TimeoutExpired:
                runs = _read_results(job, 0)
            if self._given_up():
                raise KeyboardInterrupt
            if runs and len(runs) != begun:
                begun, since, limit = len(runs), time.monotonic(), self._timeout + 2 * GRACE
                if not runs[-1].again:
                    self._begun(runs[-1].block)
            if self._timeout and time.monotonic() - since > limit:
                process.kill()
                process.wait()
                return _STOPPED


def _is_too_long(run: BlockRun) -> bool:
    return run.failure is not None and run.failure.type == Timeout.__name__


def _note(again: Sequence[int], waiting: Sequence[int]) -> str:
    if not waiting:
        return ""
    return (
        f"{_GOES_ON}{', in which those above it that had ended were run again' if again else ''}."
    )


def _read_results(job: Job, trace: int) -> list[BlockRun]:
    """Read the last word on each block that was begun."""
    runs: dict[int, BlockRun] = {}
    text = job.results.read_text("utf-8") if job.results.exists() else ""
    for line in text.split("\n")[:-1]:  # what stands behind the last line break is being written
        fields = json.loads(line)
        fields["outputs"] = tuple(Output(**output) for output in fields["outputs"])
        fields["failure"] = Failure(**fields["failure"]) if fields["failure"] else None
        runs[fields["block"]] = replace(BlockRun(**fields), trace=trace)
    return list(runs.values())


def _cut_short(job: Job, run: BlockRun, status: int, note: str) -> BlockRun:
    """Return the run of a block that took its process along: with a failure that says so."""
    last_words = job.last_words.read_text("utf-8", "replace") if job.last_words.exists() else ""
    if status == _STOPPED or last_words.startswith("Timeout"):
        message = f"ran longer than {job.timeout:g} s and could not be stopped: its process ended"
    else:
        message = f"the process ended in this block: {_ending(status)}"
    first = next(block.line for block in job.blocks if block.number == run.block)
    line = _line_of(job, last_words) or first
    return replace(run, failure=Failure("", message, line, message), note=note)


def _line_of(job: Job, last_words: str) -> int | None:
    """Return the innermost line of the document in what `faulthandler` wrote of the main thread."""
    main = re.split(r"^(?:Current t|T)hread .*$", last_words, flags=re.MULTILINE)[-1]
    frames = _FRAME.finditer(main)
    return next((int(frame["line"]) for frame in frames if frame["file"] == job.name), None)


def _ending(status: int) -> str:
    if status == _STOPPED:
        return "it took too long"
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _last_words(job: Job, status: int, how: str) -> str:
    lines = job.stream("stderr").read_text("utf-8", "replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    how = how or "could not be run"
    return f"{job.name} {how} ({_ending(status)}){': ' * bool(said)}{said}"
