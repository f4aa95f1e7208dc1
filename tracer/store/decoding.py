"""Packed frames in, the events that they hold out, given the tables that they refer to."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
from tracer.records.quick import maker
from tracer.records.stream import (
    ACCUMULATE,
    ENTRY_NONE,
    ENTRY_RECEIVED,
    ENTRY_SAME,
    FORWARD,
    HEADER,
    NODE,
)
from tracer.records.tensors import Gradient, TensorMeta
from tracer.store.entries import UNKNOWN_META, Lookup, Packed, decode_entry
from tracer.store.frames import (
    COUNTED,
    COUNTS,
    CUT,
    GRAD_MODES,
    GRAD_READ,
    HOOK_RUN,
    KIND_CODES,
    NODE_CODE,
    ONE,
    SAVED_WRITE,
    TENSOR,
    TWO,
    WRITE,
)


class Flow(Protocol):
    """What the structure and the earlier frames of a pass say of what a frame leaves out."""

    def arriving(self, node: int) -> Sequence[TensorMeta]:
        """The metadata of each gradient that arrives at a node."""
        ...

    def leaving(self, node: int) -> Sequence[TensorMeta]:
        """The metadata of each gradient that leaves a node, by slot."""
        ...

    def leaf(self, leaf: int) -> TensorMeta:
        """The metadata of a leaf."""
        ...

    def sent(self, node: int, input_nr: int) -> Gradient | None:
        """What the one edge into this input carried."""
        ...


@dataclass(slots=True)
class _Payload:
    """Reads one frame's payload from front to back."""

    buffer: Packed
    offset: int
    end: int
    lookup: Lookup
    flow: Flow

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        values = layout.unpack_from(self.buffer, self.offset)
        self.offset += layout.size
        return values

    def text(self) -> str:
        return self.lookup.string(self.take(ONE)[0])

    def entry(self, default: TensorMeta) -> Gradient | None:
        entry, self.offset = decode_entry(self.buffer, self.offset, self.lookup, default)
        return entry

    def entries(self, count: int, defaults: Sequence[TensorMeta]) -> tuple[Gradient | None, ...]:
        self.check(count)
        return tuple(self.entry(meta_at(defaults, k)) for k in range(count))

    def check(self, count: int) -> None:
        """Refuse a count of things that the rest of the frame cannot hold."""
        if count > self.end - self.offset:
            raise ValueError(f"{count} items in {self.end - self.offset} bytes")


def decode_event(buffer: Packed, offset: int, lookup: Lookup, flow: Flow) -> Event:
    """Unpack the frame at `offset`.

    Raises ValueError, LookupError or struct.error for a frame that holds no event.
    """
    code = buffer[offset + _CODE_AT]
    decode = _OFTEN.get(code)
    if decode is not None:
        return decode(buffer, offset, lookup, flow)
    length, _, _, thread, pass_id, seq, t_ns = HEADER.unpack_from(buffer, offset)
    if not 0 < code <= len(EVENT_KINDS):
        raise ValueError(f"an event of kind {code}")
    payload = _Payload(buffer, offset + HEADER.size, offset + length, lookup, flow)
    kind = EVENT_KINDS[code - 1]
    fields = _DECODERS[kind](payload)
    check_end(payload.offset, payload.end)
    event: Event = kind(seq=seq, t_ns=t_ns, thread=thread, pass_id=pass_id or None, **fields)
    return event


def check_end(offset: int, end: int) -> None:
    """Refuse a frame that goes on behind its event, or ends before."""
    if offset != end:
        raise ValueError(f"a frame that ends {end - offset} bytes after its event")


# ---- what nearly all frames are, without the steps of the others


def _decode_node(buffer: Packed, offset: int, lookup: Lookup, flow: Flow) -> NodeRun:
    (
        length, _, _, thread, pass_id, seq, t_ns, node, order, end_ns, n_received, n_returned,
    ) = _unpack_node(buffer, offset)  # fmt: skip
    end = offset + length
    offset += _NODE_SIZE
    if n_received + n_returned > end - offset:
        raise ValueError(f"{n_received + n_returned} entries in {end - offset} bytes")
    received: list[Gradient | None] = []
    for k in range(n_received):
        if buffer[offset] == ENTRY_SAME:
            entry, offset = flow.sent(node, k), offset + 1
        else:
            meta = meta_at(flow.arriving(node), k)
            entry, offset = decode_entry(buffer, offset, lookup, meta)
        received.append(entry)
    returned: list[Gradient | None] = []
    metas: Sequence[TensorMeta] | None = None
    for slot in range(n_returned):
        state = buffer[offset]
        if state == ENTRY_NONE:
            entry, offset = None, offset + 1
        elif state == ENTRY_RECEIVED:
            entry, offset = received[buffer[offset + 1]], offset + 2
        else:
            if metas is None:
                metas = flow.leaving(node)
            meta = metas[slot] if slot < len(metas) else UNKNOWN_META
            entry, offset = decode_entry(buffer, offset, lookup, meta)
        returned.append(entry)
    if offset != end:
        check_end(offset, end)
    return _node_run(
        seq, t_ns, thread, pass_id or None, node, order, end_ns if end_ns >= 0 else None,
        tuple(received), tuple(returned),
    )  # fmt: skip


def _decode_accumulate(buffer: Packed, offset: int, lookup: Lookup, flow: Flow) -> Accumulate:
    (
        length, _, _, thread, pass_id, seq, t_ns, leaf, node, order, end_ns,
    ) = _unpack_accumulate(buffer, offset)  # fmt: skip
    end = offset + length
    offset += _ACCUMULATE_SIZE
    entries: list[Gradient | None] = []
    for _ in range(3):
        state = buffer[offset]
        if state == ENTRY_NONE:
            entry, offset = None, offset + 1
        elif state == ENTRY_SAME:
            entry, offset = flow.sent(node, 0), offset + 1
        else:
            entry, offset = decode_entry(buffer, offset, lookup, flow.leaf(leaf))
        entries.append(entry)
    if offset != end:
        check_end(offset, end)
    return _accumulate(
        seq, t_ns, thread, pass_id or None, leaf, node, order, end_ns if end_ns >= 0 else None,
        *entries,
    )  # fmt: skip


def decode_forward(buffer: Packed, offset: int, lookup: Lookup, flow: Flow) -> Forward:
    """Unpack the frame of a forward operation at `offset`; raises as `decode_event` does."""
    (
        length, _, _, thread, pass_id, seq, t_ns, op, site, module, low, high, mode, cut_kind,
    ) = _unpack_forward(buffer, offset)  # fmt: skip
    end = offset + length
    offset += _FORWARD_SIZE
    cut = None
    if cut_kind:
        payload = _Payload(buffer, offset - ONE.size, end, lookup, flow)
        cut, offset = _decode_cut(payload), payload.offset
    n_inputs, n_outputs = COUNTS.unpack_from(buffer, offset)
    first = offset + _COUNTS_SIZE
    between = first + n_inputs * _TENSOR_SIZE
    if between + n_outputs * _TENSOR_SIZE != end:
        check_end(between + n_outputs * _TENSOR_SIZE, end)
    inputs = _tensors(buffer, first, between, lookup) if n_inputs else ()
    outputs = _tensors(buffer, between, end, lookup) if n_outputs else ()
    return _forward(
        seq, t_ns, thread, pass_id or None, lookup.string(op), lookup.site(site),
        lookup.string(module), (low, high), GRAD_MODES[mode], inputs, outputs, cut,
    )  # fmt: skip


# ---- the others


def _decode_cut(payload: _Payload) -> Cut:
    kind, region, count = payload.take(CUT)
    tensors = tuple(payload.text() for _ in range(count))
    return Cut(payload.lookup.string(kind), tensors, payload.lookup.site(region))


def _tensors(buffer: Packed, start: int, end: int, lookup: Lookup) -> tuple[TensorRef, ...]:
    refs = []
    for at in range(start, end, _TENSOR_SIZE):
        meta, made_by, leaf, name = TENSOR.unpack_from(buffer, at)
        known, number = lookup.meta(meta) if meta else None, None if leaf < 0 else leaf
        refs.append(_tensor_ref(known, made_by or None, number, lookup.string(name)))
    return tuple(refs)


def _decode_grad_mode(payload: _Payload) -> dict[str, object]:
    mode, site = payload.take(TWO)
    return {"mode": payload.lookup.string(mode), "site": payload.lookup.site(site)}


def _decode_hook_change(payload: _Payload) -> dict[str, object]:
    hook, site = payload.take(TWO)
    return {"hook": payload.lookup.hook(hook), "site": payload.lookup.site(site)}


def _decode_nothing(payload: _Payload) -> dict[str, object]:
    return {}


def _decode_hook_run(payload: _Payload) -> dict[str, object]:
    number, node, input_nr, flags, raised, n_before, n_after = payload.take(HOOK_RUN)
    hook = payload.lookup.hook(number)
    metas: Sequence[TensorMeta] = ()
    if node >= 0:
        place = payload.flow.leaving if hook.kind == "posthook" else payload.flow.arriving
        metas = place(node)
    if input_nr >= 0:
        metas = metas[input_nr : input_nr + 1]
    return {
        "hook": hook,
        "node": _or_none(node),
        "input_nr": _or_none(input_nr),
        "before": payload.entries(n_before, metas),
        "after": payload.entries(n_after, metas),
        "changed": bool(flags & 1),
        "removed": bool(flags & 2),
        "raised": payload.lookup.string(raised),
    }


def _decode_write(payload: _Payload) -> dict[str, object]:
    leaf, how, site = payload.take(WRITE)
    meta = payload.flow.leaf(leaf)
    return {
        "leaf": leaf,
        "how": payload.lookup.string(how),
        "site": payload.lookup.site(site),
        "before": payload.entry(meta),
        "after": payload.entry(meta),
    }


def _decode_grad_read(payload: _Payload) -> dict[str, object]:
    tensor, number, site = payload.take(GRAD_READ)
    lookup = payload.lookup
    return {
        "tensor": lookup.string(tensor),
        "sequence_nr": _or_none(number),
        "site": lookup.site(site),
    }


def _decode_saved_write(payload: _Payload) -> dict[str, object]:
    node, attribute, how, version, site = payload.take(SAVED_WRITE)
    lookup = payload.lookup
    return {
        "node": node,
        "attribute": lookup.string(attribute),
        "how": lookup.string(how),
        "version": _or_none(version),
        "site": lookup.site(site),
    }


def _decode_optimizer_step(payload: _Payload) -> dict[str, object]:
    optimizer, site, count = payload.take(WRITE)
    payload.check(count)
    leaves = payload.take(struct.Struct(f"<{count}I"))
    lookup = payload.lookup
    return {"optimizer": lookup.string(optimizer), "site": lookup.site(site), "leaves": leaves}


def _decode_recompute(payload: _Payload) -> dict[str, object]:
    forward, site = payload.take(COUNTED)
    return {"forward": forward or None, "site": payload.lookup.site(site)}


def _decode_mark(payload: _Payload) -> dict[str, object]:
    site = payload.take(ONE)[0]
    raw = bytes(payload.buffer[payload.offset : payload.end])
    payload.offset = payload.end
    return {"site": payload.lookup.site(site), "text": raw.decode("utf-8", "surrogatepass")}


def _decode_pause(payload: _Payload) -> dict[str, object]:
    resumed, site = payload.take(TWO)
    return {"resumed": bool(resumed), "site": payload.lookup.site(site)}


def _decode_dropped(payload: _Payload) -> dict[str, object]:
    count, reason = payload.take(COUNTED)
    return {"count": count, "reason": payload.lookup.string(reason)}


def meta_at(metas: Sequence[TensorMeta], place: int) -> TensorMeta:
    """The metadata of that place, or the unknown one where the structure has no such place."""
    return metas[place] if place < len(metas) else UNKNOWN_META


def _or_none(number: int) -> int | None:
    return None if number < 0 else number


_CODE_AT = 4
"""Where the kind of a frame stands in its header."""

_NODE_FRAME, _ACCUMULATE_FRAME, _FORWARD_FRAME = (
    struct.Struct(HEADER.format + layout)
    for layout in (NODE.format[1:], ACCUMULATE.format[1:], FORWARD.format[1:] + "I")
)
_NODE_SIZE, _ACCUMULATE_SIZE = _NODE_FRAME.size, _ACCUMULATE_FRAME.size
_FORWARD_SIZE, _COUNTS_SIZE, _TENSOR_SIZE = _FORWARD_FRAME.size, COUNTS.size, TENSOR.size
_unpack_node = _NODE_FRAME.unpack_from
_unpack_accumulate = _ACCUMULATE_FRAME.unpack_from
_unpack_forward = _FORWARD_FRAME.unpack_from
_node_run, _accumulate, _forward = maker(NodeRun), maker(Accumulate), maker(Forward)
_tensor_ref = maker(TensorRef)
_OFTEN: dict[int, Callable[[Packed, int, Lookup, Flow], Event]] = {
    NODE_CODE: _decode_node,
    KIND_CODES[Accumulate]: _decode_accumulate,
    KIND_CODES[Forward]: decode_forward,
}
_DECODERS: dict[type[Event], Callable[[_Payload], dict[str, object]]] = {
    GradMode: _decode_grad_mode,
    HookAdded: _decode_hook_change,
    HookRemoved: _decode_hook_change,
    PassBegin: _decode_nothing,
    PassEnd: _decode_nothing,
    HookRun: _decode_hook_run,
    GradWrite: _decode_write,
    DataWrite: _decode_write,
    GradRead: _decode_grad_read,
    OptimizerStep: _decode_optimizer_step,
    Recompute: _decode_recompute,
    Mark: _decode_mark,
    Dropped: _decode_dropped,
    Pause: _decode_pause,
    SavedWrite: _decode_saved_write,
}
