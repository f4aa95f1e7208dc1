"""Packed frames in, their order, threads and times; all of them out again as bytes."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from contextlib import contextmanager
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import torch

from tracer.capture.core_in_python.known import TORCH
from tracer.capture.core_in_python.statistics import pack_statistics
from tracer.records.stream import (
    DTYPE_CODES,
    ENTRY_NONE,
    ENTRY_STATS,
    ENTRY_UNASKED,
    HEADER,
    values_head,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NONE = bytes([ENTRY_NONE])
SPILL = 1 << 20
THREADS = 256
TOO_MANY = THREADS - 1
"""Stands for every thread that came when there was no number left."""

_STATS = struct.Struct("<BI")
_COMPLEX = {DTYPE_CODES["complex64"], DTYPE_CODES["complex128"]}
_NO_STATISTICS = {DTYPE_CODES[name] for name in ("complex128", "float8_e4m3fn", "float8_e5m2")}


class Tape:
    """The buffer of packed frames; `full()` is called when so many bytes wait that it should go.

    `other(tensor)` packs tensors that are not read here; those of `few` elements or fewer are kept
    whole. `meta_of(tensor)` numbers a tensor's metadata where the structure does not say it.
    Without `statistics` no tensor is read.
    """

    full: Callable[[], object] | None = None
    meta_of: Callable[[Any], int] | None = None

    def __init__(
        self, other: Callable[[Any], bytes], few: int = 16, statistics: bool = True
    ) -> None:
        self.few = max(0, few)
        self.statistics = int(statistics)
        self.seq = 0
        self.most = SPILL
        self.threads: list[int] = []  # 0: has ended
        self.origin = monotonic_ns()
        self._last_reused = 0
        self._other = other
        self._frames = bytearray()
        self._lock = threading.RLock()

    @property
    def used(self) -> int:
        """Bytes waiting."""
        return len(self._frames)

    def now(self) -> int:
        """Nanoseconds since the tape began."""
        return monotonic_ns() - self.origin

    def next_seq(self) -> int:
        """The next order number, from 1."""
        with self._lock:
            self.seq += 1
            return self.seq

    def thread(self) -> int:
        """A small number for the calling thread, 0 for the first seen.

        That of an ended thread where none is left, and TOO_MANY where none has ended.
        """
        ident = threading.get_ident()
        try:
            return self.threads.index(ident)
        except ValueError:
            with self._lock:
                return self._number_for(ident)

    def _number_for(self, ident: int) -> int:
        if len(self.threads) < TOO_MANY:
            self.threads.append(ident)
            return len(self.threads) - 1
        for _ in range(TOO_MANY):
            self._last_reused = (self._last_reused + 1) % TOO_MANY
            if not self.threads[self._last_reused]:
                self.threads[self._last_reused] = ident
                return self._last_reused
        return TOO_MANY

    def forget_thread(self) -> None:
        """Take the calling thread for one that was not seen yet."""
        ident = threading.get_ident()
        with self._lock:
            self.threads = [0 if known == ident else known for known in self.threads]

    def put(self, frames: bytes) -> None:
        """Append packed frames."""
        with self._lock:
            self._frames += frames

    def write(self, kind: int, pass_id: int, *payload: bytes) -> None:
        """Append a frame that begins now; its payload is the bytes in order."""
        self.put_frame(kind, pass_id, self.next_seq(), self.now(), b"".join(payload))

    def put_frame(self, kind: int, pass_id: int, seq: int, t_ns: int, payload: bytes) -> None:
        """Append a frame of the calling thread."""
        length = HEADER.size + len(payload)
        self.put(HEADER.pack(length, kind, 0, self.thread(), pass_id, seq, t_ns) + payload)

    def take(self) -> bytes:
        """All frames so far; the tape is then empty."""
        with self._lock:
            frames, self._frames = self._frames, bytearray()
        return bytes(frames)

    def take_chunk(self) -> tuple[bytes, tuple[int, int, int, int, int, int]]:
        """`take`, and what the frames cover.

        That is the least and greatest order number, those of the passes (0: none has one), the
        number of events, and a bit for each kind.
        """
        frames = self.take()
        seqs, passes, kinds = [0], [0], 0
        at = 0
        while at < len(frames):
            length, kind, _, _, pass_id, seq, _ = HEADER.unpack_from(frames, at)
            seqs.append(seq)
            passes.append(pass_id)
            kinds |= 1 << kind
            at += length
        least = [min(filter(None, numbers), default=0) for numbers in (seqs, passes)]
        return frames, (least[0], max(seqs), least[1], max(passes), len(seqs) - 1, kinds)

    def spill(self) -> None:
        """Have a tape that has grown long taken."""
        if self.used >= self.most and self.full is not None:
            try:
                self.full()
            except Exception:  # what was not taken now is taken later
                return

    def entry(self, tensor: Any, meta: int = 0) -> bytes:
        """The packed entry of a tensor or None; `meta` 0 stands for what the structure says."""
        if tensor is None:
            return NONE
        if not self.statistics:
            return _STATS.pack(ENTRY_UNASKED, meta)
        if type(tensor) in (TORCH.tensor, TORCH.parameter):
            with _quiet():
                entry = self._read(tensor, meta)
            if entry is not None:
                return entry
        return self._other(tensor)

    def _read(self, tensor: Any, meta: int) -> bytes | None:
        code = _code_of(tensor)
        if not code:
            return None
        count = tensor.numel()
        if count <= self.few:
            return values_head(meta, code, count) + _elements(tensor, count)
        if code in _NO_STATISTICS:
            return None
        return _STATS.pack(ENTRY_STATS, meta) + pack_statistics(tensor.detach())


def _elements(tensor: Any, count: int) -> bytes:
    if not count:
        return b""
    # a single element may have any stride, and `view` insists on 1
    row = tensor.detach().reshape(-1).contiguous().as_strided((count,), (1,))
    return bytes(row.view(torch.uint8).tolist())


def _code_of(tensor: Any) -> int:
    """The code of a tensor's dtype; 0 where its elements cannot be read from memory."""
    try:
        if tensor.layout is not TORCH.strided or not tensor.is_cpu or tensor.is_nested:
            return 0
        code = TORCH.codes.get(tensor.dtype, 0)
        if tensor.is_neg() or (code in _COMPLEX and tensor.is_conj()):
            return 0
        return code if tensor.data_ptr() or not tensor.numel() else 0
    except RuntimeError:  # a wrapper has no memory of its own
        return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Let no mode of the user's see how we read, and have no node made of it."""
    with TORCH.disable_torch_function(), torch._C._DisableTorchDispatch():
        enabled = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        try:
            yield
        finally:
            torch._C._set_grad_enabled(enabled)
