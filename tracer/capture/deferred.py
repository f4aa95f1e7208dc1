"""Tensors on devices that answer later come in; marks stand in their entries' place until then.

Reading a tensor of a GPU would have the program wait for all that was asked of it before. So a
reading is only asked for, on the stream that the program itself uses the tensor on, and put into
memory of that device, which is copied once when a pass has ended and looked at when the copy is
there. Until then a mark of a fixed length stands for the entry wherever entries go.
"""

from __future__ import annotations

import os
import re
import struct
import threading
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from tracer.capture.core_in_python.statistics import distinct_elements
from tracer.capture.device_memory import Chunk, Reading, make_chunk
from tracer.capture.engine_call import is_capturing
from tracer.capture.readings import NotNowError, why_failed
from tracer.capture.reductions import (
    layout_on,
    pack_numbers,
    put_number_of_differences,
    put_numbers,
    put_values,
)
from tracer.records.stream import DTYPE_CODES, ENTRY_UNREAD, HEADER, values_head

DEFERRED = {"cuda", "xpu", "mps", torch._C._get_privateuse1_backend_name()}
"""Types of device that work while the program goes on; a test adds the CPU."""

_CODES = {getattr(torch, name, None): code for name, code in DTYPE_CODES.items()}
_CHUNK = 1 << 20
_MOST_COPYING = 4
_MOST_KNOWN = 16_384
_MARK = b"\xff"  # no state of an entry
_NUMBER = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")
_NEVER = b""


class Deferred:
    """Asks for readings, and knows what came of them by number.

    `string` gives the number of a text in the trace; tensors of `few` elements are kept whole.
    """

    def __init__(self, few: int, string: Callable[[str], int]) -> None:
        self.devices = DEFERRED
        self._few = few
        self._string = string
        self.last = 0
        self.copies = 0
        self._lock = threading.RLock()
        self._is_asking = False
        self._filling: dict[torch.device, Chunk] = {}
        self._copying: deque[Chunk] = deque()
        self._empty: list[Chunk] = []
        self._known: dict[int, bytes] = {}
        self._known_before: dict[int, bytes] = {}
        self._mark = _MARK + os.urandom(15)
        self._marks = re.compile(re.escape(self._mark) + b"(.{8})", re.DOTALL)

    # ---- asking

    def entry(self, tensor: Tensor, meta: int) -> bytes:
        """Ask what `tensor` holds; the entry, or the mark that stands for it.

        Raises NotNowError where nothing may be asked for, and whatever PyTorch raises.
        """
        if tensor.layout is not torch.strided:
            return self._entry_of_stored(tensor, meta)
        code, numel = _CODES.get(tensor.dtype), tensor.numel()
        if code is not None and numel <= self._few:
            head = values_head(meta, code, numel)
            size = numel * tensor.dtype.itemsize
            if not size:
                return head
            return self._mark_of(tensor, size, meta, head.__add__, put_values)
        plain = tensor.detach().resolve_conj().resolve_neg()
        dense, repeat = (plain, 1) if plain.is_contiguous() else distinct_elements(plain)
        return self._numbers(dense, meta, numel, numel, repeat)

    def _entry_of_stored(self, tensor: Tensor, meta: int) -> bytes:
        """What a sparse tensor holds: no number of elements is asked of the device."""
        if tensor.layout is torch.sparse_coo:
            if not tensor.is_coalesced():
                raise NotNowError("sparse and not coalesced: to add it up would wait")
            stored = tensor._values()
        else:
            stored = tensor.values()
        return self._numbers(stored.detach(), meta, tensor.numel(), stored.numel(), 1)

    def _numbers(self, dense: Tensor, meta: int, numel: int, stored: int, repeat: int) -> bytes:
        layout = layout_on(dense.device)
        if not stored:
            raw = layout.bytes.pack(0, 0, float("inf"), float("-inf"), 0, 0, 0, 0)
            return pack_numbers(raw, layout, meta, numel=numel, stored=stored)
        return self._mark_of(
            dense,
            layout.bytes.size,
            meta,
            lambda raw: pack_numbers(raw, layout, meta, numel=numel, stored=stored, repeat=repeat),
            lambda tensor, slot: put_numbers(tensor, slot, layout),
        )

    def _mark_of(
        self,
        tensor: Tensor,
        size: int,
        meta: int,
        finish: Callable[[bytes], bytes],
        put: Callable[[Tensor, Tensor], None],
    ) -> bytes:
        number = self._ask(tensor.device, size, meta, finish, lambda slot: put(tensor, slot))
        return self._mark + _NUMBER.pack(number)

    def ask_differs(self, left: Tensor, given: Tensor) -> int:
        """Ask whether two tensors of one shape, dtype and device differ; the answer's number."""
        try:
            return self._ask(
                left.device, 8, 0, bytes, lambda slot: put_number_of_differences(left, given, slot)
            )
        except Exception:  # a dtype that has no comparison there, or nothing may be asked for
            return 0

    def _ask(
        self,
        device: torch.device,
        size: int,
        meta: int,
        finish: Callable[[bytes], bytes],
        put: Callable[[Tensor], None],
    ) -> int:
        with self._lock:
            if self._is_asking:
                raise NotNowError("asked for while another reading was")
            if is_capturing():
                raise NotNowError("while a CUDA graph was captured, which would replay it")
            self._is_asking = True
            try:
                chunk = self._chunk(device, size)
                at, slot = chunk.take(size)
                chunk.written()
                put(slot)
                self.last += 1
                chunk.readings.append(Reading(self.last, at, size, meta, finish))
            finally:
                self._is_asking = False
            return self.last

    def _chunk(self, device: torch.device, size: int) -> Chunk:
        """The memory of a device that has room; where too much is under way, waits for some."""
        chunk = self._filling.get(device)
        if chunk is not None and chunk.has_room(size):
            return chunk
        if chunk is not None:
            self._begin_copy(self._filling.pop(device))
        while len(self._copying) >= _MOST_COPYING:
            self._take_in(self._copying.popleft())
        fit = [one for one in self._empty if one.device == device and one.has_room(size)]
        if fit:
            self._empty.remove(fit[0])
        chunk = self._filling[device] = fit[0] if fit else make_chunk(device, max(_CHUNK, size))
        return chunk

    # ---- what came of it

    def begin_copies(self) -> None:
        """Have all that was asked for copied, once for each device; does not wait."""
        with self._lock:
            if not self._is_asking and not is_capturing():
                for device, chunk in list(self._filling.items()):
                    if chunk.readings:
                        del self._filling[device]
                        self._begin_copy(chunk)

    def _begin_copy(self, chunk: Chunk) -> None:
        self.copies += 1
        self._copying.append(chunk)
        chunk.begin_copy()

    def collect(self, *, wait: bool = False) -> None:
        """Take in what is there; or else wait for all whose copy has begun."""
        with self._lock:
            while self._copying and not is_capturing() and (wait or _is_there(self._copying[0])):
                self._take_in(self._copying.popleft())

    def _take_in(self, chunk: Chunk) -> None:
        try:
            raw = chunk.copied()
        except Exception as error:  # the device has failed, which is the program's to hear of
            unread = self._string(why_failed(error))
            for reading in chunk.readings:
                entry = struct.pack("<BII", ENTRY_UNREAD, reading.meta, unread)
                self._known[reading.number] = entry if reading.meta else _NEVER
            return
        for number, at, size, _, finish in chunk.readings:
            self._known[number] = finish(raw[at : at + size])
        chunk.clear()
        if len(self._empty) < _MOST_COPYING:
            self._empty.append(chunk)

    @property
    def known_until(self) -> int:
        """All numbers up to this one are known."""
        with self._lock:
            chunks = [*self._copying, *self._filling.values()]
            waiting = [chunk.readings[0].number for chunk in chunks if chunk.readings]
            return min(waiting, default=self.last + 1) - 1

    def differs(self, number: int) -> bool:
        """The answer to `ask_differs`; no where it never came."""
        return any(self._find(number) or _NEVER)

    def is_mark(self, entry: object) -> bool:
        """Whether an entry is one of our marks."""
        return isinstance(entry, bytes) and entry.startswith(self._mark)

    def known(self, packed: bytes) -> bytes:
        """Entries with what is known in the place of marks; of what is not yet, that it is not."""
        return self._marks.sub(self._entry_for, packed) if self._mark in packed else packed

    def if_known(self, entry: bytes) -> bytes:
        """An entry, or what is known in its place where it is a mark."""
        mark = self._marks.fullmatch(entry)
        return (mark and self._find(_NUMBER.unpack(mark[1])[0])) or entry

    def known_frames(self, frames: bytes) -> bytes:
        """Whole frames with what is known in the place of marks."""
        if self._mark not in frames:
            return frames
        known: list[bytes] = []
        at = 0
        while at < len(frames):
            length = HEADER.unpack_from(frames, at)[0]
            rest = self.known(frames[at + _LENGTH.size : at + length])
            known += (_LENGTH.pack(_LENGTH.size + len(rest)), rest)
            at += length
        return b"".join(known)

    def _entry_for(self, mark: re.Match[bytes]) -> bytes:
        found = self._find(_NUMBER.unpack(mark[1])[0])
        if found is not None:
            return found
        return struct.pack("<BII", ENTRY_UNREAD, 0, self._string("the device has not answered"))

    def _find(self, number: int) -> bytes | None:
        found = self._known.get(number)
        return self._known_before.get(number) if found is None else found

    def is_full(self) -> bool:
        """Whether so much is known that some of it should go: see `forget`."""
        return len(self._known) > _MOST_KNOWN

    def forget(self) -> None:
        """Let go of what was known when this was last called."""
        self._known_before, self._known = self._known, {}


def _is_there(chunk: Chunk) -> bool:
    try:
        return chunk.is_copied()
    except Exception:  # taking it in will say why
        return True
