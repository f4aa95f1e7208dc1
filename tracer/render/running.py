"""A pass as it is told in; what arrived at its nodes so far, and what they sent, in words, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tracer.records import words
from tracer.records.events import NodeRun, Pass
from tracer.records.graph import Graph, Node
from tracer.records.tensors import Gradient


@dataclass(slots=True)
class Running:
    """A pass while it is told: its graph and what has arrived at each input so far."""

    record: Pass
    graph: Graph
    titles: tuple[str, ...]
    wheres: tuple[str, ...]
    steps: int = 0
    headed: bool = False
    arriving: dict[tuple[int, int], list[Gradient | None]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    """Of what arrives, which is said where it is sent and again where it is received."""
    hooked: set[tuple[int, int]] = field(default_factory=set)


def received_words(running: Running, event: NodeRun) -> str:
    """`in 5 = 1 + 4`, `in 1`; of several inputs those that something arrived at."""
    texts = []
    several = len(event.received) > 1
    for input_nr, gradient in enumerate(event.received):
        if several and gradient is None:
            continue
        key = event.node, input_nr
        number = f"[{input_nr}]" if several else ""
        text = f"in{number} {running.texts.get(id(gradient)) or words.tensor(gradient)}"
        parts = running.arriving.get(key, ())
        if key in running.hooked:
            text += " after hooks"
        elif len(parts) > 1:
            text += words.of_parts(parts)
        texts.append(text)
    return "  ".join(texts) or "in None"


def returned_words(running: Running, event: NodeRun) -> Sequence[str]:
    """`→ x1 1` for each edge; also notes what arrives where it leads."""
    texts = []
    for edge in running.graph.edges_from[event.node]:
        gradient = event.returned[edge.slot] if edge.slot < len(event.returned) else None
        text = words.tensor(gradient)
        if gradient is not None:
            running.arriving.setdefault((edge.target, edge.input_nr), []).append(gradient)
            running.texts[id(gradient)] = text
        name = _short_name(running.graph.nodes[event.node], running.graph.nodes[edge.target])
        texts.append(f"→ {name} {text}")
    return texts


def _short_name(source: Node, target: Node) -> str:
    """What to call the node an edge leads to: of the same expression's nodes, what they do."""
    name = ", ".join(target.variables)
    site = target.site
    if not name and site is not None and site is not source.site and site != source.site:
        name = site.expression
    return words.shorten(name or words.op_name(target), 24)
