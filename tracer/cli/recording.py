"""A job in; its trace, recorded in the script's own process, and a few lines about it out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from tracer import api
from tracer.cli.farewell import describe_trace
from tracer.cli.launch import Job
from tracer.cli.switch import switched_job
from tracer.records.limits import limits_of
from tracer.records.picking import Selection

Uncaught = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Recording:
    """One recording, from the moment torch is there until the process ends."""

    def __init__(self, job: Job, manager: AbstractContextManager[api.Trace]) -> None:
        self.job = job
        self.manager = manager
        self.trace = manager.__enter__()

    @classmethod
    def begin(cls, job_text: str) -> Recording:
        """Start recording what the job asks for, in this process."""
        return cls.begin_job(Job.from_text(job_text))

    @classmethod
    def begin_switched(cls, text: str) -> Recording | None:
        """Start recording as the variable TRACER says; `text` is where Python started, and that."""
        folder, _, words = text.partition("\0")
        job = switched_job(words, Path(folder))
        return None if job is None else cls.begin_job(job)

    @classmethod
    def begin_job(cls, job: Job) -> Recording:
        """Start recording what the job asks for, in this process."""
        argv = sys.orig_argv[-job.words :]
        recording = api.Recording(
            job.output, limits=limits_of(job.limits),
            follow=None if job.follow is None else _selection(job.follow),
            follow_to=job.follow_to, torchviz=job.torchviz,
            library_frames=job.library_frames, script=job.script, argv=argv,
        )  # fmt: skip
        return cls(job, api.Trace(recording=recording))

    def end(self) -> str:
        """Close the trace; return what to say of it, which is nothing if quiet; never raise."""
        try:
            self.manager.__exit__(*uncaught_exception())
            record = self.trace.record
            if self.job.switched and not record.passes:
                Path(self.job.output).unlink()
                text = f"tracer: {self.job.script}: no backward pass ran, so no trace is kept\n"
            else:
                text = describe_trace(self.job.shown, record)
            return "" if self.job.quiet else text
        except Exception as error:
            return f"tracer: {self.job.shown} may be incomplete: {type(error).__name__}: {error}\n"


def _selection(fields: Mapping[str, tuple[str, ...]]) -> Selection:
    """The events to print; an empty mapping stands for all of them."""
    kinds, names, modules = (fields.get(name, ()) for name in ("kinds", "names", "modules"))
    return Selection(kinds=kinds, names=names, modules=modules)


def uncaught_exception() -> Uncaught:
    """Return the exception that ended the script, as Python left it, in the form of `__exit__`."""
    error: BaseException | None = getattr(sys, "last_value", None)
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)
