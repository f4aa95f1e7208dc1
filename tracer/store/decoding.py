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
from tracer.records.stream import ACCUMULATE, ENTRY_RECEIVED, ENTRY_SAME, FORWARD, HEADER, NODE
from tracer.records.tensors import Gradient, TensorMeta
from tracer.store.entries import UNKNOWN_META, Lookup, Packed, decode_entry
from tracer.store.frames import (
    COUNTED,
    COUNTS,
    CUT,
    GRAD_MODES,
    GRAD_READ,
    HOOK_RUN,
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

    def arriving_entry(self, default: TensorMeta, node: int) -> Gradient | None:
        """Read an entry that may stand for what the one edge into a leaf's node sent."""
        if self.buffer[self.offset] != ENTRY_SAME:
            return self.entry(default)
        self.offset += 1
        return self.flow.sent(node, 0)

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
    length, code, _, thread, pass_id, seq, t_ns = HEADER.unpack_from(buffer, offset)
    if code == NODE_CODE:
        return _decode_node(buffer, offset, lookup, flow)
    if code == _FORWARD_CODE:
        return _decode_forward(buffer, offset, lookup, flow)
    if not 0 < code <= len(EVENT_KINDS):
        raise ValueError(f"an event of kind {code}")
    payload = _Payload(buffer, offset + HEADER.size, offset + length, lookup, flow)
    kind = EVENT_KINDS[code - 1]
    fields = _DECODERS[kind](payload)
    _check_end(payload.offset, payload.end)
    event: Event = kind(seq=seq, t_ns=t_ns, thread=thread, pass_id=pass_id or None, **fields)
    return event


def _check_end(offset: int, end: int) -> None:
    if offset != end:
        raise ValueError(f"a frame that ends {end - offset} bytes after its event")


def _decode_node(buffer: Packed, offset: int, lookup: Lookup, flow: Flow) -> NodeRun:
    """Unpack a node's frame: most frames are, so it goes without the steps of the others."""
    length, _, _, thread, pass_id, seq, t_ns = HEADER.unpack_from(buffer, offset)
    end = offset + length
    node, order, end_ns, n_received, n_returned = NODE.unpack_from(buffer, offset + HEADER.size)
    offset += HEADER.size + NODE.size
    if n_received + n_returned > end - offset:
        raise ValueError(f"{n_received + n_returned} entries in {end - offset} bytes")
    received: list[Gradient | None] = []
    metas = flow.arriving(node)
    for k in range(n_received):
        if buffer[offset] == ENTRY_SAME:
            entry, offset = flow.sent(node, k), offset + 1
        else:
            entry, offset = decode_entry(buffer, offset, lookup, meta_at(metas, k))
        received.append(entry)
    returned: list[Gradient | None] = []
    metas = flow.leaving(node)
    for slot in range(n_returned):
        if buffer[offset] == ENTRY_RECEIVED:
            entry, offset = received[buffer[offset + 1]], offset + 2
        else:
            entry, offset = decode_entry(buffer, offset, lookup, meta_at(metas, slot))
        returned.append(entry)
    _check_end(offset, end)
    return NodeRun(
        seq=seq, t_ns=t_ns, thread=thread, pass_id=pass_id or None, node=node, order=order,
        end_ns=end_ns if end_ns >= 0 else None, received=tuple(received), returned=tuple(returned),
    )  # fmt: skip


def _decode_forward(buffer: Packed, offset: int, lookup: Lookup, flow: Flow) -> Forward:
    """Unpack a forward operation's frame: of these there are as many as of nodes."""
    length, _, _, thread, pass_id, seq, t_ns = HEADER.unpack_from(buffer, offset)
    end = offset + length
    op, site, module, low, high, mode = FORWARD.unpack_from(buffer, offset + HEADER.size)
    offset += HEADER.size + FORWARD.size
    cut = None
    if ONE.unpack_from(buffer, offset)[0]:
        payload = _Payload(buffer, offset, end, lookup, flow)
        cut, offset = _decode_cut(payload), payload.offset
    else:
        offset += ONE.size
    n_inputs, n_outputs = COUNTS.unpack_from(buffer, offset)
    first = offset + COUNTS.size
    between = first + n_inputs * TENSOR.size
    _check_end(between + n_outputs * TENSOR.size, end)
    inputs = [_tensor(buffer, at, lookup) for at in range(first, between, TENSOR.size)]
    outputs = [_tensor(buffer, at, lookup) for at in range(between, end, TENSOR.size)]
    return Forward(
        seq=seq, t_ns=t_ns, thread=thread, pass_id=pass_id or None, op=lookup.string(op),
        site=lookup.site(site), module=lookup.string(module), sequence_nrs=(low, high),
        grad_mode=GRAD_MODES[mode], inputs=tuple(inputs), outputs=tuple(outputs), cut=cut,
    )  # fmt: skip


def _decode_cut(payload: _Payload) -> Cut:
    kind, region, count = payload.take(CUT)
    tensors = tuple(payload.text() for _ in range(count))
    return Cut(payload.lookup.string(kind), tensors, payload.lookup.site(region))


def _tensor(buffer: Packed, offset: int, lookup: Lookup) -> TensorRef:
    meta, made_by, leaf, name = TENSOR.unpack_from(buffer, offset)
    known = lookup.meta(meta) if meta else None
    return TensorRef(known, made_by or None, None if leaf < 0 else leaf, lookup.string(name))


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


def _decode_accumulate(payload: _Payload) -> dict[str, object]:
    leaf, node, order, end_ns = payload.take(ACCUMULATE)
    meta = payload.flow.leaf(leaf)
    before, incoming, after = (payload.arriving_entry(meta, node) for _ in range(3))
    return {
        "leaf": leaf,
        "node": node,
        "order": order,
        "end_ns": _or_none(end_ns),
        "before": before,
        "incoming": incoming,
        "after": after,
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


_FORWARD_CODE = EVENT_KINDS.index(Forward) + 1
_DECODERS: dict[type[Event], Callable[[_Payload], dict[str, object]]] = {
    GradMode: _decode_grad_mode,
    HookAdded: _decode_hook_change,
    HookRemoved: _decode_hook_change,
    PassBegin: _decode_nothing,
    PassEnd: _decode_nothing,
    HookRun: _decode_hook_run,
    Accumulate: _decode_accumulate,
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
