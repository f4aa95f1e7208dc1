"""A pass as it is told in; what arrived at its nodes so far, and what they sent, in words, out."""

from __future__ import annotations

from collections.abc import Sequence

from tracer.records import words
from tracer.records.events import Pass
from tracer.records.tensors import Gradient
from tracer.records.told import NOTHING, Told, of_parts, told, total
from tracer.render.graph_words import GraphWords

_RECEIVED = 16
"""How many columns there are for what a node received, before what it sent."""


class Running:
    """A pass while it is told: its graph and what has arrived so far where several things do."""

    def __init__(self, record: Pass, said: GraphWords) -> None:
        self.record = record
        self.said = said
        self.steps = 0
        self.headed = False
        self._watched = set(said.gathers)
        self._arriving: dict[tuple[int, int], list[Told]] = {}
        self._hooked: set[tuple[int, int]] = set()
        self._told: dict[int, tuple[Gradient, Told]] = {}

    def has(self, node: int) -> bool:
        """Whether there is a node of that number; in a damaged file there may not be."""
        return node < len(self.said)

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
        ended: bool,
        received: Sequence[Told | None],
        returned: Sequence[Told | None],
    ) -> tuple[str, bool]:
        """`in 1   → x1 1`: what a node received and sent; and whether any of it is NaN or Inf.

        Also notes what arrives where it leads.
        """
        if len(received) == 1 and number not in self._watched:
            only = received[0]
            text = f"in {'None' if only is None else only[0]}"
        else:
            text = self._received(number, received)
        if not ended:
            return f"{text}   raised", True
        said, is_wrong = [words.padded(text, _RECEIVED)], False
        known = self.said
        targets, names, variables_of = known.targets, known.names, known.variables_of
        at = known.starts[number]
        slots = known.starts[number + 1] - at
        for sent in returned if len(returned) == slots else _as_many(returned, slots):
            target = targets[at] - 1
            if target >= 0:
                name = names[variables_of[target]]
                if name is None:
                    name = known.unnamed(number, target)
                if sent is None:
                    said.append(f"→ {name} None")
                else:
                    said.append(f"→ {name} {sent[0]}")
                    if target in self._watched:
                        place = target, known.input_nrs[at]
                        self._arriving.setdefault(place, []).append(sent)
            at += 1
        for one in (*received, *returned):
            if one is not None and one[2]:
                is_wrong = True
        return "   ".join(said), is_wrong

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
    """`None → 2`: what was added to a `.grad`, and what became of it."""
    return words.added(None if before is None else before[0], _text(incoming), _text(after))


def _text(one: Told | None) -> str:
    return "None" if one is None else one[0]


def _as_many(entries: Sequence[Told | None], count: int) -> Sequence[Told | None]:
    """So many entries, those that are missing None."""
    return [*entries[:count], *[None] * (count - len(entries))]
