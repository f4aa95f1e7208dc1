"""A pass and a name in; what every tensor of that name received in the pass out."""

from __future__ import annotations

from tracer.records import words
from tracer.records.graph import Graph, Node
from tracer.records.passes import view_pass
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord
from tracer.transforms.find import find_nodes


def gradients(trace: TraceRecord, pass_id: int, name: str = "") -> dict[str, Gradient | None]:
    """What the tensors that a name means received in a pass, by what they are called.

    It is what `retain_grad()` gives: what arrived, after hooks; of a leaf what was added to its
    `.grad`. Without a name all that have one, in the order in which the pass ran them. None stands
    for one that received nothing. Raises NotInTraceError where nothing is called so.
    """
    view = view_pass(trace, pass_id)
    ran = {node: run.order for node, run in view.runs.items()}
    ran |= {node: accumulate.order for node, accumulate in view.accumulates.items()}
    found = find_nodes(view.graph, name) if name else _with_names(view.graph)
    found = tuple(sorted(found, key=lambda node: ran.get(node, len(view.graph.nodes) + node)))
    told: dict[str, Gradient | None] = {}
    for number in found:
        node = view.graph.nodes[number]
        for place, title in enumerate(_titles(node)):
            key = title if title not in told else f"{title} (node {number})"
            told[key] = view.received(number, place)
    return told


def _with_names(graph: Graph) -> tuple[int, ...]:
    return tuple(node.id for node in graph.nodes if node.variables)


def _titles(node: Node) -> tuple[str, ...]:
    """The names of a node's outputs, or what to call its only one."""
    return words.names_of(node) or (words.node_title(node),)
