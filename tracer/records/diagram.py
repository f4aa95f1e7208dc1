"""What a picture says, before any layout or format: boxes and arrows with meaning and words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Role(str, Enum):
    """What a box stands for; `carry` is the way to the next repetition of what is around it."""

    OPERATION = "operation"
    LEAF = "leaf"
    HOOK = "hook"
    CUSTOM = "custom"
    WRAPPER = "wrapper"
    COMPILED = "compiled"
    SEED = "seed"
    CUT = "cut"
    FOLDED = "folded"
    CARRY = "carry"


class LineRole(str, Enum):
    """What a line of a box says: `title` its own text, `detail` what it is, `sum` how contributions
    add up, `grad` what became of a `.grad`, `leaf` that of a parameter which has no box of its own,
    `hook` what a hook did, `note` what else to know, `alarm` what is wrong."""

    TITLE = "title"
    DETAIL = "detail"
    SUM = "sum"
    GRAD = "grad"
    LEAF = "leaf"
    HOOK = "hook"
    NOTE = "note"
    ALARM = "alarm"


class State(str, Enum):
    """What draws a reader's eye, or lets it pass: `wrong` (NaN, Inf or an exception), `zero` (the
    gradient is exactly zero), `idle` (the pass did not run it)."""

    NORMAL = "normal"
    WRONG = "wrong"
    ZERO = "zero"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text in a box."""

    role: LineRole
    text: str


@dataclass(frozen=True, slots=True)
class Box:
    """A thing in the picture. `id` is letters, digits and `_` only, and unique in the diagram.

    `step` is when it ran, counted from 1 over all nodes and hooks of the pass; `nodes` are those of
    the graph that it stands for; `link` is `file:line`; `magnitude` the norm of what it received.
    A folded box holds `count` nodes and stands for `repeat` equal blocks. `shade` is the one of the
    diagram's legend that its colour has.
    """

    id: str
    role: Role
    lines: tuple[Line, ...]
    step: int | None = None
    nodes: tuple[int, ...] = ()
    tooltip: str = ""
    link: str = ""
    state: State = State.NORMAL
    magnitude: float | None = None
    count: int = 1
    repeat: int = 1
    shade: int | None = None


class Flow(str, Enum):
    """What an arrow means: a gradient that `flows`, or is `carried` from one repetition of a folded
    block to the next, a `part` of the graph where none flowed in this pass, or a `cut`: history
    that was lost, so that no gradient can flow."""

    FLOWS = "flows"
    CARRIED = "carried"
    PART = "part"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Arrow:
    """A line between two boxes, pointing the way gradients flow; `text` is the contribution.

    `magnitude` is the L2 norm of what flowed; `count` how many edges of the graph it stands for.
    """

    source: str
    target: str
    text: str = ""
    flow: Flow = Flow.FLOWS
    tooltip: str = ""
    state: State = State.NORMAL
    magnitude: float | None = None
    count: int = 1


class RegionRole(str, Enum):
    """Why boxes stand together: a `module` they ran in, a `group` of a function, loop or repeated
    sequence, or a `cut` they ran behind."""

    MODULE = "module"
    GROUP = "group"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Region:
    """Boxes and regions that stand together: `title` (`encoder.layers.0`), `detail` (its class)."""

    id: str
    role: RegionRole
    title: str
    detail: str = ""
    boxes: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    tooltip: str = ""
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class Title:
    """Which call the picture is of: its source text, `facts` (place, pass, counts, time), and how
    it failed, if it did."""

    call: str
    facts: tuple[str, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Shade:
    """One shade of boxes, and what it stands for: `0.1 – 0.4`, or a module's name."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Legend:
    """What boxes are coloured by; `ordered` shades go from little to much."""

    measure: str
    shades: tuple[Shade, ...]
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class Diagram:
    """A picture's content. `notes` say what the marks that appear mean and what was left out."""

    title: Title
    boxes: tuple[Box, ...] = ()
    arrows: tuple[Arrow, ...] = ()
    regions: tuple[Region, ...] = ()
    notes: tuple[str, ...] = ()
    legend: Legend | None = None
