"""What a recorder writes in; a trace file, and each event as soon as it is written, out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from tracer.records.events import Event, Hook, Leaf, NodeRun, Pass, PassEnd
from tracer.records.graph import Graph, Site
from tracer.records.limits import ALL_THERE_IS, Limits
from tracer.records.packed import pack
from tracer.records.tensors import Gradient, TensorMeta
from tracer.records.trace import Run, TraceRecord
from tracer.store.decoding import decode_event, meta_at
from tracer.store.entries import UNKNOWN_META, Packed, decode_entry
from tracer.store.flows import NOT_RECORDED, Wiring
from tracer.store.frames import scan_frames
from tracer.store.writer import Stored, TraceWriter


class LiveWriter(TraceWriter):
    """A `TraceWriter` that tells `watch` of each event as it is given to it.

    `record` is the trace as it is known while it grows, without events: the graphs and passes that
    run, and leaves. What `watch` or the reading of an event raises ends the watching and goes to
    `failed`: the trace is written all the same.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        run: Run,
        *,
        limits: Limits = ALL_THERE_IS,
        failed: Callable[[Exception], object],
    ) -> None:
        super().__init__(path, run, limits=limits)
        self._failed = failed
        self._tables = _Tables()
        self._flows: dict[int, _Flow] = {}
        self._running: list[Pass] = []
        self._walked: dict[int, Graph] = {}
        self._lost: list[int] = []
        self.watch: Callable[[Event], object] | None = None
        self.record = TraceRecord(
            run=run, graphs=self._walked, passes=self._running, leaves=self._tables.leaves
        )

    # ---- what is stored once

    def put(self, record: Stored) -> None:
        """Store a record, and keep those that events refer to."""
        tables = self._tables
        if isinstance(record, Pass):
            ids = [one.id for one in self._running]
            at = ids.index(record.id) if record.id in ids else len(ids)
            self._running[at : at + 1] = [self._with_seeds(record)]
        elif isinstance(record, Leaf):
            tables.leaves[record.id] = record
        elif isinstance(record, Hook):
            tables.hooks[record.id] = record
        elif isinstance(record, Site):
            tables.sites[record.id] = record
        super().put(record)

    def _with_seeds(self, record: Pass) -> Pass:
        """The pass with its seeds unpacked: the recorder hands on packed entries."""
        flow = _Flow(self._tables, self._walked.get(record.graph, _NO_GRAPH))
        seeds = [
            self._unpacked(seed, meta_at(flow.arriving(root.node), root.input_nr))
            for root, seed in zip(record.roots, record.seeds, strict=False)
        ]
        return replace(record, seeds=tuple(seeds))

    def _unpacked(self, seed: Gradient | bytes | None, meta: TensorMeta) -> Gradient | None:
        return decode_entry(seed, 0, self._tables, meta)[0] if isinstance(seed, bytes) else seed

    def graph(self, graph: Graph) -> None:
        """Store a graph, and keep it while a pass over it runs."""
        self._walked[graph.id] = graph
        super().graph(graph)

    def lost_leaf(self, leaf: int) -> None:
        """Say that a leaf is no more; events of it may still be on their way."""
        self._lost.append(leaf)
        super().lost_leaf(leaf)

    def string(self, text: str) -> int:
        """The id of a text."""
        number = super().string(text)
        self._tables.strings[number] = text
        return number

    def meta(self, meta: TensorMeta) -> int:
        """The id of a tensor's metadata."""
        number = super().meta(meta)
        self._tables.metas[number] = meta
        return number

    def site(self, site: Site | None) -> int:
        """The id of a site, 0 for none."""
        if site is not None:
            self._tables.sites[site.id] = site
        return super().site(site)

    def hook(self, hook: Hook) -> int:
        """The id of a hook."""
        self._tables.hooks[hook.id] = hook
        return super().hook(hook)

    # ---- events

    def event(self, event: Event) -> None:
        """Write an event."""
        self.append(self.frame(event))

    def append(
        self, frames: Packed, span: tuple[int, int, int, int, int, int] | None = None
    ) -> None:
        """Write whole frames, and tell of the events in them."""
        super().append(frames, span)
        if self.watch is None:
            return
        try:
            self._tell(frames, self.watch)
        except Exception as error:
            self.watch = None
            self._failed(error)

    def _tell(self, frames: Packed, watch: Callable[[Event], object]) -> None:
        for offset, _kind, pass_id, _seq in scan_frames(frames):
            flow = self._flow(pass_id)
            event = decode_event(frames, offset, self._tables, flow)
            if isinstance(event, NodeRun):
                flow.returned[event.node] = event.returned
            watch(event)
            if isinstance(event, PassEnd):
                self._forget(pass_id)

    def _forget(self, pass_id: int) -> None:
        """Let go of what only a pass that has ended referred to."""
        self._flows.pop(pass_id, None)
        self._running[:] = [one for one in self._running if one.id != pass_id]
        if not self._running:
            self._walked.clear()
            while self._lost:
                self._tables.leaves.pop(self._lost.pop(), None)

    def _flow(self, pass_id: int) -> _Flow:
        flow = self._flows.get(pass_id)
        if flow is None:
            graph = next((one.graph for one in self._running if one.id == pass_id), 0)
            flow = _Flow(self._tables, self._walked.get(graph, _NO_GRAPH))
            if graph:
                self._flows[pass_id] = flow
        return flow


_NO_GRAPH = Graph(0, (), (), ())


class _Tables:
    """What frames refer to by id."""

    def __init__(self) -> None:
        self.strings = {0: ""}
        self.metas: dict[int, TensorMeta] = {}
        self.sites: dict[int, Site] = {}
        self.hooks: dict[int, Hook] = {}
        self.leaves: dict[int, Leaf] = {}
        self.string = self.strings.__getitem__
        self.meta = self.metas.__getitem__
        self.hook = self.hooks.__getitem__

    def site(self, number: int) -> Site | None:
        """A site; 0 is none."""
        return self.sites[number] if number else None


class _Flow:
    """What one pass's structure and earlier events say of what a frame leaves out."""

    def __init__(self, tables: _Tables, graph: Graph) -> None:
        wiring = Wiring(*pack(graph))
        self._tables = tables
        self._source = wiring.source
        self.returned: dict[int, Sequence[Gradient | None]] = {}
        self.arriving, self.leaving = wiring.arriving, wiring.leaving

    def leaf(self, leaf: int) -> TensorMeta:
        """The metadata of a leaf."""
        known = self._tables.leaves.get(leaf)
        return known.meta if known is not None else UNKNOWN_META

    def sent(self, node: int, input_nr: int) -> Gradient | None:
        """What the one edge into this input carried."""
        sender, slot = self._source(node, input_nr) or (-1, 0)
        returned = self.returned.get(sender, ())
        if returned:
            return returned[slot] if slot < len(returned) else None
        return Gradient(meta_at(self.arriving(node), input_nr), unread=NOT_RECORDED)
