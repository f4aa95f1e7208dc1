"""A trace in; one self-contained HTML file about it out."""

from __future__ import annotations

from tracer.records import TraceRecord
from tracer.report.markup import environment
from tracer.report.model import read_report


def html_report(trace: TraceRecord) -> str:
    """Return a page about a trace: pictures, passes, leaves, timeline and source, in one file.

    Nothing in it runs, and opening it requests nothing.
    """
    return environment().get_template("report.html.j2").render(report=read_report(trace))
