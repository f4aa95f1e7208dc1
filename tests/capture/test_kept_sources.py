"""A trace has the text of the files it speaks of before the recording ends."""

from __future__ import annotations

from pathlib import Path

import torch

import tracer
from tracer.capture.session import Session


def test_sources_are_written_as_they_are_met(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    with tracer.trace(path):
        torch.ones(2, requires_grad=True).sum().backward()
        assert Session.active is not None
        Session.active.recorder.flush()
        assert list(tracer.load(path).record.sources) == [__file__]
