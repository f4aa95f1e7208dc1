"""Both cores, told about torch, and what reads the bytes that they write."""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import torch

from tracer.capture.core import core as chosen_core
from tracer.capture.core import torch_register_hook
from tracer.records.stream import (
    ACCUMULATE,
    DTYPE_CODES,
    ENTRY_NONE,
    ENTRY_RECEIVED,
    ENTRY_SAME,
    ENTRY_STATS,
    ENTRY_UNREAD,
    ENTRY_VALUES,
    HEADER,
    NODE,
)

CODES = {getattr(torch, name): code for name, code in DTYPE_CODES.items()}
DTYPES = {code: dtype for dtype, code in CODES.items()}
OTHER = struct.pack("<BII", ENTRY_UNREAD, 7, 8)
"""What the tapes of these tests hold for a tensor that the core does not read itself."""

IN_PYTHON = chosen_core.__name__ == "tracer.capture.core_in_python"
"""Whether the core in Python records, of which docs/limits.md says what it shows."""

compiled = pytest.mark.skipif(IN_PYTHON, reason="the core in Python")


def load_core(name: str, *, exchange: bool = True) -> ModuleType:
    """Import a core and tell it about torch; without `exchange`, tensors are read by methods."""
    core = import_module(f"tracer.capture.{name}")
    core.setup(
        torch.Tensor,
        torch.nn.Parameter,
        torch.strided,
        torch._C._current_graph_task_id,
        torch._C._autograd._get_sequence_nr,
        torch.is_grad_enabled,
        OrderedDict,
        torch_register_hook,
        torch._C.DisableTorchFunction,
        CODES,
        getattr(torch.Tensor, "__dlpack_c_exchange_api__", None) if exchange else None,
    )
    return core


def make_tape(core: ModuleType, **options: Any) -> Any:
    """A tape for which every tensor that it does not read itself is OTHER."""
    return core.Tape(lambda tensor: OTHER, **options)


# ---- entries


@dataclass(frozen=True)
class Entry:
    """One entry, unpacked: its state, and what the state says."""

    state: int
    meta: int = 0
    statistics: tuple[float, ...] = ()
    values: tuple[Any, ...] = ()
    dtype: torch.dtype | None = None
    k: int = 0


_STATISTICS = struct.Struct("<BIddddQQQ")
_VALUES = struct.Struct("<BIBB")


def read_entry(data: bytes, at: int = 0) -> tuple[Entry, int]:
    """The entry at a place, and where the next one begins."""
    state = data[at]
    if state in (ENTRY_NONE, ENTRY_SAME):
        return Entry(state), at + 1
    if state == ENTRY_RECEIVED:
        return Entry(state, k=data[at + 1]), at + 2
    if state == ENTRY_UNREAD:
        return Entry(state, meta=struct.unpack_from("<I", data, at + 1)[0]), at + len(OTHER)
    if state == ENTRY_STATS:
        _, meta, *numbers = _STATISTICS.unpack_from(data, at)
        return Entry(state, meta, tuple(numbers)), at + _STATISTICS.size
    assert state == ENTRY_VALUES
    _, meta, code, count = _VALUES.unpack_from(data, at)
    dtype, start = DTYPES[code], at + _VALUES.size
    end = start + count * dtype.itemsize
    raw = bytearray(data[start:end])
    values = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    return Entry(state, meta, values=tuple(values.tolist()), dtype=dtype), end


def read_whole(data: bytes) -> Entry:
    """The entry that fills these bytes."""
    entry, end = read_entry(data)
    assert end == len(data)
    return entry


def read_entries(data: bytes) -> list[Entry]:
    """The entries that fill these bytes."""
    entries, at = [], 0
    while at < len(data):
        entry, at = read_entry(data, at)
        entries.append(entry)
    return entries


# ---- frames


@dataclass(frozen=True)
class Frame:
    """One frame, unpacked as far as its header."""

    kind: int
    thread: int
    pass_id: int
    seq: int
    t_ns: int
    payload: bytes


@dataclass(frozen=True)
class NodeFrame:
    """The frame of a node that ran."""

    pass_id: int
    seq: int
    node: int
    order: int
    ended: bool
    received: tuple[Entry, ...]
    returned: tuple[Entry, ...]


@dataclass(frozen=True)
class AccumulateFrame:
    """The frame of an accumulation."""

    pass_id: int
    seq: int
    leaf: int
    node: int
    order: int
    entries: tuple[Entry, ...]


def read_frames(data: bytes) -> list[Frame]:
    """The frames that fill these bytes."""
    frames, at = [], 0
    while at < len(data):
        length, kind, flags, thread, pass_id, seq, t_ns = HEADER.unpack_from(data, at)
        assert flags == 0
        assert length >= HEADER.size
        payload = data[at + HEADER.size : at + length]
        assert len(payload) == length - HEADER.size
        frames.append(Frame(kind, thread, pass_id, seq, t_ns, payload))
        at += length
    return frames


def timeless(data: bytes) -> list[Frame]:
    """The frames without their times, to be compared with those of another run."""
    frames = [replace(frame, t_ns=0) for frame in read_frames(data)]
    return [
        replace(frame, payload=frame.payload[:8] + bytes(8) + frame.payload[16:])
        if frame.kind == 7  # a node's time of end
        else frame
        for frame in frames
    ]


def read_node(frame: Frame) -> NodeFrame:
    """The frame of a node, unpacked."""
    assert frame.kind == 7
    node, order, end, received, returned = NODE.unpack_from(frame.payload)
    entries = read_entries(frame.payload[NODE.size :])
    assert len(entries) == received + returned
    assert end == -1 or end >= frame.t_ns
    return NodeFrame(
        frame.pass_id, frame.seq, node, order, end != -1,
        tuple(entries[:received]), tuple(entries[received:]),
    )  # fmt: skip


def read_accumulate(frame: Frame) -> AccumulateFrame:
    """The frame of an accumulation, unpacked."""
    assert frame.kind == 9
    leaf, node, order, end = ACCUMULATE.unpack_from(frame.payload)
    assert end == -1
    entries = tuple(read_entries(frame.payload[ACCUMULATE.size :]))
    return AccumulateFrame(frame.pass_id, frame.seq, leaf, node, order, entries)


# ---- a pass


class Faults:
    """Takes our own failures, as the recorder does."""

    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []

    def __call__(self, error: BaseException | None) -> None:
        self.errors.append(error)


def make_mode(core: ModuleType, tape: Any, **callbacks: Callable[..., Any]) -> Any:
    """A mode that observes every function, and takes the frames of tests for the user's."""
    faults = Faults()
    wanted: dict[str, Callable[..., Any]] = {
        "describe": lambda function: core.Op(5),
        "is_user": lambda code: os.path.basename(code.co_filename).startswith("test_"),
        "site": lambda code, lasti, line: line,
        "plain": lambda *call: None,
        "fault": faults,
    }
    wanted |= callbacks
    return core.ModeCore(tape, *wanted.values())
