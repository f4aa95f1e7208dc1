"""One pass's structure and node frames in; out, the gradients that other frames leave to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from tracer.records.graph import Edge, Graph
from tracer.records.quick import maker
from tracer.records.stream import ENTRY_RECEIVED, ENTRY_SAME, HEADER, NODE
from tracer.records.tensors import Gradient, TensorMeta
from tracer.store.archive import Archive
from tracer.store.decoding import meta_at
from tracer.store.entries import UNKNOWN_META, Packed, decode_entry, skip_entries

NOT_RECORDED = "what was sent here was not recorded"

_WIRINGS_KEPT = 4
_MOST_SLOTS = 1 << 20
"""A stranger's slot number must not become memory; PyTorch's widest nodes have thousands."""


_OUTPUTS = "SELECT CAST(outputs AS TEXT) FROM node WHERE graph = ? ORDER BY id"
_EDGES = """
SELECT CAST(source AS INTEGER), CAST(slot AS INTEGER), CAST(target AS INTEGER),
       CAST(input_nr AS INTEGER)
FROM edge WHERE graph = ? ORDER BY position
"""
_edge = maker(Edge)


def edges_of(archive: Archive, graph: int) -> Iterator[Edge]:
    """The edges of a graph, in the order they are stored."""
    return (_edge(*row) for row in archive.each(_EDGES, graph))


class Wiring:
    """Which output leads to which input, and what metadata passes there, for one graph."""

    def __init__(
        self,
        outputs: Sequence[tuple[TensorMeta | None, ...]],
        edges_from: Mapping[int, Sequence[Edge]],
    ) -> None:
        self._outputs = outputs
        self._whole: dict[int, Sequence[TensorMeta]] = {}
        self._edges = edges_from

    @cached_property
    def sources(self) -> Mapping[tuple[int, int], Edge | None]:
        """The one edge that leads to an input of a node; None where there are several."""
        found: dict[tuple[int, int], Edge | None] = {}
        for edge in chain.from_iterable(self._edges.values()):
            place = edge.target, edge.input_nr
            found[place] = None if place in found else edge
        return found

    def arriving(self, node: int) -> Sequence[TensorMeta]:
        """The metadata of each gradient that arrives at a node."""
        outputs = self._outputs[node] if node < len(self._outputs) else ()
        whole = self._whole.get(id(outputs))  # most nodes have those of others, as one object
        if whole is None:
            whole = self._whole[id(outputs)] = [meta or UNKNOWN_META for meta in outputs]
        return whole

    def leaving(self, node: int) -> Sequence[TensorMeta]:
        """The metadata of each gradient that leaves a node, by slot."""
        found: list[TensorMeta] = []
        edges = self._edges.get(node, ())
        for edge in sorted(edges, key=_slot) if len(edges) > 1 else edges:
            slot = edge.slot
            if len(found) < slot < _MOST_SLOTS:
                found += [UNKNOWN_META] * (slot - len(found))
            if len(found) == slot:
                found.append(meta_at(self.arriving(edge.target), edge.input_nr))
        return found


_slot = attrgetter("slot")


class Wirings:
    """The wirings of the graphs used last."""

    def __init__(self, archive: Archive, known: Callable[[int], Graph | None]) -> None:
        self._archive = archive
        self._known = known
        self._kept: dict[int, Wiring] = {}

    def of_pass(self, number: int) -> Wiring:
        """The wiring of a pass's graph; of an unknown pass, one that leads nowhere."""
        sql = "SELECT IFNULL(CAST(graph AS INTEGER), 0) FROM pass WHERE id = ?"
        found = self._archive.rows(sql, number)
        graph = found[0][0] if found else 0
        wiring = self._kept.pop(graph, None)
        if wiring is None:
            wiring = self._read(graph)
        self._kept[graph] = wiring
        if len(self._kept) > _WIRINGS_KEPT:
            del self._kept[next(iter(self._kept))]
        return wiring

    def _read(self, number: int) -> Wiring:
        """The wiring of a graph: from its record where that is known, else from the file alone."""
        graph, archive = self._known(number), self._archive
        if graph is not None:
            return Wiring([node.outputs for node in graph.nodes], graph.edges_from)
        outputs = [archive.metas(text) for (text,) in archive.each(_OUTPUTS, number)]
        edges_from: dict[int, list[Edge]] = {}
        for edge in edges_of(archive, number):
            edges_from.setdefault(edge.source, []).append(edge)
        return Wiring(outputs, edges_from)


class _Place(NamedTuple):
    """A gradient returned by a node."""

    node: int
    slot: int


class PassFlow:
    """What one pass's node frames sent, decoded or still packed."""

    def __init__(self, archive: Archive, wirings: Wirings, number: int) -> None:
        self._archive = archive
        self._wirings = wirings
        self._number = number
        self._returned: dict[int, Sequence[Gradient | None]] = {}
        self._packed: dict[int, tuple[Packed, int]] = {}
        self._unpacked: dict[_Place, Gradient | None] = {}
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

    def source(self, node: int, input_nr: int) -> Edge | None:
        """The one edge that leads to an input of a node; None where there is none, or several."""
        return self._wiring.sources.get((node, input_nr))

    def sent(self, node: int, input_nr: int) -> Gradient | None:
        """What the one edge into this input carried."""
        source = self.source(node, input_nr)
        if source is None:
            return self._unknown(node, input_nr)
        returned = self._returned.get(source.source)
        if returned is not None and source.slot < len(returned):
            return returned[source.slot]
        return self._follow(_Place(source.source, source.slot))

    def _follow(self, start: _Place) -> Gradient | None:
        """What was returned at a place, from frames that are still packed.

        Nodes that hand on what they received make chains as long as the graph is deep: they are
        followed in a loop, and what is found is remembered for every place on the way.
        """
        way: list[_Place] = []
        found: Gradient | None | _Place = start
        while isinstance(found, _Place):
            way.append(found)
            if len(way) > len(self._packed) + 1:
                raise ValueError("node frames that refer to each other in a circle")
            found = self._look_up(found)
        self._unpacked.update((place, found) for place in way if place.node not in self._returned)
        return found

    def _look_up(self, place: _Place) -> Gradient | None | _Place:
        returned = self._returned.get(place.node)
        if returned is not None:
            return returned[place.slot] if place.slot < len(returned) else None
        if place in self._unpacked:
            return self._unpacked[place]
        if place.node in self._packed:
            return self._unpack(place)
        metas = self.leaving(place.node)
        return Gradient(meta_at(metas, place.slot), unread=NOT_RECORDED)

    def _unpack(self, place: _Place) -> Gradient | None | _Place:
        """One returned entry of a packed frame, or where to look for what it refers to."""
        frames, start = self._packed[place.node]
        _, _, _, n_received, n_returned = NODE.unpack_from(frames, start + HEADER.size)
        if place.slot >= n_returned:
            return None
        entries = start + HEADER.size + NODE.size
        offset = skip_entries(frames, entries, n_received + place.slot)
        if frames[offset] != ENTRY_RECEIVED:
            meta = meta_at(self.leaving(place.node), place.slot)
            return decode_entry(frames, offset, self._archive, meta)[0]
        k = frames[offset + 1]
        offset = skip_entries(frames, entries, k)
        if frames[offset] == ENTRY_SAME:
            source = self._wiring.sources.get((place.node, k))
            if source is None:
                return self._unknown(place.node, k)
            return _Place(source.source, source.slot)
        meta = meta_at(self.arriving(place.node), k)
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
