"""Elements as PyTorch keeps them: each dtype's bytes decode exactly and encode back."""

from __future__ import annotations

import math
import struct

import pytest
import torch

from tracer.records.stream import DTYPE_CODES
from tracer.store.elements import ELEMENT_TYPES

NARROW = ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int16", "int8", "uint8"]
WIDE = {
    "float32": (1.5, -0.0, math.inf, 2.0**-149),
    "float64": (0.1, -0.0, -math.inf, 5e-324),
    "complex64": (1.5 - 2j, complex(-0.0, math.inf)),
    "complex128": (0.1 - 2j, complex(-0.0, math.inf)),
    "int64": (2**63 - 1, -(2**63)),
    "int32": (2**31 - 1, -(2**31)),
    "bool": (True, False),
}


def every_pattern(size: int) -> bytes:
    """All bit patterns of an element of one or two bytes."""
    letter = "BH"[size - 1]
    count = 256**size
    return struct.pack(f"<{count}{letter}", *range(count))


@pytest.mark.parametrize("dtype", NARROW)
def test_every_bit_pattern_decodes_as_torch_reads_it(dtype: str) -> None:
    kind = ELEMENT_TYPES[DTYPE_CODES[dtype]]
    raw = every_pattern(kind.size)
    read = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(getattr(torch, dtype))
    values = read.double() if read.is_floating_point() else read
    assert repr(kind.unpack(raw)) == repr(tuple(values.tolist()))


@pytest.mark.parametrize("dtype", NARROW)
def test_every_value_encodes_as_the_bits_it_came_from(dtype: str) -> None:
    kind = ELEMENT_TYPES[DTYPE_CODES[dtype]]
    raw = every_pattern(kind.size)
    parts = (raw[i : i + kind.size] for i in range(0, len(raw), kind.size))
    numbers = [part for part in parts if not math.isnan(kind.unpack(part)[0].real)]
    assert kind.pack(kind.unpack(b"".join(numbers))) == b"".join(numbers)


@pytest.mark.parametrize("dtype", [name for name in NARROW if "float" in name])
def test_a_nan_stays_a_nan(dtype: str) -> None:
    kind = ELEMENT_TYPES[DTYPE_CODES[dtype]]
    assert repr(kind.unpack(kind.pack([math.nan]))) == "(nan,)"


@pytest.mark.parametrize("dtype", WIDE)
def test_values_of_a_wide_dtype_come_back(dtype: str) -> None:
    kind = ELEMENT_TYPES[DTYPE_CODES[dtype]]
    values = WIDE[dtype]
    raw = kind.pack(values)
    assert len(raw) == kind.size * len(values)
    assert repr(kind.unpack(raw)) == repr(values)


def test_every_dtype_code_has_an_element_type() -> None:
    assert set(ELEMENT_TYPES) == set(DTYPE_CODES.values())
