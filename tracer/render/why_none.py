"""What a trace leaves in; why each `.grad` that one may want is None, out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from tracer.records import words
from tracer.records.events import Leaf
from tracer.records.passes import main_file, sorts_of
from tracer.records.trace import TraceRecord
from tracer.render.fitted_rows import Row
from tracer.render.left_at_the_end import CutNow, Seen

_FROZEN = "requires_grad_(False)"
_MOST_NODES = 100_000
"""Nodes of graphs that are read for a trace that is too long to be read in full."""
_MOST_LEAVES = 50_000


def why_none(trace: TraceRecord, seen: Seen) -> Iterator[Row]:
    """For each leaf that got nothing, tensor that lost its history, and read of None: name, reason,
    place.

    Of a trace that was not read in full, those that are certain: see `_surely_got_nothing`.
    """
    script = main_file(trace)
    cuts = _cuts_by_name(seen)
    graphs = _Graphs(trace)
    for leaf in _got_nothing(trace, seen, graphs):
        name = leaf.name or "a leaf without a name"
        cut = cuts.pop(leaf.name, None)
        reason = _cut_off(cut) if cut is not None else _not_reached(trace, leaf, graphs)
        yield name, reason, words.place(cut.site, beside=script) if cut is not None else ""
    if cuts and not (seen.cut_short and graphs.are_many):
        known = _known_names(trace)
        for name, cut in cuts.items():
            if name not in known and (cut.kind == _FROZEN or name in cut.results):
                yield name, _cut_off(cut), words.place(cut.site, beside=script)
    for read in seen.reads.values():
        name = read.tensor or "a tensor"
        yield (
            name,
            "not a leaf: retain_grad() keeps its .grad",
            words.place(read.site, beside=script),
        )


class _Graphs:
    """The names of the leaves that each graph leads to, read when they are first asked for."""

    def __init__(self, trace: TraceRecord) -> None:
        self._trace = trace
        self._names: dict[int, frozenset[str]] = {}

    def leaf_names(self, graph: int) -> frozenset[str]:
        """The names of a graph's leaves; the empty name where one has none."""
        names = self._names.get(graph)
        if names is None:
            leaves = self._trace.graphs[graph].leaves
            found = (name for node in leaves for name in node.variables or ("",))
            names = self._names[graph] = frozenset(found)
        return names

    @cached_property
    def are_many(self) -> bool:
        """Whether there are more nodes in all graphs than may be read."""
        nodes = 0
        for number in self._trace.graphs:
            nodes += len(self._trace.graphs[number].nodes)
            if nodes > _MOST_NODES:
                return True
            self.leaf_names(number)
        return False


def _got_nothing(trace: TraceRecord, seen: Seen, graphs: _Graphs) -> Iterator[Leaf]:
    """The leaves that no pass added to, and whose `.grad` is None."""
    leaves = _surely_got_nothing(trace, graphs) if seen.cut_short else trace.leaves.values()
    for leaf in leaves:
        now = seen.of(leaf)
        if now.grad is None and not now.passes:
            yield leaf


def _surely_got_nothing(trace: TraceRecord, graphs: _Graphs) -> Iterator[Leaf]:
    """The leaves that no recorded pass can have added to: no graph of a backward call leads there.

    That needs no event. It is certain where each leaf of those graphs has the name of a leaf of the
    trace, so that none of them can be one that has another name now.
    """
    if len(trace.leaves) > _MOST_LEAVES or graphs.are_many:
        return
    backward = {one.first.graph for one in sorts_of(trace.passes) if one.first.kind != "grad"}
    reached = frozenset[str]().union(*map(graphs.leaf_names, backward))
    if reached <= {leaf.name for leaf in trace.leaves.values() if leaf.name}:
        yield from (
            leaf for leaf in trace.leaves.values() if leaf.name and leaf.name not in reached
        )


def _cuts_by_name(seen: Seen) -> dict[str, CutNow]:
    found: dict[str, CutNow] = {}
    for cut in seen.cuts.values():
        for name in cut.names:
            found.setdefault(name, cut)
    return found


def _known_names(trace: TraceRecord) -> set[str]:
    """Names of leaves, and of tensors that a pass went through: these have a history."""
    names = {leaf.name for leaf in trace.leaves.values()}
    for graph in trace.graphs.values():
        names.update(name for node in graph.nodes for name in node.variables)
    return names


def _cut_off(cut: CutNow) -> str:
    if cut.kind == _FROZEN:
        return "frozen by requires_grad_(False)"
    return f"cut off by {cut.kind}"


def _not_reached(trace: TraceRecord, leaf: Leaf, graphs: _Graphs) -> str:
    """Why no pass added to a leaf that its graph leads to."""
    sorts = sorts_of(trace.passes)
    firsts = [one.first for one in sorts] if leaf.name else []
    passes = [record for record in firsts if leaf.name in graphs.leaf_names(record.graph)]
    if not passes:
        return "not reached from the root of any pass"
    failed = next((record for record in passes if not record.outcome.ok), None)
    if failed is not None:
        return f"pass {failed.id} raised {failed.outcome.error} before it got there"
    if all(record.kind == "grad" for record in passes):
        return "only torch.autograd.grad() ran: it returns gradients and leaves .grad alone"
    if any(record.inputs is not None for record in passes):
        return "not among the inputs= of the passes that lead to it"
    return "the gradient that arrived was None"
