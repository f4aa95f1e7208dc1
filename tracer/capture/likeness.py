"""A backward call's roots in, torchviz's own drawing of them out, its nodes renamed by our ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchviz import make_dot

from tracer.capture import structure

_NODE = re.compile(r'"?(?<![\w.])(\d{6,})"?(?![\w.])')


def draw_likeness(outputs: Sequence[Any], walk: structure.Walk) -> tuple[str, str]:
    """torchviz's DOT for the roots, and why there is none where it failed.

    torchviz names its boxes by `id()`: of the node, or of the tensor for a leaf or root. They
    become `n<id>` for a node, `v<id>` for the leaf of that `AccumulateGrad`, and
    `r<k>` for the k-th root.
    """
    roots = tuple(output for output in outputs if isinstance(output, Tensor))
    try:
        source = str(make_dot(roots if len(roots) > 1 else roots[0]).source)
    except RecursionError:
        return "", "torchviz gave up: its walk is recursive and this graph is too deep for it"
    except Exception as error:
        return "", f"torchviz could not draw this graph ({type(error).__name__}: {error})"
    names = {str(id(fn)): f"n{number}" for number, fn in enumerate(walk.fns)}
    for number, fn in enumerate(walk.fns):
        leaf = getattr(fn, "variable", None)
        if isinstance(leaf, Tensor):
            names[str(id(leaf))] = f"v{number}"
    for k, root in enumerate(roots):
        names.setdefault(str(id(root)), f"r{k}")
    return _NODE.sub(lambda found: names.get(found.group(1), found.group()), source), ""
