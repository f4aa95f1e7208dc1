"""The CPU as a device that answers later, for as long as a test wants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tracer.capture import core, deferred
from tracer.capture.deferred import DEFERRED, Deferred
from tracer.capture.device_memory import Chunk
from tracer.capture.session import Session


@contextmanager
def answering_later() -> Iterator[None]:
    """Have recordings that begin in here read no tensor at once."""
    core.set_up(reads=None)
    DEFERRED.add("cpu")
    try:
        yield
    finally:
        DEFERRED.discard("cpu")
        core.set_up()


def readings() -> Deferred:
    """What the recording that runs has asked of devices."""
    assert Session.active is not None
    return Session.active.recorder.deferred


class Device:
    """A device that is told when to answer, or to fail; counts how often it was waited for."""

    def __init__(self) -> None:
        self.waited = 0
        self.made = 0
        self._under_way: list[_SlowChunk] = []

    def make_chunk(self, device: torch.device, size: int) -> Chunk:
        """Memory of this device."""
        self.made += 1
        return _SlowChunk(self, device, size)

    def answer(self) -> None:
        """Have all that was asked for done."""
        for chunk in self._under_way:
            chunk.is_done = True

    def fail(self) -> None:
        """Have what is under way never come."""
        for chunk in self._under_way:
            chunk.is_done = chunk.has_failed = True

    def begins(self, chunk: _SlowChunk) -> None:
        """A copy is under way."""
        self._under_way.append(chunk)


class _SlowChunk(Chunk):
    """Memory whose copy is there when the device is told so, or waited for."""

    def __init__(self, slow: Device, device: torch.device, size: int) -> None:
        super().__init__(device, size)
        self._slow = slow
        self.is_done = self.has_failed = False

    def begin_copy(self) -> None:
        self.is_done = self.has_failed = False
        self._slow.begins(self)

    def is_copied(self) -> bool:
        return self.is_done

    def copied(self) -> bytes:
        self._slow.waited += not self.is_done
        if self.has_failed:
            raise RuntimeError("the device has failed")
        return super().copied()


@contextmanager
def answering_when_told() -> Iterator[Device]:
    """Have devices answer when a test says so."""
    device, make_chunk = Device(), deferred.make_chunk
    deferred.make_chunk = device.make_chunk  # type: ignore[assignment]
    try:
        yield device
    finally:
        deferred.make_chunk = make_chunk
