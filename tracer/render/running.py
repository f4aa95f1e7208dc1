"""A pass as it is told in; what arrived at its nodes so far, and what they sent, in words, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from tracer.records import words
from tracer.records.events import NodeRun, Pass
from tracer.records.graph import Graph, Node
from tracer.records.tensors import Gradient


class Wheres:
    """Where each node is: in the source, or in its module where one place led to several."""

    def __init__(self, graph: Graph, titles: words.Titles) -> None:
        self._nodes = graph.nodes
        self._titles = titles
        self._led_to_several: set[int] = set()
        paths: dict[int, str] = {}
        for node in graph.nodes:
            if node.site is not None and node.module is not None:
                site, path = node.site.id, node.module.path
                if paths.setdefault(site, path) != path:
                    self._led_to_several.add(site)

    def __getitem__(self, number: int) -> str:
        node = self._nodes[number]
        several = node.site is not None and node.site.id in self._led_to_several
        if several and node.module is not None and node.module.path:
            return node.module.path
        return self._titles.where(number)


@dataclass(slots=True)
class Running:
    """A pass while it is told: its graph and what has arrived at each input so far."""

    record: Pass
    graph: Graph
    titles: words.Titles
    wheres: Wheres
    steps: int = 0
    headed: bool = False
    arriving: dict[tuple[int, int], list[Gradient | None]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    """Of what arrives, which is said where it is sent and again where it is received."""
    hooked: set[tuple[int, int]] = field(default_factory=set)


def received_words(running: Running, event: NodeRun) -> str:
    """`in 5 = 1 + 4`, `in 1`; of several inputs those that something arrived at."""
    received = event.received
    if len(received) == 1:
        return _received(running, event.node, 0, received[0], "in")
    return (
        "  ".join(
            _received(running, event.node, number, gradient, f"in[{number}]")
            for number, gradient in enumerate(received)
            if gradient is not None
        )
        or "in None"
    )


def _received(
    running: Running, node: int, input_nr: int, gradient: Gradient | None, name: str
) -> str:
    key = node, input_nr
    text = running.texts.get(id(gradient)) or words.tensor(gradient)
    if key in running.hooked:
        return f"{name} {text} after hooks"
    parts = running.arriving.get(key, ())
    return f"{name} {text}{words.of_parts(parts)}" if len(parts) > 1 else f"{name} {text}"


def returned_words(running: Running, event: NodeRun) -> Sequence[str]:
    """`→ x1 1` for each edge; also notes what arrives where it leads."""
    texts = []
    returned, nodes = event.returned, running.graph.nodes
    source = nodes[event.node]
    for edge in running.graph.edges_from[event.node]:
        gradient = returned[edge.slot] if edge.slot < len(returned) else None
        text = words.tensor(gradient)
        if gradient is not None:
            running.arriving.setdefault((edge.target, edge.input_nr), []).append(gradient)
            running.texts[id(gradient)] = text
        texts.append(f"→ {_short_name(source, nodes[edge.target])} {text}")
    return texts


def _short_name(source: Node, target: Node) -> str:
    """What to call the node an edge leads to: of the same expression's nodes, what they do."""
    name = ", ".join(target.variables)
    site = target.site
    if not name and site is not None and site is not source.site and site != source.site:
        name = site.expression
    return _short(name or words.op_name(target))


@lru_cache(maxsize=4096)
def _short(name: str) -> str:
    return words.shorten(name, 24)
