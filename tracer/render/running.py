"""A pass as it is told in; what arrived at its nodes so far, and what they sent, in words, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from tracer.records import words
from tracer.records.events import Pass
from tracer.records.graph import Graph, Node
from tracer.records.tensors import Gradient
from tracer.records.told import NOTHING, Told, of_parts, told, total

_LONGEST_NAME = 24
_RECEIVED = 16
"""How many columns there are for what a node received, before what it sent."""


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


class GraphWords:
    """What to call each node of a graph, where to say that it is, and which nodes gather sums."""

    def __init__(self, graph: Graph) -> None:
        self.titles = words.Titles(graph)
        self.wheres = Wheres(graph, self.titles)
        self.gathers = frozenset(_with_several(graph))
        """The nodes that have an input to which several edges lead."""


def _with_several(graph: Graph) -> Iterator[int]:
    seen: set[tuple[int, int]] = set()
    for edge in graph.edges:
        place = edge.target, edge.input_nr
        if place in seen:
            yield edge.target
        seen.add(place)


class Running:
    """A pass while it is told: its graph and what has arrived so far where several things do."""

    def __init__(self, record: Pass, graph: Graph, said: GraphWords) -> None:
        self.record = record
        self.graph = graph
        self.titles, self.wheres = said.titles, said.wheres
        self.steps = 0
        self.headed = False
        self._watched = set(said.gathers)
        self._arriving: dict[tuple[int, int], list[Told]] = {}
        self._hooked: set[tuple[int, int]] = set()
        self._told: dict[int, tuple[Gradient, Told]] = {}

    def has(self, node: int) -> bool:
        """Whether there is a node of that number; in a damaged file there may not be."""
        return node < len(self.graph.nodes)

    def seed(self, node: int, input_nr: int, seed: Gradient) -> None:
        """Note what the backward call was given for a root."""
        self._watched.add(node)
        self._arriving.setdefault((node, input_nr), []).append(told(seed))

    def hook_ran(self, node: int, input_nr: int) -> None:
        """Note that a hook saw what arrives at an input of a node."""
        self._watched.add(node)
        self._hooked.add((node, input_nr))

    def tell(self, gradient: Gradient | None) -> Told | None:
        """Tell a gradient: what a node sent is told once, and again to the node that receives it.

        It is held, so that its id stays its own.
        """
        if gradient is None:
            return None
        known = self._told.get(id(gradient))
        if known is None:
            known = self._told[id(gradient)] = gradient, told(gradient)
        return known[1]

    def node_words(
        self,
        number: int,
        received: Sequence[Told | None],
        returned: Sequence[Told | None],
        *,
        ended: bool,
    ) -> tuple[str, bool]:
        """`in 1   → x1 1`: what a node received and sent; and whether any of it is NaN or Inf.

        Also notes what arrives where it leads.
        """
        if len(received) == 1 and number not in self._watched:
            text = f"in {_text(received[0])}"
        else:
            text = self._received(number, received)
        if not ended:
            return f"{text}   raised", True
        said = [text if len(text) >= _RECEIVED else words.padded(text, _RECEIVED)]
        nodes = self.graph.nodes
        source = nodes[number]
        for edge in self.graph.edges_from[number]:
            target, slot = edge.target, edge.slot
            sent = returned[slot] if slot < len(returned) else None
            if sent is not None and target in self._watched:
                self._arriving.setdefault((target, edge.input_nr), []).append(sent)
            said.append(f"→ {_short_name(source, nodes[target])} {_text(sent)}")
        wrong = False
        for one in received:
            if one is not None and one[2]:
                wrong = True
        for one in returned:
            if one is not None and one[2]:
                wrong = True
        return "   ".join(said), wrong

    def _received(self, number: int, received: Sequence[Told | None]) -> str:
        """`in 5 = 1 + 4`, `in 1`; of several inputs those that something arrived at."""
        if len(received) == 1:
            return f"in {self._arrived(number, 0, received[0])}"
        return (
            "  ".join(
                f"in[{input_nr}] {self._arrived(number, input_nr, one)}"
                for input_nr, one in enumerate(received)
                if one is not None
            )
            or "in None"
        )

    def _arrived(self, node: int, input_nr: int, one: Told | None) -> str:
        text, place = _text(one), (node, input_nr)
        if place in self._hooked:
            return f"{text} after hooks"
        parts = self._arriving.get(place)
        return text if parts is None or len(parts) == 1 else f"{text}{of_parts(parts)}"

    def accumulate_words(
        self, node: int, before: Told | None, incoming: Told | None, after: Told | None
    ) -> str:
        """`None → 2`, and what added up before that."""
        text = accumulate_words(before, incoming, after)
        parts = self._arriving.get((node, 0), ()) if node in self._watched else ()
        return f"{text}   receives {total(parts, incoming or NOTHING)}" if len(parts) > 1 else text


def accumulate_words(before: Told | None, incoming: Told | None, after: Told | None) -> str:
    """`None → 2`, of a leaf in a pass that is not known."""
    return words.added(None if before is None else before[0], _text(incoming), _text(after))


def _text(one: Told | None) -> str:
    return "None" if one is None else one[0]


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
