"""A tensor's few elements in, the bytes PyTorch keeps them as out; and back, exactly."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracer.records.stream import DTYPE_CODES
from tracer.records.tensors import Scalar


@dataclass(frozen=True, slots=True)
class ElementType:
    """How one dtype is packed: bytes for an element, and the two directions."""

    size: int
    pack: Callable[[Sequence[Scalar]], bytes]
    unpack: Callable[[bytes], tuple[Scalar, ...]]


def _plain(letter: str) -> ElementType:
    def pack(values: Sequence[Scalar]) -> bytes:
        return struct.pack(f"<{len(values)}{letter}", *values)

    def unpack(raw: bytes) -> tuple[Scalar, ...]:
        return struct.unpack(f"<{len(raw) // size}{letter}", raw)

    size = struct.calcsize(f"<{letter}")
    return ElementType(size, pack, unpack)


def _complex(part: ElementType) -> ElementType:
    def pack(values: Sequence[Scalar]) -> bytes:
        parts: list[Scalar] = []
        for value in map(complex, values):
            parts += (value.real, value.imag)
        return part.pack(parts)

    def unpack(raw: bytes) -> tuple[Scalar, ...]:
        parts = part.unpack(raw)
        return tuple(map(complex, parts[::2], parts[1::2]))

    return ElementType(2 * part.size, pack, unpack)


def _top_bytes(wide: ElementType, size: int) -> ElementType:
    """A float that is the top bytes of a wider one: bfloat16 of float32, float8_e5m2 of float16."""
    low = wide.size - size

    def pack(values: Sequence[Scalar]) -> bytes:
        raw = wide.pack(values)
        return b"".join(raw[i + low : i + wide.size] for i in range(0, len(raw), wide.size))

    def unpack(raw: bytes) -> tuple[Scalar, ...]:
        parts = (raw[i : i + size] for i in range(0, len(raw), size))
        return wide.unpack(b"".join(bytes(low) + part for part in parts))

    return ElementType(size, pack, unpack)


def _float8_e4m3fn_values() -> tuple[float, ...]:
    """Every value by its byte: 4 bits of exponent (bias 7), 3 of mantissa, no infinity, one NaN."""
    values = []
    for byte in range(128):
        exponent, mantissa = divmod(byte, 8)
        if exponent:
            values.append(math.ldexp(8 + mantissa, exponent - 10))
        else:
            values.append(math.ldexp(mantissa, -9))
    values[-1] = math.nan
    return tuple(values + [-value for value in values])


def _float8_e4m3fn() -> ElementType:
    values = _float8_e4m3fn_values()
    bytes_of = {value: byte for byte, value in enumerate(values[:127])}

    def byte_of(value: Scalar) -> int:
        number = float(value)  # type: ignore[arg-type]
        if math.isnan(number):
            return 0x7F
        sign = 0x80 if math.copysign(1.0, number) < 0 else 0
        if abs(number) not in bytes_of:
            raise OverflowError(f"{number} is not a float8_e4m3fn")
        return sign | bytes_of[abs(number)]

    def pack(elements: Sequence[Scalar]) -> bytes:
        return bytes(map(byte_of, elements))

    def unpack(raw: bytes) -> tuple[Scalar, ...]:
        return tuple(values[byte] for byte in raw)

    return ElementType(1, pack, unpack)


_FLOAT32, _FLOAT64, _FLOAT16 = _plain("f"), _plain("d"), _plain("e")

ELEMENT_TYPES: dict[int, ElementType] = {
    DTYPE_CODES["float32"]: _FLOAT32,
    DTYPE_CODES["float64"]: _FLOAT64,
    DTYPE_CODES["float16"]: _FLOAT16,
    DTYPE_CODES["bfloat16"]: _top_bytes(_FLOAT32, 2),
    DTYPE_CODES["complex64"]: _complex(_FLOAT32),
    DTYPE_CODES["complex128"]: _complex(_FLOAT64),
    DTYPE_CODES["int64"]: _plain("q"),
    DTYPE_CODES["int32"]: _plain("i"),
    DTYPE_CODES["int16"]: _plain("h"),
    DTYPE_CODES["int8"]: _plain("b"),
    DTYPE_CODES["uint8"]: _plain("B"),
    DTYPE_CODES["bool"]: _plain("?"),
    DTYPE_CODES["float8_e4m3fn"]: _float8_e4m3fn(),
    DTYPE_CODES["float8_e5m2"]: _top_bytes(_FLOAT16, 1),
}
"""By dtype code."""
