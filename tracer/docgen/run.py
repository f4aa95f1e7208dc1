"""A document in; what each block printed, raised and recorded, in a process of its own, out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tracer
from tracer import api
from tracer.docgen.blocks import Document
from tracer.docgen.child import BlockRun, Failure, Job, Output, mark_of
from tracer.errors import TracerError
from tracer.records import Mark, TraceRecord
from tracer.report.window import look_at

_PROCESS = ("-m", "tracer.docgen")


@dataclass(frozen=True, slots=True)
class DocumentRun:
    """What running a document gave: a `BlockRun` for each code block that was begun, and the trace.

    `problem` says in one line what kept the document from running at all, or the trace from being
    read.
    """

    blocks: tuple[BlockRun, ...] = ()
    trace: TraceRecord = TraceRecord()
    problem: str = ""

    def trace_of(self, block: int) -> TraceRecord:
        """Return the part of the trace that a block made, by its number from 0."""
        marks = {event.text: event.seq for event in self._marks()}
        begin = marks.get(mark_of(block), sys.maxsize)
        end = marks.get(mark_of(block + 1), sys.maxsize)
        return look_at(self.trace, begin, end - 1)

    def _marks(self) -> Iterator[Mark]:
        for event in self.trace.events.select(kinds=(Mark.kind,)):
            if isinstance(event, Mark):
                yield event


@contextmanager
def run_document(document: Document) -> Iterator[DocumentRun]:
    """Run a document's code blocks under tracing, in order, as `python` would in its own folder.

    The trace can be read until the context is left.
    """
    with tempfile.TemporaryDirectory(prefix="tracer-", ignore_cleanup_errors=True) as place:
        path = document.path.resolve()
        blocks = tuple((block.line, block.text) for block in document.code)
        job = Job(path.name, str(path.parent), document.text, blocks, place)
        yield _read(job, _start(job))


def _start(job: Job) -> int:
    """Run the process to its end; return its exit status."""
    described = Path(job.place, "job.json")
    described.write_text(job.to_text(), "utf-8")
    root = Path(tracer.__file__).resolve().parent.parent
    with job.stream("stdout").open("wb") as stdout, job.stream("stderr").open("wb") as stderr:
        return subprocess.run(
            [sys.executable, *_PROCESS, str(described)], cwd=root,
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, check=False,
            env={"MPLBACKEND": "agg", **os.environ},
        ).returncode  # fmt: skip


def _read(job: Job, status: int) -> DocumentRun:
    runs = _read_results(job)
    if runs and not runs[-1].ended:
        runs[-1] = _cut_short(job, runs[-1], status)
    elif status and not (runs and runs[-1].failure):
        return DocumentRun(tuple(runs), problem=_last_words(job, status))
    try:
        return DocumentRun(tuple(runs), api.load(job.trace).record)
    except TracerError as error:
        return DocumentRun(tuple(runs), problem=str(error))


def _read_results(job: Job) -> list[BlockRun]:
    """Read the last word on each block that was begun."""
    runs: dict[int, BlockRun] = {}
    text = job.results.read_text("utf-8") if job.results.exists() else ""
    for line in text.splitlines():
        fields = json.loads(line)
        fields["outputs"] = tuple(Output(**output) for output in fields["outputs"])
        fields["failure"] = Failure(**fields["failure"]) if fields["failure"] else None
        runs[fields["block"]] = BlockRun(**fields)
    return list(runs.values())


def _cut_short(job: Job, run: BlockRun, status: int) -> BlockRun:
    """Return the run of a block that took its process along: with a failure that says so."""
    message = f"the process ended in this block: {_ending(status)}"
    failure = Failure("", message, job.blocks[run.block][0], message)
    return BlockRun(run.block, run.outputs, failure)


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _last_words(job: Job, status: int) -> str:
    lines = job.stream("stderr").read_text("utf-8", "replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{job.name} could not be run ({_ending(status)}){': ' * bool(said)}{said}"
