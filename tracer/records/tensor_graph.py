"""The graph as torchviz draws it: tensors, and the functions that lead from one to another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class TensorRole(str, Enum):
    """What a box stands for: a backward function, a leaf that requires grad, a tensor that is kept
    for backward, an output that was asked about, or the base that one is a view of."""

    FUNCTION = "function"
    LEAF = "leaf"
    SAVED = "saved"
    OUTPUT = "output"
    BASE = "base"


class LinkKind(str, Enum):
    """What a line says: a function uses what another one or a leaf gives, keeps a tensor for
    backward, an output is a view of a base, or two boxes show the same memory."""

    FLOW = "flow"
    SAVED = "saved"
    VIEW = "view"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class TensorBox:
    """A box, named once or, where a tensor is both output and leaf, twice; the last name counts."""

    id: str
    role: TensorRole
    label: str


@dataclass(frozen=True, slots=True)
class TensorLink:
    """A line between two boxes, in the direction of the forward computation."""

    source: str
    target: str
    kind: LinkKind = LinkKind.FLOW


@dataclass(frozen=True, slots=True)
class TensorGraph:
    """Boxes and links in the order in which torchviz would write them."""

    parts: tuple[TensorBox | TensorLink, ...]
