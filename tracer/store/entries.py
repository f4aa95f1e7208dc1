"""What was seen of one tensor, as a record in and packed bytes out; and back."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Protocol

from tracer.records.events import Hook
from tracer.records.graph import Site
from tracer.records.quick import maker
from tracer.records.statistics import gradient_of_values
from tracer.records.stream import (
    DTYPE_CODES,
    ENTRY_MANY,
    ENTRY_NONE,
    ENTRY_PARTIAL,
    ENTRY_RECEIVED,
    ENTRY_SAME,
    ENTRY_STATS,
    ENTRY_UNASKED,
    ENTRY_UNREAD,
    ENTRY_VALUES,
    MANY,
    VALUES,
    values_head,
)
from tracer.records.tensors import NOT_ASKED, Gradient, TensorMeta
from tracer.store.elements import ELEMENT_TYPES

STATS = struct.Struct("<BIddddQQQ")
_STATS_SIZE, _unpack_stats = STATS.size, STATS.unpack_from
UNREAD = struct.Struct("<BII")
UNASKED = struct.Struct("<BI")
PARTIAL = struct.Struct("<BIH7d")

UNKNOWN_META = TensorMeta((), "unknown", "unknown", "unknown")
"""Stands where an entry leaves the metadata to the structure, and the structure has none."""

_gradient = maker(Gradient)

Packed = bytes | bytearray | memoryview


class Names(Protocol):
    """Gives the ids by which frames refer to what is stored once; 0 is none, or the empty text."""

    def string(self, text: str) -> int: ...

    def meta(self, meta: TensorMeta) -> int: ...

    def site(self, site: Site | None) -> int: ...

    def hook(self, hook: Hook) -> int: ...


class Lookup(Protocol):
    """Finds what was stored once by its id; raises KeyError for an id that was never given out."""

    def string(self, number: int) -> str: ...

    def meta(self, number: int) -> TensorMeta: ...

    def site(self, number: int) -> Site | None: ...

    def hook(self, number: int) -> Hook: ...


def encode_entry(gradient: Gradient | bytes | None, names: Names) -> bytes:
    """Pack one tensor; bytes are an entry that the recorder packed, and pass as they are.

    Values are kept for the dtypes in `DTYPE_CODES`; of others, statistics.
    """
    if gradient is None:
        return bytes([ENTRY_NONE])
    if isinstance(gradient, bytes):
        return gradient
    meta = names.meta(gradient.meta)
    if gradient.unread == NOT_ASKED:
        return UNASKED.pack(ENTRY_UNASKED, meta)
    if gradient.unread:
        return UNREAD.pack(ENTRY_UNREAD, meta, names.string(gradient.unread))
    packed = None if gradient.values is None else _encode_values(gradient, meta)
    return packed or _encode_statistics(gradient, meta)


def _encode_values(gradient: Gradient, meta: int) -> bytes | None:
    values = gradient.values or ()
    code = DTYPE_CODES.get(gradient.meta.dtype)
    if code is None:
        return None
    try:
        raw = ELEMENT_TYPES[code].pack(values)
    except (OverflowError, struct.error):  # not values of this dtype
        return None
    return values_head(meta, code, len(values)) + raw


def _encode_statistics(gradient: Gradient, meta: int) -> bytes:
    known = (
        gradient.norm, gradient.min, gradient.max, gradient.mean,
        gradient.zeros, gradient.nans, gradient.infs,
    )  # fmt: skip
    if None not in known:
        return STATS.pack(ENTRY_STATS, meta, *known)
    mask = sum(1 << i for i, number in enumerate(known) if number is not None)
    numbers = [0.0 if number is None else number for number in known]
    return PARTIAL.pack(ENTRY_PARTIAL, meta, mask, *numbers)


def decode_entry(
    buffer: Packed, offset: int, lookup: Lookup, default: TensorMeta
) -> tuple[Gradient | None, int]:
    """Unpack the entry at `offset`; what was seen, and where the next one begins.

    `default` is the metadata that the structure gives for this place. Entries that refer to another
    entry are the business of whoever knows that one. Raises ValueError, KeyError, IndexError or
    struct.error for bytes that are no entry.
    """
    state = buffer[offset]
    if state == ENTRY_STATS:
        _, meta, norm, low, high, mean, zeros, nans, infs = _unpack_stats(buffer, offset)
        shape = lookup.meta(meta) if meta else default
        seen = _gradient(shape, norm, low, high, mean, zeros, nans, infs, None, "")
        return seen, offset + _STATS_SIZE
    if state == ENTRY_NONE:
        return None, offset + 1
    if state in (ENTRY_VALUES, ENTRY_MANY):
        return _decode_values(buffer, offset, lookup, default)
    if state == ENTRY_UNASKED:
        meta = UNASKED.unpack_from(buffer, offset)[1]
        return Gradient(lookup.meta(meta) if meta else default, unread=NOT_ASKED), offset + 5
    if state == ENTRY_UNREAD:
        _, meta, reason = UNREAD.unpack_from(buffer, offset)
        shape = lookup.meta(meta) if meta else default
        return Gradient(shape, unread=lookup.string(reason)), offset + UNREAD.size
    if state == ENTRY_PARTIAL:
        return _decode_partial(buffer, offset, lookup, default)
    raise ValueError(f"an entry of state {state}")


def _decode_values(
    buffer: Packed, offset: int, lookup: Lookup, default: TensorMeta
) -> tuple[Gradient, int]:
    head = MANY if buffer[offset] == ENTRY_MANY else VALUES
    _, meta, code, count = head.unpack_from(buffer, offset)
    kind = ELEMENT_TYPES[code]
    start = offset + head.size
    end = start + count * kind.size
    if end > len(buffer):
        raise ValueError(f"{count} elements in {len(buffer) - start} bytes")
    values = kind.unpack(bytes(buffer[start:end]))
    return gradient_of_values(lookup.meta(meta) if meta else default, values), end


def _decode_partial(
    buffer: Packed, offset: int, lookup: Lookup, default: TensorMeta
) -> tuple[Gradient, int]:
    _, meta, mask, *numbers = PARTIAL.unpack_from(buffer, offset)
    known = [number if mask >> i & 1 else None for i, number in enumerate(numbers)]
    counts = [None if number is None else int(number) for number in known[4:]]
    shape = lookup.meta(meta) if meta else default
    norm, low, high, mean = known[:4]
    zeros, nans, infs = counts
    return Gradient(shape, norm, low, high, mean, zeros, nans, infs), offset + PARTIAL.size


def skip_entries(buffer: Packed, offset: int, count: int) -> int:
    """Where the entry after the next `count` begins."""
    for _ in range(count):
        offset += _entry_size(buffer, offset)
    return offset


def _entry_size(buffer: Packed, offset: int) -> int:
    state = buffer[offset]
    if state in (ENTRY_VALUES, ENTRY_MANY):
        head = MANY if state == ENTRY_MANY else VALUES
        _, _, code, count = head.unpack_from(buffer, offset)
        return head.size + int(count) * ELEMENT_TYPES[code].size
    return _SIZES[state]


_SIZES = {
    ENTRY_NONE: 1,
    ENTRY_SAME: 1,
    ENTRY_RECEIVED: 2,
    ENTRY_STATS: STATS.size,
    ENTRY_UNREAD: UNREAD.size,
    ENTRY_UNASKED: UNASKED.size,
    ENTRY_PARTIAL: PARTIAL.size,
}


def decode_entries(
    packed: bytes, lookup: Lookup, defaults: Sequence[TensorMeta]
) -> tuple[Gradient | None, ...]:
    """Unpack entries that fill `packed`; those past the end of `defaults` have unknown metadata."""
    entries: list[Gradient | None] = []
    offset = 0
    while offset < len(packed):
        place = len(entries)
        default = defaults[place] if place < len(defaults) else UNKNOWN_META
        entry, offset = decode_entry(packed, offset, lookup, default)
        entries.append(entry)
    return tuple(entries)
