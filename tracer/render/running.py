"""A pass as it is told in; what arrived at its nodes so far, and what they sent, in words, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from tracer.records import words
from tracer.records.events import NodeRun, Pass
from tracer.records.graph import Graph, Node
from tracer.records.tensors import Gradient

_LONGEST_NAME = 24


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

    def tell(self, gradient: Gradient | None) -> str:
        """What a gradient holds, in words that are known where a node sent it before."""
        return self.texts.get(id(gradient)) or words.tensor(gradient)


def received_words(running: Running, event: NodeRun) -> str:
    """`in 5 = 1 + 4`, `in 1`; of several inputs those that something arrived at."""
    received = event.received
    if len(received) == 1:
        return f"in {_received(running, event.node, 0, received[0])}"
    return (
        "  ".join(
            f"in[{number}] {_received(running, event.node, number, gradient)}"
            for number, gradient in enumerate(received)
            if gradient is not None
        )
        or "in None"
    )


def _received(running: Running, node: int, input_nr: int, gradient: Gradient | None) -> str:
    text, place = running.tell(gradient), (node, input_nr)
    if place in running.hooked:
        return f"{text} after hooks"
    parts = running.arriving.get(place)
    return text if parts is None or len(parts) == 1 else f"{text}{words.of_parts(parts)}"


def returned_words(running: Running, event: NodeRun) -> Sequence[str]:
    """`→ x1 1` for each edge; also notes what arrives where it leads."""
    said = []
    returned, nodes, texts = event.returned, running.graph.nodes, running.texts
    source = nodes[event.node]
    for edge in running.graph.edges_from[event.node]:
        target, slot = edge.target, edge.slot
        gradient = returned[slot] if slot < len(returned) else None
        text = "None"
        if gradient is not None:
            number = id(gradient)
            text = texts.get(number) or words.tensor(gradient)
            texts[number] = text
            running.arriving.setdefault((target, edge.input_nr), []).append(gradient)
        said.append(f"→ {_short_name(source, nodes[target])} {text}")
    return said


def _short_name(source: Node, target: Node) -> str:
    """What to call the node an edge leads to: of the same expression's nodes, what they do."""
    variables, site = target.variables, target.site
    if variables and variables != ("",):
        name = variables[0] if len(variables) == 1 else ", ".join(variables)
    elif site is None or site is source.site or site == source.site:
        name = words.op_name(target)
    else:
        name = site.expression or words.op_name(target)
    if len(name) <= _LONGEST_NAME and name.isprintable():
        return name.strip(" ")
    return _short(name)


@lru_cache(maxsize=4096)
def _short(name: str) -> str:
    return words.shorten(name, _LONGEST_NAME)
