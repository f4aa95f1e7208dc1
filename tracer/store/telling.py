"""A pass's packed frames in; what a listener is told of each out, with no record made of most."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from tracer.records.events import Accumulate, Forward
from tracer.records.listening import Listener
from tracer.records.stream import ENTRY_NONE, ENTRY_RECEIVED, ENTRY_SAME, ENTRY_STATS
from tracer.records.tensors import TensorMeta
from tracer.records.told import Told, told, told_of
from tracer.store.archive import NONSENSE, Archive
from tracer.store.decoding import check_end, decode_event, decode_forward, meta_at
from tracer.store.entries import STATS, Packed, decode_entry
from tracer.store.files import damaged
from tracer.store.flows import Flows, PassFlow, Wirings
from tracer.store.frames import KIND_CODES, NODE_CODE, TENSOR

_Hear = Callable[..., None]
ACCUMULATE_CODE, FORWARD_CODE = KIND_CODES[Accumulate], KIND_CODES[Forward]

# The frames of `records.stream`, and an entry of statistics, with what is not told skipped.
_NODE = struct.Struct("<I16xqI4xqII")
"""length; t_ns; node, end_ns, received, returned."""
_ACCUMULATE = struct.Struct("<I16xqII12x")
"""length; t_ns; leaf, node."""
_FORWARD = struct.Struct("<I4xI8xqIIIQQBIHH")
"""length, pass; t_ns; op, site, module, low, high, mode, cut; where that is 0, inputs, outputs."""
_META = struct.Struct("<I")
_STATS = struct.Struct("<xIddd8x8xQQ")
"""meta; norm, min, max, NaNs, Infs."""

_MOST_KEPT = 4096
_node_size, _accumulate_size, _stats_size = _NODE.size, _ACCUMULATE.size, STATS.size
_unpack_node, _unpack_stats = _NODE.unpack_from, _STATS.unpack_from


class FrameTeller:
    """Tells a listener of frames, one after the other."""

    def __init__(self, archive: Archive, wirings: Wirings, listener: Listener) -> None:
        self.flows = Flows(archive, wirings)
        self._archive = archive
        self._hear: _Hear = listener.event
        self._hear_node: _Hear = listener.node
        self._hear_accumulate: _Hear = listener.accumulate
        self._hear_forward: _Hear = listener.forward
        self._operations = _Operations(archive, self.flows)
        self._passes = _Passes(archive, self.flows)

    def tell(self, kind: int, pass_id: int, buffer: Packed, offset: int) -> None:
        """Tell of a frame. Raises TraceFileError where that is damaged."""
        heard: tuple[object, ...]
        try:
            if kind == NODE_CODE:
                hear, heard = self._hear_node, self._passes[pass_id].node(buffer, offset)
            elif kind == ACCUMULATE_CODE:
                hear, heard = (
                    self._hear_accumulate,
                    self._passes[pass_id].accumulate(buffer, offset),
                )
            elif kind == FORWARD_CODE and (like := self._operations.like(buffer, offset)):
                hear, heard = self._hear_forward, like
            else:
                event = decode_event(buffer, offset, self._archive, self.flows[pass_id])
                hear, heard = self._hear, (event,)
        except NONSENSE as error:
            raise damaged(self._archive.label, error) from error
        hear(*heard)

    def forget(self, pass_id: int) -> None:
        """Let go of a pass that has ended."""
        self.flows.pop(pass_id, None)
        self._passes.pop(pass_id, None)


class _Operations:
    """Operations that are told alike, as one of them."""

    def __init__(self, archive: Archive, flows: Flows) -> None:
        self._archive = archive
        self._flows = flows
        self._known: dict[tuple[int, ...], Forward] = {}

    def like(self, buffer: Packed, offset: int) -> tuple[int, int, Forward] | None:
        """Moment, pass, and the event of a forward frame or another of which the same is told; None
        of one that lost history."""
        (
            length, pass_id, t_ns, op, site, module, low, high, mode, cut, n_inputs, n_outputs,
        ) = _FORWARD.unpack_from(buffer, offset)  # fmt: skip
        if cut:
            return None
        first = _FORWARD.size + n_inputs * TENSOR.size
        check_end(first + n_outputs * TENSOR.size, length)
        meta = _META.unpack_from(buffer, offset + first)[0] if n_outputs else 0
        key = op, site, module, high - low, mode, meta
        like = self._known.get(key)
        if like is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            like = self._known[key] = decode_forward(
                buffer, offset, self._archive, self._flows[pass_id]
            )
        return t_ns, pass_id, like


class _PassTelling:
    """What the frames of one pass tell, in the order in which they come."""

    def __init__(self, archive: Archive, flow: PassFlow, number: int, *, is_real: bool) -> None:
        """`is_real` says that no tensor is complex."""
        self._archive = archive
        self._flow = flow
        self._number = number
        self._is_real = is_real
        self._returned: dict[int, Sequence[Told | None]] = {}

    def node(self, buffer: Packed, offset: int) -> tuple[object, ...]:
        """Moment, pass, node, whether it ended, what it received and what it returned."""
        length, t_ns, node, end_ns, n_received, n_returned = _unpack_node(buffer, offset)
        end = offset + length
        offset += _node_size
        count = n_received + n_returned
        if count > end - offset:
            raise ValueError(f"{count} entries in {end - offset} bytes")
        entries: list[Told | None] = []
        for k in range(count):
            state = buffer[offset]
            if state == ENTRY_STATS and (one := self._statistics(buffer, offset)):
                offset += _stats_size
            elif state == ENTRY_NONE:
                one, offset = None, offset + 1
            elif state == ENTRY_SAME and k < n_received:
                one, offset = self._sent(node, k), offset + 1
            elif state == ENTRY_RECEIVED and k >= n_received:
                one, offset = entries[_below(n_received, buffer[offset + 1])], offset + 2
            else:
                meta = self._meta_at(node, k, n_received)
                one, offset = self._other(buffer, offset, meta)
            entries.append(one)
        if offset != end:
            check_end(offset, end)
        returned = self._returned[node] = entries[n_received:]
        return t_ns, self._number, node, end_ns >= 0, entries[:n_received], returned

    def accumulate(self, buffer: Packed, offset: int) -> tuple[object, ...]:
        """Moment, pass, leaf, node; and before, incoming, after."""
        length, t_ns, leaf, node = _ACCUMULATE.unpack_from(buffer, offset)
        end = offset + length
        offset += _accumulate_size
        entries: list[Told | None] = []
        for _ in range(3):
            state = buffer[offset]
            if state == ENTRY_STATS and (one := self._statistics(buffer, offset)):
                offset += _stats_size
            elif state == ENTRY_NONE:
                one, offset = None, offset + 1
            elif state == ENTRY_SAME:
                one, offset = self._sent(node, 0), offset + 1
            else:
                one, offset = self._other(buffer, offset, self._flow.leaf(leaf))
            entries.append(one)
        if offset != end:
            check_end(offset, end)
        return t_ns, self._number, leaf, node, entries

    def _statistics(self, buffer: Packed, offset: int) -> Told | None:
        """Tell an entry of statistics by its numbers; None where they are not all that is told."""
        meta, norm, low, high, nans, infs = _unpack_stats(buffer, offset)
        if meta:
            self._archive.meta(meta)
        if nans or infs:
            return None
        if low != high:
            return told_of(norm, None)
        return told_of(norm, low) if self._is_real else None

    def _sent(self, node: int, input_nr: int) -> Told | None:
        """What the one edge into this input carried."""
        source = self._flow.source(node, input_nr)
        if source is not None:
            sender, slot = source
            returned = self._returned.get(sender)
            if returned is not None:
                return returned[slot] if slot < len(returned) else None
        seen = self._flow.sent(node, input_nr)
        return None if seen is None else told(seen)

    def _other(self, buffer: Packed, offset: int, meta: TensorMeta) -> tuple[Told | None, int]:
        seen, offset = decode_entry(buffer, offset, self._archive, meta)
        return None if seen is None else told(seen), offset

    def _meta_at(self, node: int, k: int, n_received: int) -> TensorMeta:
        if k < n_received:
            return meta_at(self._flow.arriving(node), k)
        return meta_at(self._flow.leaving(node), k - n_received)


class _Passes(dict[int, _PassTelling]):
    """What passes tell, by number, each made when it is asked for."""

    def __init__(self, archive: Archive, flows: Flows) -> None:
        super().__init__()
        self._archive = archive
        self._flows = flows
        self._is_real = not archive.has_complex()

    def __missing__(self, number: int) -> _PassTelling:
        made = _PassTelling(self._archive, self._flows[number], number, is_real=self._is_real)
        self[number] = made
        return made


def _below(count: int, number: int) -> int:
    if number >= count:
        raise ValueError(f"input {number} of {count}")
    return number
