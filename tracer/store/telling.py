"""A pass's packed frames in; what a listener is told of each out, with no record made of most."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cached_property

from tracer.records.events import Accumulate, DataWrite, Forward, GradWrite
from tracer.records.listening import Listener
from tracer.records.stream import ENTRY_NONE, ENTRY_RECEIVED, ENTRY_SAME, ENTRY_STATS
from tracer.records.tensors import TensorMeta
from tracer.records.told import DATA, GRAD, Told, told, told_again, told_of
from tracer.store.archive import NONSENSE, Archive
from tracer.store.decoding import check_end, decode_event, decode_forward, meta_at
from tracer.store.entries import STATS, Packed, decode_entry
from tracer.store.files import damaged
from tracer.store.flows import Flows, PassFlow, Wirings
from tracer.store.frames import KIND_CODES, NODE_CODE, PASS_END_CODE, TENSOR, Frame

# The frames of `records.stream`, and an entry of statistics, with what is not told skipped.
_NODE = struct.Struct("<I16xqI4xqII")
"""length; t_ns; node, end_ns, received, returned."""
_ACCUMULATE = struct.Struct("<I16xqII12x")
"""length; t_ns; leaf, node."""
_WRITE = struct.Struct("<I16xqIII")
"""length; t_ns; leaf, how, site."""
_FORWARD = struct.Struct("<I16xqIIIQQBIHH")
"""length; t_ns; op, site, module, low, high, mode, cut; where that is 0, inputs, outputs."""
_META = struct.Struct("<I")
_STATS = struct.Struct("<xIddd8x8xQQ")
"""meta; norm, min, max, NaNs, Infs."""

_MOST_KEPT = 4096
_node_size, _stats_size = _NODE.size, STATS.size
_unpack_node, _unpack_stats = _NODE.unpack_from, _STATS.unpack_from


class FrameTeller:
    """Tells a listener of frames, one after the other."""

    def __init__(self, archive: Archive, wirings: Wirings, listener: Listener) -> None:
        self.flows = Flows(archive, wirings)
        self._archive = archive
        self._passes = _Passes(archive, self.flows)
        self._hear = listener.event
        self._doors: list[tuple[_Read, Callable[..., None]]]
        self._doors = [(_no_reader, listener.event)] * 256  # a kind is a byte
        self._doors[NODE_CODE] = _PassTelling.node, listener.node
        self._doors[KIND_CODES[Accumulate]] = _PassTelling.accumulate, listener.accumulate
        self._doors[KIND_CODES[GradWrite]] = _PassTelling.grad_write, listener.write
        self._doors[KIND_CODES[DataWrite]] = _PassTelling.data_write, listener.write
        self._doors[KIND_CODES[Forward]] = _PassTelling.forward, listener.forward

    def tell(self, frames: Sequence[Frame]) -> None:
        """Tell of frames. Raises TraceFileError where one is damaged."""
        doors, passes, archive = self._doors, self._passes, self._archive
        for _, kind, pass_id, buffer, offset, is_wanted in frames:
            if is_wanted:
                read, hear = doors[kind]
                try:
                    told = read(passes[pass_id], buffer, offset)
                    if told is None:
                        told = (decode_event(buffer, offset, archive, self.flows[pass_id]),)
                        hear = self._hear
                except NONSENSE as error:
                    raise damaged(archive.label, error) from error
                hear(*told)
            if kind == PASS_END_CODE:
                self._forget(pass_id)

    def _forget(self, pass_id: int) -> None:
        self.flows.pop(pass_id, None)
        self._passes.pop(pass_id, None)


class _PassTelling:
    """What the frames of one pass tell, in the order in which they come."""

    def __init__(
        self,
        archive: Archive,
        flow: PassFlow,
        number: int,
        operations: _Operations,
        *,
        is_real: bool,
    ) -> None:
        """`operations` are told alike in all passes; `is_real` says that no tensor is complex."""
        self._archive = archive
        self._meta, self._string, self._site = archive.meta, archive.string, archive.site
        self._flow = flow
        self._number = number
        self._operations = operations
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
        check_end(offset, end)
        returned = self._returned[node] = entries[n_received:]
        return t_ns, self._number, node, end_ns >= 0, entries[:n_received], returned

    def accumulate(self, buffer: Packed, offset: int) -> tuple[object, ...]:
        """Moment, pass, leaf, node; and before, incoming, after."""
        length, t_ns, leaf, node = _ACCUMULATE.unpack_from(buffer, offset)
        start, end = offset + _ACCUMULATE.size, offset + length
        entries = self._of_leaf(buffer, start, end, leaf, count=3, node=node)
        return t_ns, self._number, leaf, node, entries

    def grad_write(self, buffer: Packed, offset: int) -> tuple[object, ...]:
        """Moment, pass, that it is to a `.grad`, leaf, how, where; and before, after."""
        return self._write(buffer, offset, GRAD)

    def data_write(self, buffer: Packed, offset: int) -> tuple[object, ...]:
        """Moment, pass, that it is to no `.grad`, leaf, how, where; and before, after."""
        return self._write(buffer, offset, DATA)

    def _write(self, buffer: Packed, offset: int, sign: str) -> tuple[object, ...]:
        length, t_ns, leaf, how, site = _WRITE.unpack_from(buffer, offset)
        start, end = offset + _WRITE.size, offset + length
        entries = self._of_leaf(buffer, start, end, leaf, count=2, sign=sign)
        how, site = self._string(how), self._site(site)
        return t_ns, self._number, sign == GRAD, leaf, how, site, entries

    def _of_leaf(
        self,
        buffer: Packed,
        offset: int,
        end: int,
        leaf: int,
        *,
        count: int,
        node: int | None = None,
        sign: str = GRAD,
    ) -> list[Told | None]:
        """Tell entries of a leaf, up to `end`; `node` is its own, where one can be what was sent to
        that."""
        entries: list[Told | None] = []
        for _ in range(count):
            state = buffer[offset]
            if state == ENTRY_STATS and (one := self._statistics(buffer, offset, sign)):
                offset += _stats_size
            elif state == ENTRY_NONE:
                one, offset = None, offset + 1
            elif state == ENTRY_SAME and node is not None:
                one, offset = self._sent(node, 0), offset + 1
            else:
                one, offset = self._other(buffer, offset, self._flow.leaf(leaf), sign)
            entries.append(one)
        check_end(offset, end)
        return entries

    def forward(self, buffer: Packed, offset: int) -> tuple[object, ...] | None:
        """Moment, pass, an event of which the same is told but for the module, and that.

        None of one that lost history."""
        length, t_ns, op, site, module, low, high, mode, cut, n_inputs, n_outputs = (
            _FORWARD.unpack_from(buffer, offset)
        )
        if cut:
            return None
        first = _FORWARD.size + n_inputs * TENSOR.size
        check_end(first + n_outputs * TENSOR.size, length)
        meta = _META.unpack_from(buffer, offset + first)[0] if n_outputs else 0
        key = op, site, high - low, mode, meta
        like = self._operations.get(key)
        if like is None:
            if len(self._operations) >= _MOST_KEPT:
                self._operations.clear()
            like = decode_forward(buffer, offset, self._archive, self._flow)
            self._operations[key] = like
        return t_ns, self._number, like, self._string(module)

    def _statistics(self, buffer: Packed, offset: int, sign: str = GRAD) -> Told | None:
        """Tell an entry of statistics by its numbers; None where they are not all that is told."""
        meta, norm, low, high, nans, infs = _unpack_stats(buffer, offset)
        if meta:
            self._meta(meta)
        if nans or infs:
            return None
        if low == high:
            return told_again(norm, low, sign) if self._is_real else None
        return told_of(norm, None, sign)

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

    def _other(
        self, buffer: Packed, offset: int, meta: TensorMeta, sign: str = GRAD
    ) -> tuple[Told | None, int]:
        seen, offset = decode_entry(buffer, offset, self._archive, meta)
        return None if seen is None else told(seen, sign), offset

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
        self._operations: _Operations = {}

    @cached_property
    def _is_real(self) -> bool:
        """Asked when frames are at hand: also in a file that grows, all of theirs is in it then."""
        return not self._archive.has_complex()

    def __missing__(self, number: int) -> _PassTelling:
        flow = self._flows[number]
        made = _PassTelling(self._archive, flow, number, self._operations, is_real=self._is_real)
        self[number] = made
        return made


def _below(count: int, number: int) -> int:
    if number >= count:
        raise ValueError(f"input {number} of {count}")
    return number


_Read = Callable[[_PassTelling, Packed, int], tuple[object, ...] | None]
_Operations = dict[tuple[int, ...], Forward]


def _no_reader(telling: _PassTelling, buffer: Packed, offset: int) -> None:
    return None
