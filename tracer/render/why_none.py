"""What a trace leaves in; why each `.grad` that one may want is None, out."""

from __future__ import annotations

from collections.abc import Iterator

from tracer.records import words
from tracer.records.events import Leaf, Pass
from tracer.records.passes import main_file, sorts_of
from tracer.records.trace import TraceRecord
from tracer.render.fitted_rows import Row
from tracer.render.left_at_the_end import CutNow, Seen

_FROZEN = "requires_grad_(False)"


def why_none(trace: TraceRecord, seen: Seen) -> Iterator[Row]:
    """For each leaf that got nothing, tensor that lost its history, and read of None: name, reason,
    place."""
    script = main_file(trace)
    cuts = _cuts_by_name(seen)
    for leaf in () if seen.cut_short else trace.leaves.values():
        now = seen.of(leaf)
        if now.grad is None and not now.passes:
            name = leaf.name or "a leaf without a name"
            cut = cuts.pop(leaf.name, None)
            reason = _cut_off(cut) if cut is not None else _not_reached(trace, leaf)
            yield name, reason, words.place(cut.site, beside=script) if cut is not None else ""
    known = _known_names(trace) if cuts else set()
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


def _not_reached(trace: TraceRecord, leaf: Leaf) -> str:
    """Why no pass added to a leaf that its graph leads to."""
    passes = [one.first for one in sorts_of(trace.passes) if _leads_to(trace, one.first, leaf)]
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


def _leads_to(trace: TraceRecord, record: Pass, leaf: Leaf) -> bool:
    return any(leaf.name in node.variables for node in trace.graphs[record.graph].leaves)
