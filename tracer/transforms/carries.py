"""A folding in; the boxes and arrows that lead from one repetition of a group to the next, out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tracer.records import words
from tracer.records.diagram import Arrow, Box, Line, LineRole, Role
from tracer.records.graph import Edge
from tracer.transforms.chains import Chains
from tracer.transforms.folding import Folding
from tracer.transforms.joint_arrows import joint_arrow
from tracer.transforms.scene import Scene
from tracer.transforms.tallies import norms_of

_LONGEST_NAME = 40


class Carries:
    """What repetitions hand to one another, without arrows back up the page: a box at the end of
    the repetition, for each box of the next one that something goes to, and a line in that box.

    `inside` names these boxes by the group that repeats.
    """

    def __init__(self, scene: Scene, folding: Folding, chains: Chains) -> None:
        self.boxes: list[Box] = []
        self.arrows: list[Arrow] = []
        self.inside: dict[int, list[str]] = defaultdict(list)
        self._scene = scene
        self._folding = folding
        self._arriving: dict[int, list[Edge]] = defaultdict(list)
        ways: dict[tuple[int, int], str] = {}
        for joined in folding.edges:
            if joined.carried:
                around = self._around(joined.source, joined.target)
                if (around, joined.target) not in ways:
                    ways[around, joined.target] = self._add_way(around, joined.target)
                way = ways[around, joined.target]
                self._arriving[joined.target] += joined.members
                for (door, _), edges in chains.by_doors(joined.members).items():
                    arrow = joint_arrow(scene, (door, way), edges, carried=True)
                    self.arrows.append(arrow)

    def lines_of(self, group: int) -> list[Line]:
        """What a group's box receives from the repetition before."""
        edges = self._arriving.get(group)
        if not edges:
            return []
        norms = norms_of(map(self._scene.flowed, edges))
        return [Line(LineRole.NOTE, f"↻ {norms.text or 'nothing'} from the one before")]

    def _add_way(self, around: int, target: int) -> str:
        """Add the box that stands for what goes to one box of the next repetition."""
        number = f"c{len(self.boxes)}"
        count = len(self._folding.groups[around].blocks)
        name = words.shorten(self._name(target), _LONGEST_NAME)
        text = f"↻ next of {count:,}: {name}"
        tooltip = f"what each of the {count:,} but the last hands on to {self._name(target)}"
        self.boxes.append(Box(number, Role.CARRY, (Line(LineRole.DETAIL, text),), tooltip=tooltip))
        self.inside[around].append(number)
        return number

    def _name(self, group: int) -> str:
        shown = self._folding.groups[group]
        if shown.main is None or shown.cls:
            return shown.label
        place = shown.blocks[0].index(shown.main)
        return self._scene.titles.shared([block[place] for block in shown.blocks])

    def _around(self, source: int, target: int) -> int:
        """Find the innermost group around both boxes: the one that repeats."""
        outwards = set(self._ancestors(source))
        return next(group for group in self._ancestors(target) if group in outwards)

    def _ancestors(self, group: int) -> Sequence[int]:
        found = []
        parent = self._folding.groups[group].parent
        while parent is not None:
            found.append(parent)
            parent = self._folding.groups[parent].parent
        return found
