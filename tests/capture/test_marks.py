"""What user code says of the recording: marks, and pauses with their begin and end."""

from __future__ import annotations

import torch

import tracer
from tracer.records import Mark, Pause


def test_a_pause_is_told_with_its_begin_and_end_and_nothing_in_between() -> None:
    with tracer.trace() as trace:
        x = torch.ones(2, requires_grad=True)
        tracer.pause()
        tracer.pause()
        (x * 3).sum().backward()
        tracer.mark("hidden")
        tracer.resume()
        tracer.resume()
        tracer.mark("after")
    said = [event for event in trace.record.events if isinstance(event, (Mark, Pause))]
    texts = [event.text if isinstance(event, Mark) else event.resumed for event in said]
    assert texts == [False, True, "after"]
    assert [event.site.text for event in said if event.site is not None] == [
        "tracer.pause()", "tracer.resume()", 'tracer.mark("after")',
    ]  # fmt: skip
    assert trace.passes == []


def test_marks_and_pauses_without_a_recording_do_nothing() -> None:
    tracer.mark("nobody listens")
    tracer.pause()
    tracer.resume()
