"""Structures seen so far: passes that walk the same one share its graph."""

from __future__ import annotations

import sys
from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tracer.capture import structure
from tracer.capture.core_in_python.probes import REARRANGES, USER_CODE
from tracer.capture.held import names_held
from tracer.capture.ledger import LeafState
from tracer.records.collection import no_collection
from tracer.records.graph import Graph, NodeKind
from tracer.records.packed import Origin, Sort, pack

if TYPE_CHECKING:
    from tracer.capture.session import Session

_MOST_NODES = 1 << 15
_LEAST_GRAPHS = 8

VIEW_NODES = frozenset(
    f"{view}Backward0"
    for view in ("ReshapeAlias", "Permute", "T", "Transpose", "UnsafeView", "Unsqueeze", "View")
) | {f"SqueezeBackward{number}" for number in range(3)}
"""Nodes that return the elements of their gradient in another shape or order, and nothing else: see
`derivatives.yaml` in PyTorch's source."""

Leaves = dict[int, tuple[Tensor, LeafState]]
_Key = tuple[bytes, bytes, bytes, tuple[str, ...]]
Plain = tuple[Graph, int, object, bytes, bool]
"""A graph, its id, what the writer takes of its roots with each pass, what `GraphBook.natures`
says, and whether all nodes run on the CPU."""


class GraphBook:
    """Finds the graph of a walk by its structure, and reads it in full only on first sight.

    Two walks have the same structure when their nodes agree in type, shapes, dtypes, devices,
    source site, operation, module and (for leaves) name, and their edges and roots agree. The
    comparison is of the whole key, not of a digest of it. A structure met again after so many
    others that it was forgotten is a new graph, with the same digest.

    `signatures` numbers, for the walks, what makes two nodes alike. `plain` has the structures that
    run no user code. The core holds all three dictionaries.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.by_structure: dict[_Key, Graph] = {}
        self.plain: dict[_Key, Plain] = {}
        self.signatures: dict[Any, int] = {}
        self._natures: dict[int, bytes] = {}
        self._count = self._nodes = self._forgotten = 0

    def graph_of(self, walk: structure.Walk, leaves: Leaves) -> Graph:
        """The graph with the structure of this walk."""
        names = tuple([state.name for _leaf, state in leaves.values()])
        key = (walk.signatures, walk.links, walk.roots, names)
        graph = self.by_structure.pop(key, None)
        is_new = graph is None
        if graph is None:
            with no_collection():
                graph = self._read(walk, leaves)
        self.by_structure[key] = graph
        natures = self.natures(graph)
        if USER_CODE not in natures and key not in self.plain:
            roots = self._session.recorder.writer.roots_text(graph.roots)
            self.plain[key] = graph, graph.id, roots, natures, _is_on_cpu(graph)
        if is_new:
            self._make_room(len(graph.nodes))
        self._session.recorder.writer.graph(graph)
        return graph

    def _make_room(self, coming: int) -> None:
        """Forget the structures used longest ago: a program may make another in each pass."""
        self._nodes += coming
        while self._nodes > _MOST_NODES and len(self.by_structure) > _LEAST_GRAPHS:
            key = next(iter(self.by_structure))
            forgotten = self.by_structure.pop(key)
            self.plain.pop(key, None)
            self._nodes -= len(forgotten.nodes)
            self._forgotten += len(forgotten.nodes)
            self._natures.pop(forgotten.id, None)
            self._session.second_order.forget(forgotten.id)
            self._session.recorder.writer.lost_graph(forgotten.id)
        if self._forgotten > _MOST_NODES:
            self._forgotten = 0
            self._forget_signatures()

    def _forget_signatures(self) -> None:
        """Keep the signatures of the structures that are kept, numbered anew, and no others.

        The core takes it for numbered anew where there are fewer than after its last walk.
        """
        used = set[int]().union(*(memoryview(signed).cast("I") for signed, *_ in self.by_structure))
        kept = {
            signature: number for signature, number in self.signatures.items() if number in used
        }
        anew = {number: place for place, number in enumerate(kept.values())}
        self.signatures.clear()
        self.signatures.update(zip(kept, anew.values(), strict=True))
        graphs = {
            (_renumbered(signed, anew), links, roots, names): graph
            for (signed, links, roots, names), graph in self.by_structure.items()
        }
        self.by_structure.clear()
        self.by_structure.update(graphs)
        self.plain.clear()

    def natures(self, graph: Graph) -> bytes:
        """What attach is told of each node: `USER_CODE`, `REARRANGES` or 0."""
        natures = self._natures.get(graph.id)
        if natures is None:
            natures = self._natures[graph.id] = pack(graph)[0].tell(_nature_of)
        return natures

    def _read(self, walk: structure.Walk, leaves: Leaves) -> Graph:
        self._count += 1
        origins = self.origins_of(walk)
        for number, (_leaf, state) in leaves.items():
            name = self._session.leaf_name(state)
            origins[number] = Origin(variables=(name,) if name else ())
        self._name_held(walk, origins)
        return structure.read_graph(
            walk, origins, graph_id=self._count, site_of=self._session.defined_at
        )

    def _name_held(self, walk: structure.Walk, origins: list[Origin]) -> None:
        """Name what no line bound to a name (`return x * 2`) by the variable that holds it now."""
        is_user = self._session.sites.is_user
        held = names_held(walk.fns, sys._getframe(), is_user)
        for number, name in held.items():
            if not origins[number].variables:
                origins[number] = replace(origins[number], variables=(name,))

    def origins_of(self, walk: structure.Walk) -> list[Origin]:
        """What is known of how each node of a walk was made."""
        under_way = self._session.sites.loops_under_way(sys._getframe())
        made_by = self._session.made_by
        known: dict[Any, Origin] = {None: Origin()}
        origins = []
        for sequence_nr in walk.sequence_nrs:
            made = made_by(sequence_nr)
            run = made and made[:4]  # one run of an operation makes several nodes
            origin = known.get(run)
            if origin is None:
                origin = known[run] = self._origin(run, under_way)
            origins.append(origin)
        _name_outputs_only(walk, origins)
        return origins

    def _origin(self, run: Any, under_way: set[tuple[str, int]]) -> Origin:
        session = self._session
        site_id, op, module, call = run
        site, note = session.recorder.site(site_id), session.second_order.note(op)
        names = site.targets if site is not None and not note else ()
        return Origin(
            site, session.op_name(op), session.modules.ref(module), call, names, note,
            session.loops.at(site, call, under_way),
        )  # fmt: skip


def _renumbered(signed: bytes, anew: dict[int, int]) -> bytes:
    return array("I", [anew[number] for number in memoryview(signed).cast("I")]).tobytes()


def _name_outputs_only(walk: structure.Walk, origins: list[Origin]) -> None:
    """Keep the names an expression was bound to only on the last node that it made.

    `y = layer_norm(x)` makes several nodes; what `y` names is the output of the newest.
    """
    newest: dict[Any, int] = {}
    for number, origin in enumerate(origins):
        if origin.variables and origin.site is not None:
            key = (origin.site.id, origin.call)
            held = newest.get(key)
            if held is None or walk.sequence_nrs[number] > walk.sequence_nrs[held]:
                newest[key] = number
    kept = set(newest.values())
    without: dict[int, Origin] = {}
    for number, origin in enumerate(origins):
        if origin.site is not None and origin.variables and number not in kept:
            unnamed = without.get(id(origin))
            if unnamed is None:
                unnamed = without[id(origin)] = replace(origin, variables=())
            origins[number] = unnamed


def _is_on_cpu(graph: Graph) -> bool:
    """Whether the engine runs all nodes in the thread that calls it: it chooses that by what they
    receive."""
    received = (meta for sort in pack(graph)[0].sorts.values for meta in sort.outputs)
    return all(meta is not None and meta.device == "cpu" for meta in received)


def _nature_of(sort: Sort) -> int:
    if sort.kind is NodeKind.CUSTOM:
        return USER_CODE
    return REARRANGES if sort.name in VIEW_NODES else 0
