"""One pass's structure and node frames in; out, the gradients that other frames leave to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import chain

from tracer.records.graph import Graph
from tracer.records.packed import PackedEdges, PackedNodes, pack
from tracer.records.stream import ENTRY_RECEIVED, ENTRY_SAME, HEADER, NODE
from tracer.records.tensors import Gradient, TensorMeta
from tracer.store.archive import Archive
from tracer.store.decoding import meta_at
from tracer.store.entries import UNKNOWN_META, Packed, decode_entry, skip_entries

NOT_RECORDED = "what was sent here was not recorded"

_WIRINGS_KEPT = 4

Place = tuple[int, int]
"""A gradient returned by a node: by which, and in which slot."""


class Wiring:
    """Which output leads to which input, and what metadata passes there, for one graph."""

    def __init__(self, nodes: PackedNodes, edges: PackedEdges) -> None:
        self._sort_of = nodes.sorts.numbers
        self._outputs = [
            [meta or UNKNOWN_META for meta in sort.outputs] for sort in nodes.sorts.values
        ]
        self._edges = edges

    @cached_property
    def _places(self) -> Mapping[tuple[int, int], Place]:
        """By an end of an edge, as `PackedEdges.targets` has it, the one place that leads there."""
        edges = self._edges
        ends = list(zip(edges.targets, edges.input_nrs, strict=True))
        slots = chain.from_iterable(map(range, edges.slots))
        found = dict(zip(ends, zip(edges.sources, slots, strict=True), strict=True))
        if len(found) < len(ends):
            for end, times in Counter(ends).items():
                if times > 1:
                    del found[end]
        return found

    def source(self, node: int, input_nr: int) -> Place | None:
        """The one place that leads to an input of a node; None where there is none, or several."""
        return self._places.get((node + 1, input_nr))

    def arriving(self, node: int) -> Sequence[TensorMeta]:
        """The metadata of each gradient that arrives at a node."""
        return self._outputs[self._sort_of[node]] if node < len(self._sort_of) else ()

    def leaving(self, node: int) -> Sequence[TensorMeta]:
        """The metadata of each gradient that leaves a node, by slot."""
        edges = self._edges
        if node >= len(edges.slots):
            return ()
        first, end = edges.starts[node : node + 2]
        return [
            meta_at(self.arriving(edges.targets[at] - 1), edges.input_nrs[at])
            if edges.targets[at]
            else UNKNOWN_META
            for at in range(first, end)
        ]


_NOWHERE = Graph(0, (), (), ())


class Wirings:
    """The wirings of the graphs used last."""

    def __init__(self, archive: Archive, graphs: Mapping[int, Graph]) -> None:
        self._archive = archive
        self._graphs = graphs
        self._kept: dict[int, Wiring] = {}

    def of_pass(self, number: int) -> Wiring:
        """The wiring of a pass's graph; of an unknown pass, one that leads nowhere."""
        sql = "SELECT IFNULL(CAST(graph AS INTEGER), 0) FROM pass WHERE id = ?"
        found = self._archive.rows(sql, number)
        graph = found[0][0] if found else 0
        wiring = self._kept.pop(graph, None)
        if wiring is None:
            wiring = Wiring(*pack(self._graphs.get(graph, _NOWHERE)))
        self._kept[graph] = wiring
        if len(self._kept) > _WIRINGS_KEPT:
            del self._kept[next(iter(self._kept))]
        return wiring


class PassFlow:
    """What one pass's node frames sent, decoded or still packed."""

    def __init__(self, archive: Archive, wirings: Wirings, number: int) -> None:
        self._archive = archive
        self._wirings = wirings
        self._number = number
        self._returned: dict[int, Sequence[Gradient | None]] = {}
        self._packed: dict[int, tuple[Packed, int]] = {}
        self._unpacked: dict[Place, Gradient | None] = {}
        self.leaf = archive.leaf_meta

    @cached_property
    def _wiring(self) -> Wiring:
        """Read when it is first asked for: what ends a pass, for one, refers to no node."""
        return self._wirings.of_pass(self._number)

    @cached_property
    def arriving(self) -> Callable[[int], Sequence[TensorMeta]]:
        """The metadata of each gradient that arrives at a node."""
        return self._wiring.arriving

    @cached_property
    def leaving(self) -> Callable[[int], Sequence[TensorMeta]]:
        """The metadata of each gradient that leaves a node, by slot."""
        return self._wiring.leaving

    def ran(self, node: int, returned: Sequence[Gradient | None]) -> None:
        """Remember what a node returned."""
        self._returned[node] = returned

    def ran_packed(self, frames: Packed, offset: int) -> None:
        """Remember a node's frame, to be unpacked if something refers to it."""
        node = NODE.unpack_from(frames, offset + HEADER.size)[0]
        self._packed[node] = (frames, offset)

    @cached_property
    def source(self) -> Callable[[int, int], Place | None]:
        """The one place that leads to an input of a node; None where there is none, or several."""
        return self._wiring.source

    def sent(self, node: int, input_nr: int) -> Gradient | None:
        """What the one edge into this input carried."""
        source = self.source(node, input_nr)
        if source is None:
            return self._unknown(node, input_nr)
        sender, slot = source
        returned = self._returned.get(sender)
        if returned is not None and slot < len(returned):
            return returned[slot]
        return self._follow(source)

    def _follow(self, start: Place) -> Gradient | None:
        """What was returned at a place, from frames that are still packed.

        Nodes that hand on what they received make chains as long as the graph is deep: they are
        followed in a loop, and what is found is remembered for every place on the way.
        """
        way: list[Place] = []
        found: Gradient | None | Place = start
        while isinstance(found, tuple):
            way.append(found)
            if len(way) > len(self._packed) + 1:
                raise ValueError("node frames that refer to each other in a circle")
            found = self._look_up(found)
        self._unpacked.update((place, found) for place in way if place[0] not in self._returned)
        return found

    def _look_up(self, place: Place) -> Gradient | None | Place:
        node, slot = place
        returned = self._returned.get(node)
        if returned is not None:
            return returned[slot] if slot < len(returned) else None
        if place in self._unpacked:
            return self._unpacked[place]
        if node in self._packed:
            return self._unpack(node, slot)
        return Gradient(meta_at(self.leaving(node), slot), unread=NOT_RECORDED)

    def _unpack(self, node: int, slot: int) -> Gradient | None | Place:
        """One returned entry of a packed frame, or where to look for what it refers to."""
        frames, start = self._packed[node]
        _, _, _, n_received, n_returned = NODE.unpack_from(frames, start + HEADER.size)
        if slot >= n_returned:
            return None
        entries = start + HEADER.size + NODE.size
        offset = skip_entries(frames, entries, n_received + slot)
        if frames[offset] != ENTRY_RECEIVED:
            meta = meta_at(self.leaving(node), slot)
            return decode_entry(frames, offset, self._archive, meta)[0]
        k = frames[offset + 1]
        offset = skip_entries(frames, entries, k)
        if frames[offset] == ENTRY_SAME:
            source = self.source(node, k)
            return self._unknown(node, k) if source is None else source
        meta = meta_at(self.arriving(node), k)
        return decode_entry(frames, offset, self._archive, meta)[0]

    def _unknown(self, node: int, input_nr: int) -> Gradient:
        return Gradient(meta_at(self.arriving(node), input_nr), unread=NOT_RECORDED)


class Flows(dict[int, PassFlow]):
    """The flows of passes by number, each made when it is asked for."""

    def __init__(self, archive: Archive, wirings: Wirings) -> None:
        super().__init__()
        self._archive = archive
        self._wirings = wirings

    def __missing__(self, number: int) -> PassFlow:
        flow = self[number] = PassFlow(self._archive, self._wirings, number)
        return flow
