"""Events in, packed frames out; and the way through packed frames without decoding them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tracer.records.events import (
    EVENT_KINDS,
    Accumulate,
    Cut,
    DataWrite,
    Dropped,
    Event,
    Forward,
    GradMode,
    GradRead,
    GradWrite,
    HookAdded,
    HookRemoved,
    HookRun,
    Mark,
    NodeRun,
    OptimizerStep,
    PassBegin,
    PassEnd,
    Pause,
    Recompute,
    SavedWrite,
    TensorRef,
)
from tracer.records.stream import ACCUMULATE, FORWARD, HEADER, NODE
from tracer.records.tensors import Gradient
from tracer.store.entries import (
    Names,
    Packed,
    encode_entry,
)

KIND_CODES = {kind: code for code, kind in enumerate(EVENT_KINDS, 1)}
CODE_OF_KIND = {kind.kind: code for kind, code in KIND_CODES.items()}
NODE_CODE = KIND_CODES[NodeRun]
PASS_END_CODE = KIND_CODES[PassEnd]
GRAD_MODES = ("grad", "no_grad", "inference")

Frame = tuple[int, int, int, Packed, int, bool]
"""Where an event lies, packed: seq, kind, pass, frames, offset, and whether it is wanted."""

_SCAN = struct.Struct("<IBxxxIQ")
CUT = struct.Struct("<IIH")
COUNTS = struct.Struct("<HH")
TENSOR = struct.Struct("<IQqI")
TWO = struct.Struct("<II")
ONE = struct.Struct("<I")
HOOK_RUN = struct.Struct("<IqqBIII")
WRITE = struct.Struct("<III")
GRAD_READ = struct.Struct("<IqI")
COUNTED = struct.Struct("<QI")
SAVED_WRITE = struct.Struct("<IIIqI")


def encode_event(event: Event, names: Names) -> bytes:
    """Pack one event as a frame; `names` gives the ids of all that is stored once."""
    kind = type(event)
    payload = _ENCODERS[kind](event, names)
    thread = min(event.thread, 0xFFFF)
    header = HEADER.pack(
        HEADER.size + len(payload), KIND_CODES[kind], 0, thread, event.pass_id or 0,
        event.seq, event.t_ns,
    )  # fmt: skip
    return header + payload


def _encode_forward(event: Forward, names: Names) -> bytes:
    fixed = FORWARD.pack(
        names.string(event.op), names.site(event.site), names.string(event.module),
        *event.sequence_nrs, GRAD_MODES.index(event.grad_mode),
    )  # fmt: skip
    counts = COUNTS.pack(len(event.inputs), len(event.outputs))
    tensors = [_encode_tensor(tensor, names) for tensor in event.inputs + event.outputs]
    return fixed + _encode_cut(event.cut, names) + counts + b"".join(tensors)


def _encode_cut(cut: Cut | None, names: Names) -> bytes:
    if cut is None:
        return ONE.pack(0)
    texts = [ONE.pack(names.string(text)) for text in cut.tensors]
    head = CUT.pack(names.string(cut.kind), names.site(cut.region), len(texts))
    return head + b"".join(texts)


def _encode_tensor(tensor: TensorRef, names: Names) -> bytes:
    meta = 0 if tensor.meta is None else names.meta(tensor.meta)
    leaf = -1 if tensor.leaf is None else tensor.leaf
    return TENSOR.pack(meta, tensor.made_by or 0, leaf, names.string(tensor.name))


def _encode_grad_mode(event: GradMode, names: Names) -> bytes:
    return TWO.pack(names.string(event.mode), names.site(event.site))


def _encode_hook_change(event: HookAdded | HookRemoved, names: Names) -> bytes:
    return TWO.pack(names.hook(event.hook), names.site(event.site))


def _encode_nothing(event: PassBegin | PassEnd, names: Names) -> bytes:
    return b""


def _encode_node(event: NodeRun, names: Names) -> bytes:
    fixed = NODE.pack(
        event.node, event.order, _or_minus_one(event.end_ns),
        len(event.received), len(event.returned),
    )  # fmt: skip
    return fixed + _encode_entries(event.received + event.returned, names)


def _encode_hook_run(event: HookRun, names: Names) -> bytes:
    fixed = HOOK_RUN.pack(
        names.hook(event.hook), _or_minus_one(event.node), _or_minus_one(event.input_nr),
        event.changed | event.removed << 1, names.string(event.raised),
        len(event.before), len(event.after),
    )  # fmt: skip
    return fixed + _encode_entries(event.before + event.after, names)


def _encode_accumulate(event: Accumulate, names: Names) -> bytes:
    fixed = ACCUMULATE.pack(event.leaf, event.node, event.order, _or_minus_one(event.end_ns))
    return fixed + _encode_entries((event.before, event.incoming, event.after), names)


def _encode_write(event: GradWrite | DataWrite, names: Names) -> bytes:
    fixed = WRITE.pack(event.leaf, names.string(event.how), names.site(event.site))
    return fixed + _encode_entries((event.before, event.after), names)


def _encode_grad_read(event: GradRead, names: Names) -> bytes:
    number = _or_minus_one(event.sequence_nr)
    return GRAD_READ.pack(names.string(event.tensor), number, names.site(event.site))


def _encode_saved_write(event: SavedWrite, names: Names) -> bytes:
    return SAVED_WRITE.pack(
        event.node, names.string(event.attribute), names.string(event.how),
        _or_minus_one(event.version), names.site(event.site),
    )  # fmt: skip


def _encode_optimizer_step(event: OptimizerStep, names: Names) -> bytes:
    count = len(event.leaves)
    fixed = WRITE.pack(names.string(event.optimizer), names.site(event.site), count)
    return fixed + struct.pack(f"<{count}I", *event.leaves)


def _encode_recompute(event: Recompute, names: Names) -> bytes:
    return COUNTED.pack(event.forward or 0, names.site(event.site))


def _encode_mark(event: Mark, names: Names) -> bytes:
    return ONE.pack(names.site(event.site)) + event.text.encode("utf-8", "surrogatepass")


def _encode_pause(event: Pause, names: Names) -> bytes:
    return TWO.pack(event.resumed, names.site(event.site))


def _encode_dropped(event: Dropped, names: Names) -> bytes:
    return COUNTED.pack(event.count, names.string(event.reason))


def _encode_entries(gradients: Sequence[Gradient | None], names: Names) -> bytes:
    return b"".join([encode_entry(gradient, names) for gradient in gradients])


def _or_minus_one(number: int | None) -> int:
    return -1 if number is None else number


_ENCODERS: dict[type[Event], Callable[[Any, Names], bytes]] = {
    Forward: _encode_forward,
    GradMode: _encode_grad_mode,
    HookAdded: _encode_hook_change,
    HookRemoved: _encode_hook_change,
    PassBegin: _encode_nothing,
    PassEnd: _encode_nothing,
    NodeRun: _encode_node,
    HookRun: _encode_hook_run,
    Accumulate: _encode_accumulate,
    GradWrite: _encode_write,
    DataWrite: _encode_write,
    GradRead: _encode_grad_read,
    OptimizerStep: _encode_optimizer_step,
    Recompute: _encode_recompute,
    Mark: _encode_mark,
    Dropped: _encode_dropped,
    Pause: _encode_pause,
    SavedWrite: _encode_saved_write,
}


# ---- finding frames without decoding them


def scan_frames(frames: Packed) -> Iterator[tuple[int, int, int, int]]:
    """Yield (offset, kind code, pass, seq) of each frame, reading headers only.

    Raises ValueError where a length leads out of `frames`.
    """
    unpack, offset, size = _SCAN.unpack_from, 0, len(frames)
    last = size - HEADER.size
    while offset <= last:
        length, kind, pass_id, seq = unpack(frames, offset)
        if length < HEADER.size:
            break
        yield offset, kind, pass_id, seq
        offset += length
    if offset != size:
        raise ValueError(f"a frame at byte {offset} of {size} has no sound length")


def frames_between(frames: bytes, found: Sequence[tuple[int, int, int, int]]) -> Iterator[bytes]:
    """Yield each frame, given what `scan_frames` found."""
    ends = [at for at, *_ in found[1:]] + [len(frames)]
    return (frames[start:end] for (start, *_), end in zip(found, ends, strict=True))
