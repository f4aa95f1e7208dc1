"""A graph of tensors and functions in, torchviz's picture of it as a `graphviz.Digraph` out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NoReturn

import graphviz

from tracer.records.tensor_graph import LinkKind, TensorBox, TensorGraph, TensorRole
from tracer.render.picture import draw_dot

_FILLS = {
    TensorRole.FUNCTION: {},
    TensorRole.LEAF: {"fillcolor": "lightblue"},
    TensorRole.SAVED: {"fillcolor": "orange"},
    TensorRole.OUTPUT: {"fillcolor": "darkolivegreen1"},
    TensorRole.BASE: {"fillcolor": "darkolivegreen3"},
}
_LINES = {
    LinkKind.FLOW: {},
    LinkKind.SAVED: {"dir": "none"},
    LinkKind.VIEW: {"style": "dotted"},
    LinkKind.SAME: {"style": "dotted", "dir": "none", "constraint": "false"},
}
_NODES = {
    "style": "filled", "shape": "box", "align": "left", "fontsize": "10", "ranksep": "0.1",
    "height": "0.2", "fontname": "monospace",
}  # fmt: skip
_LEAST_INCHES = 12.0
_INCHES_A_STATEMENT = 0.15
_ONE_HOUR_S = 3600.0


def make_dot_from_trace(trace: object) -> NoReturn:
    """Raise NotImplementedError, as torchviz's function of that name does: programs import both."""
    raise NotImplementedError(
        "neither torchviz nor tracer draws a trace of torch.jit: make_dot(model(x)) draws the "
        "graph that the model's output has"
    )


class FamiliarDigraph(graphviz.Digraph):  # type: ignore[misc]
    """A `graphviz.Digraph` that shows, pipes and renders itself without a `dot` on PATH too."""

    def pipe(self, format: str | None = None, *args: Any, **more: Any) -> bytes | str:
        """The picture in memory, as `graphviz.Digraph.pipe` gives it."""
        if _has_dot():
            piped: bytes | str = super().pipe(format, *args, **more)
            return piped
        data = draw_dot(str(self.source), format or self.format, timeout_s=_ONE_HOUR_S).data
        encoding = more.get("encoding")
        return data.decode(encoding) if encoding else data

    def render(self, filename: Any = None, *args: Any, **more: Any) -> str:
        """Write the picture beside its DOT text, as `graphviz.Digraph.render` does."""
        if _has_dot():
            return str(super().render(filename, *args, **more))
        saved = self.save(filename, directory=more.get("directory"))
        format = more.get("format") or self.format
        rendered = Path(more.get("outfile") or f"{saved}.{format}")
        data = draw_dot(str(self.source), format, timeout_s=_ONE_HOUR_S).data
        rendered.write_bytes(data)
        if more.get("cleanup"):
            Path(saved).unlink()
        if more.get("view"):
            self._view(str(rendered), format=format, quiet=True)
        return str(rendered)


def _has_dot() -> bool:
    return shutil.which("dot") is not None


def to_digraph(graph: TensorGraph) -> graphviz.Digraph:
    """Write a graph with torchviz's colours; no label in it is read as an order."""
    dot = FamiliarDigraph(node_attr=_NODES)
    for part in graph.parts:
        if isinstance(part, TensorBox):
            dot.node(part.id, graphviz.escape(part.label), **_FILLS[part.role])
        else:
            dot.edge(part.source, part.target, **_LINES[part.kind])
    inches = max(_LEAST_INCHES, len(dot.body) * _INCHES_A_STATEMENT)
    dot.graph_attr["size"] = f"{inches:g},{inches:g}"
    return dot
