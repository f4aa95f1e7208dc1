"""A tree of blocks in; the modules in it that are one operation with its parameters, out."""

from __future__ import annotations

from tracer.transforms.levels import GroupKind
from tracer.transforms.nest import Block, in_preorder

_MOST_PARAMETERS = 4


def find_layers(root: Block, first_leaf: int) -> dict[Block, Block]:
    """Find the modules of one operation and a few leaves (`Linear`, `LayerNorm`), and that
    operation's block: a picture says all of such a module in one box."""
    layers = {}
    for block in in_preorder(root):
        operations = [child for child in block.children if child.unit < first_leaf]
        parameters = len(block.children) - len(operations)
        small = len(operations) == 1 and 0 < parameters <= _MOST_PARAMETERS
        if block.level.kind is GroupKind.MODULE and small and operations[0].unit >= 0:
            layers[block] = operations[0]
    return layers
