"""Where everything that is seen goes: order, clock, interning, the tape, and our own failures."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypedDict, cast

from torch import Tensor

from tracer.capture.core import Tape, pass_here
from tracer.capture.deferred import Deferred
from tracer.capture.readings import NONE, Reader, meta_of
from tracer.capture.waiting import Decide, Waiting
from tracer.capture.watched import Watched
from tracer.records.events import (
    EVENT_KINDS,
    DataWrite,
    Event,
    GradWrite,
    Hook,
    Leaf,
    Pass,
    PassBegin,
    PassEnd,
)
from tracer.records.graph import Graph, ModuleRef, Root, Site
from tracer.records.limits import ALL_THERE_IS, Limits
from tracer.records.stream import WRITE
from tracer.records.tensors import Gradient, TensorMeta

Span = tuple[int, int, int, int, int, int]
"""Least and greatest `seq` and pass of frames, their number, and a bit for each kind."""


class Writer(Protocol):
    """What capture needs of the store."""

    def put(self, record: Site | ModuleRef | Hook | Leaf | Graph | Pass) -> None: ...

    flush_bytes: int

    def ran(self, passes: Sequence[tuple[Any, ...]], graphs: Sequence[Graph]) -> None: ...

    def roots_text(self, roots: Sequence[Root]) -> object: ...

    def inputs_text(self, inputs: tuple[str, ...]) -> object: ...

    def graph(self, graph: Graph) -> None: ...

    def lost_leaf(self, leaf: int) -> None: ...

    def lost_graph(self, graph: int) -> None: ...

    def source(self, file: str, text: str) -> None: ...

    def string(self, text: str) -> int: ...

    def meta(self, meta: TensorMeta) -> int: ...

    def event(self, event: Event) -> None: ...

    def frame(self, event: Event) -> bytes: ...

    def append(self, frames: bytes, span: Span | None = None) -> None: ...

    def dropped(self, reason: str, count: int = 1) -> None: ...

    def due(self) -> bool: ...

    def flush(self) -> None: ...

    def flush_soon(self) -> None: ...


_PASS_BEGIN, _PASS_END, _GRAD_WRITE, _DATA_WRITE = (
    EVENT_KINDS.index(kind) + 1 for kind in (PassBegin, PassEnd, GradWrite, DataWrite)
)


class Stamp(TypedDict):
    """Order, time, thread and pass: what all events have."""

    seq: int
    t_ns: int
    thread: int
    pass_id: int | None


def packed(entry: bytes) -> Gradient | None:
    """An entry as an event carries it: the encoder takes packed entries as they are."""
    return cast("Gradient | None", entry)


def all_packed(entries: tuple[bytes, ...]) -> tuple[Gradient | None, ...]:
    """Entries as an event carries them."""
    return cast("tuple[Gradient | None, ...]", entries)


class Recorder:
    """Gives events their order and hands them on; stops for good at the first fault of our own."""

    def __init__(
        self,
        writer: Writer,
        *,
        name_of: Callable[[Tensor], str],
        limits: Limits = ALL_THERE_IS,
    ) -> None:
        self.writer = writer
        self.tensor_name = name_of
        self.lock = threading.RLock()
        self.pid = os.getpid()
        self.failed = ""
        self.stop: Callable[[], None] = lambda: None
        self.text_of: Callable[[str], str | None] = lambda file: None
        self.collect: Callable[[], None] = lambda: None
        self._files: set[str] = set()
        self._sites: dict[int, Site] = {}
        self.deferred = Deferred(limits.elements, writer.string)
        self.waiting = Waiting(self.deferred, writer)
        reader = Reader(
            few=limits.elements, meta=writer.meta, string=writer.string, deferred=self.deferred
        )
        self.tape = Tape(reader, limits.elements, limits.detail != "structure")
        self.tape.full = self._spill
        self.tape.meta_of = self.meta_id
        self._emitted = 0
        self.watched = Watched(limits.only, writer.dropped)

    # ---- readings

    def entry(self, tensor: Tensor | None, meta: int = 0) -> bytes:
        """Pack what a tensor holds now; `meta` 0 stands for what the structure says."""
        return NONE if tensor is None else self.tape.entry(tensor, meta)

    def entry_of_any(self, tensor: Tensor | None) -> bytes:
        """Pack a tensor of whatever shape and dtype, which the structure need not know."""
        return NONE if tensor is None else self.tape.entry(tensor, self.meta_id(tensor))

    def meta_id(self, tensor: Tensor) -> int:
        """The number of a tensor's metadata."""
        return self.writer.meta(meta_of(tensor))

    # ---- sites

    def add_site(self, site: Site | None) -> int:
        """Store a site on first sight; its id, 0 for none."""
        if site is None:
            return 0
        if site.id not in self._sites:
            self._sites[site.id] = site
            self.writer.put(site)
            self._keep_source(site.file)
        return site.id

    def _keep_source(self, file: str) -> None:
        """Store the text of a file with the first site in it: a killed process leaves it then."""
        text = self.text_of(file) if file not in self._files else None
        if text is not None:
            self._files.add(file)
            self.writer.source(file, text)

    def site(self, site_id: int) -> Site | None:
        """The site of that id, None for 0."""
        return self._sites.get(site_id)

    # ---- records and events

    def put(self, record: Leaf | Pass) -> None:
        """Store a record as it is now, and again once the readings that it names are known."""
        if not self.deferred.last:
            self.writer.put(record)
            return
        with self.lock:
            self.writer.put(self.waiting.known(record))
            self.waiting.record(record)

    def pass_id(self) -> int | None:
        """The pass that runs in the calling thread, None outside of any."""
        return pass_here()

    def stamp(self) -> Stamp:
        """What an event that happens now begins with."""
        tape = self.tape
        return Stamp(
            seq=tape.next_seq(), t_ns=tape.now(), thread=tape.thread(), pass_id=self.pass_id()
        )

    def emit(self, event: Event, decide: Decide | None = None) -> None:
        """Hand on an event after what is on the tape.

        `decide` makes of it what is to be told once the readings that it names are known.
        """
        with self.lock:
            if self.watched.everything and self.tape.most and not self.deferred.last:
                self.tape.put(self.writer.frame(event))
            else:
                self.drain()
                if not self.watched.keeps(event):
                    return
                self.waiting.event(event, decide)
            self._emitted += 1
            if self._emitted % 256 == 0:
                if self.pass_id() is None:
                    self.deferred.begin_copies()
                self.flush_if_due()

    def drain(self) -> None:
        """Hand the tape's frames on, and the passes that they tell of."""
        self.collect()
        if self.tape.used:
            frames, span = self.tape.take_chunk()
            kept = self.watched.sift(frames)
            self.waiting.frames(kept, span if kept is frames else None)

    def _spill(self) -> None:
        try:
            self.flush_if_due()
        except Exception as error:
            self.fault(error)

    def follow(self, settle: Callable[[], None]) -> None:
        """Hand each frame on as soon as the tape has it, and not when many wait.

        `settle()` puts on the tape what has happened and is not there yet.
        """

        def hand_on() -> None:
            try:
                settle()
                self.flush_if_due()
            except Exception as error:
                self.fault(error)

        self.tape.most = 0
        self.tape.full = hand_on

    def keep_up(self) -> None:
        """Hand on what has happened so far, where events are followed."""
        if not self.tape.most:
            self.tape.full()

    def flush_if_due(self) -> None:
        """Write out what is waiting, when there is enough of it or it has waited long enough."""
        with self.lock:
            self.drain()
            self.waiting.release()
            if self.writer.due():
                self.writer.flush_soon()

    def close(self) -> None:
        """Write out what is waiting, and let go of the tape."""
        self.flush()
        del self.tape.full, self.tape.meta_of

    def flush(self) -> None:
        """Write out what is waiting, and wait for devices that have yet to answer."""
        with self.lock:
            self.drain()
            self.deferred.begin_copies()
            self.waiting.release(wait=True)
            self.writer.flush()

    def pass_begins(self, pass_id: int) -> None:
        """Enter the begin of a pass."""
        self.tape.write(_PASS_BEGIN, pass_id)
        self.keep_up()

    def pass_ends(self, pass_id: int) -> None:
        """Enter the end of a pass."""
        self.tape.write(_PASS_END, pass_id)
        if self.deferred.last and self.pass_id() is None:
            self.deferred.begin_copies()

    def grad_write(self, leaf: int, how: str, before: bytes, after: bytes, site: int) -> None:
        """Enter a write to a leaf's `.grad` by user code."""
        self._write(_GRAD_WRITE, leaf, how, before, after, site)

    def data_write(self, leaf: int, how: str, before: bytes, after: bytes, site: int) -> None:
        """Enter a write to a leaf's values."""
        self._write(_DATA_WRITE, leaf, how, before, after, site)

    def _write(
        self, kind: int, leaf: int, how: str, before: bytes, after: bytes, site: int
    ) -> None:
        fixed = WRITE.pack(leaf, self.writer.string(how), site)
        self.tape.write(kind, self.pass_id() or 0, fixed, before, after)

    # ---- our own failures

    def fault(self, error: BaseException | None) -> None:
        """Stop recording with one warning: a failure of ours must not become the program's."""
        if self.failed:
            return
        self.stop()
        self.failed = f"{type(error).__name__}: {error}" if error is not None else "unknown"
        if os.environ.get("TRACER_DEBUG") and error is not None:
            sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.write(
            f"tracer: recording stopped ({self.failed}); the program goes on untraced.\n"
        )
