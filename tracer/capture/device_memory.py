"""Bytes of a device that readings are put into; their copy on the host, made at once, comes out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

_ALIGNED = 16


class Reading(NamedTuple):
    """What will be known by a number: where its bytes lie, and what to make of them."""

    number: int
    at: int
    size: int
    meta: int
    finish: Callable[[bytes], bytes]


class Chunk:
    """Memory of one device, filled by operations that are under way and copied to the host once.

    This one waits for the whole device before it copies.
    """

    def __init__(self, device: torch.device, size: int) -> None:
        self.device = device
        self.readings: list[Reading] = []
        self._used = 0
        with torch._C._InferenceMode(False):  # what is made in it could be written to in it alone
            self._memory = self._allocate(size)

    def _allocate(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more go in."""
        return self._used + size <= self._memory.numel()

    def take(self, size: int) -> tuple[int, Tensor]:
        """So many bytes, and where they lie."""
        at = self._used
        self._used += -(-size // _ALIGNED) * _ALIGNED
        return at, self._memory[at : at + size]

    def written(self) -> None:
        """Take note that the calling thread has operations under way that write here."""

    def begin_copy(self) -> None:
        """Have all that was written copied as soon as it is there."""

    def is_copied(self) -> bool:
        """Whether `copied` need not wait."""
        return True

    def copied(self) -> bytes:
        """All that was written; waits for it."""
        device: Any = torch.get_device_module(self.device)
        device.synchronize()
        return _bytes_of(self._memory[: self._used].cpu())

    def clear(self) -> None:
        """Be empty again."""
        self._used = 0
        self.readings = []


class CudaChunk(Chunk):
    """Copies beside the program's own work, once all streams that wrote have done so.

    The memory is taken on a stream of ours and given back after the copy is known to be done, so
    that the allocator hands nobody's freed memory to us while others write there.
    """

    _aside: ClassVar[dict[torch.device, Any]] = {}

    def _allocate(self, size: int) -> Tensor:
        if self.device not in self._aside:
            cuda: Any = torch.cuda
            self._aside[self.device] = cuda.Stream(self.device)
        self._streams: dict[int, Any] = {}
        self._done: Any = None
        self._host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        with torch.cuda.stream(self._aside[self.device]):
            return super()._allocate(size)

    def written(self) -> None:
        """Take note of the stream on which what was put here is under way."""
        number = torch._C._cuda_getCurrentRawStream(self.device.index)
        if number not in self._streams:
            self._streams[number] = torch.cuda.current_stream(self.device)

    def begin_copy(self) -> None:
        """Have the copy follow all that is under way, on a stream of its own."""
        aside = self._aside[self.device]
        for stream in self._streams.values():
            aside.wait_event(stream.record_event())
        with torch.cuda.stream(aside):
            self._host[: self._used].copy_(self._memory[: self._used], non_blocking=True)
            self._done = aside.record_event()

    def is_copied(self) -> bool:
        """Whether the device is through."""
        return bool(self._done.query())

    def copied(self) -> bytes:
        """All that was written; waits for the copy, not for what the device does beside it."""
        self._done.synchronize()
        return _bytes_of(self._host[: self._used])

    def clear(self) -> None:
        """Be empty again: nothing is under way here any more."""
        super().clear()
        self._streams.clear()


def _bytes_of(memory: Tensor) -> bytes:
    return ctypes.string_at(memory.data_ptr(), memory.numel())


def make_chunk(device: torch.device, size: int) -> Chunk:
    """Take memory of a device."""
    return (CudaChunk if device.type == "cuda" else Chunk)(device, size)
