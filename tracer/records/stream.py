"""The packed event stream: header, entry states and codes that its writers and its reader agree on.

Little-endian, unaligned. Frames follow one another; each begins with `HEADER`: length of the
whole frame (u32), kind (u8: position in `EVENT_KINDS`, from 1), flags (u8), thread (u16), pass
(u32, 0 for none), seq (u64), t_ns (i64). An entry is what was seen of one tensor: a state (u8),
then what the state says. In every entry, meta 0 means the metadata that the structure gives for
that place.
"""

from __future__ import annotations

import struct

HEADER = struct.Struct("<IBBHIQq")

ENTRY_NONE = 0
"""No tensor."""
ENTRY_SAME = 1
"""What the one edge into this input sent: see the source's returned entry."""
ENTRY_STATS = 2
"""meta u32; norm, min, max, mean f64; zeros, nans, infs u64."""
ENTRY_VALUES = 3
"""meta u32; dtype code u8; count u8; the elements' bytes."""
ENTRY_UNREAD = 4
"""meta u32; string id of the reason u32."""
ENTRY_PARTIAL = 5
"""meta u32; mask u16; norm, min, max, mean, zeros, nans, infs as f64, known by the bits set."""
ENTRY_RECEIVED = 6
"""k u8: the very tensor that this node received as its input k, unchanged."""
ENTRY_MANY = 7
"""meta u32; dtype code u8; count u32; the elements' bytes: values that a u8 cannot count."""
ENTRY_UNASKED = 8
"""meta u32: a tensor of which nothing was to be kept."""

DTYPE_CODES = {
    "float32": 1, "float64": 2, "float16": 3, "bfloat16": 4, "complex64": 5, "complex128": 6,
    "int64": 7, "int32": 8, "int16": 9, "int8": 10, "uint8": 11, "bool": 12,
    "float8_e4m3fn": 13, "float8_e5m2": 14,
}  # fmt: skip

VALUES = struct.Struct("<BIBB")
"""What stands before the elements in an entry of values: state, meta, dtype code, count."""
MANY = struct.Struct("<BIBI")
MOST_VALUES = 255


def values_head(meta: int, code: int, count: int) -> bytes:
    """Pack what stands before a tensor's elements."""
    if count <= MOST_VALUES:
        return VALUES.pack(ENTRY_VALUES, meta, code, count)
    return MANY.pack(ENTRY_MANY, meta, code, count)


FORWARD = struct.Struct("<IIIQQB")
"""A forward frame's fixed part: op, site, module path, low, high, grad mode; then the cut."""

NODE = struct.Struct("<IIqII")
"""A node frame's fixed part: node, order, end_ns (-1: never ended), received, returned."""

ACCUMULATE = struct.Struct("<IIIq")
"""An accumulate frame's fixed part: leaf, node, order, end_ns; then before, incoming, after."""

WRITE = struct.Struct("<III")
"""A grad_write or data_write frame's fixed part: leaf, how string, site; then before, after."""
