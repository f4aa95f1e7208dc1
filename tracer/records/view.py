"""What a reader asks of a picture: how much of a graph, which part, coloured by what."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from tracer.errors import TracerError

SHOWN = ("views", "accumulate", "saved")
COLORS = ("norm", "time", "module", "zeros", "none")
DIRECTIONS = ("TB", "BT", "LR", "RL")


@dataclass(frozen=True, slots=True)
class View:
    """What to show of a pass, and how; `View()` is the whole graph, folded to what one can read.

    How much: `budget` is the most boxes to show. `depth` opens groups that many levels deep
    instead, whatever their number. `expand` names groups to open in any case: a module's path, a
    function (`step()`) or `file:line`. `fold` False gives every node a box. `show` names what is
    not folded away: `views`, `accumulate` (a small module's parameters), `saved` tensors.

    Which part: what is at most `radius` edges from `focus`, or all between the two ends of `path`,
    or `upstream` or `downstream` of a place. A place is a node's id or name, a variable, a module's
    path or `file:line`.

    How: `color` fills boxes by gradient `norm`, `time`, `module` or `zeros`, or `none`; by default
    by norm where the picture is a folded one. Gradients flow in `direction`, as Graphviz's
    `rankdir` has it. Raises TracerError for a value that none of this can mean.
    """

    budget: int = 60
    depth: int | None = None
    expand: tuple[str, ...] = ()
    fold: bool = True
    show: frozenset[str] = frozenset()
    focus: str = ""
    radius: int = 2
    path: tuple[str, str] | None = None
    upstream: str = ""
    downstream: str = ""
    color: str = ""
    direction: str = "TB"

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise TracerError(
                f"a picture of {self.budget} boxes is empty; give a budget of 1 or more"
            )
        if self.depth is not None and self.depth < 0:
            raise TracerError(f"depth {self.depth} is below the outermost level; give 0 or more")
        if self.radius < 0:
            raise TracerError(f"nothing is {self.radius} edges away; give a radius of 0 or more")
        for shown in sorted(self.show):
            _check(shown, SHOWN, "show")
        if self.color:
            _check(self.color, COLORS, "color by")
        _check(self.direction, DIRECTIONS, "draw in direction")
        parts = (self.focus, self.path, self.upstream, self.downstream)
        if sum(map(bool, parts)) > 1:
            raise TracerError(
                "a picture shows one part: choose one of focus, path, upstream and downstream"
            )


def _check(given: str, known: tuple[str, ...], what: str) -> None:
    if given in known:
        return
    close = get_close_matches(given, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}"
    raise TracerError(f"cannot {what} {given!r}; {hint}")
