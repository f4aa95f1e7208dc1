"""A pass that torchviz drew in, its drawing out, with our values written on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import graphviz

from tracer.errors import RenderError
from tracer.records import words
from tracer.records.graph import Edge
from tracer.records.passes import PassView, view_pass
from tracer.records.tensors import Gradient
from tracer.records.told import of_parts, told
from tracer.records.trace import TraceRecord

_NAME = r'(?:"(?:[^"\\]|\\.)*"|[\w.]+)'
_STATEMENT = re.compile(rf"\t({_NAME})(?: -> ({_NAME}))?(?: \[((?:{_NAME}={_NAME}\s*)*)\])?\n")
_ATTRIBUTE = re.compile(rf"({_NAME})=({_NAME})")
_OURS = re.compile(r"[nvr]\d+")
_KEPT = ("fillcolor", "style", "dir")
_DEFAULTS = ("graph", "node", "edge")


@dataclass(frozen=True, slots=True)
class _Statement:
    """One line of torchviz's DOT: a box, or an arrow to `target`; its label, and how it looks."""

    name: str
    target: str
    label: str
    look: tuple[tuple[str, str], ...]


def torchviz_dot(trace: TraceRecord, pass_id: int) -> str:
    """Write what happened in a pass on torchviz's drawing of its graph, as DOT.

    Its shape and colours are kept: arrows point forward, from leaves to roots, and the number at an
    arrow is the gradient that came back over it. Raises `NotInTraceError` for a missing pass, and
    `RenderError` for one that torchviz did not draw.
    """
    view = view_pass(trace, pass_id)
    if not view.record.torchviz:
        raise RenderError(_why_not(trace, pass_id))
    drawing = graphviz.Digraph(
        graph_attr={
            "label": _escaped(_title(view)), "labelloc": "t", "fontname": "monospace",
            "fontsize": "11",
        },
        node_attr={
            "style": "filled", "shape": "box", "align": "left", "fontsize": "10",
            "ranksep": "0.1", "height": "0.2", "fontname": "monospace",
        },
        edge_attr={"fontsize": "9", "fontname": "monospace", "fontcolor": "#0a58ca"},
    )  # fmt: skip
    values = _Values(trace, view)
    names = _Names()
    for statement in _statements(view.record.torchviz):
        look = dict(statement.look)
        if statement.target:
            label = values.on_arrow(statement.name, statement.target)
            ends = names.of(statement.name), names.of(statement.target)
            drawing.edge(*ends, label=_escaped(label) or None, **look)
        else:
            lines = values.in_box(statement.name, statement.label.strip())
            drawing.node(names.of(statement.name), label=_escaped("\n".join(lines)), **look)
    return str(drawing.source)


def _why_not(trace: TraceRecord, pass_id: int) -> str:
    reasons = [reason for reason in trace.dropped if "torchviz" in reason]
    if reasons:
        return f"torchviz has no drawing of pass {pass_id}: {reasons[0]}"
    return (
        f"torchviz was not asked to draw pass {pass_id}: record with tracer run --torchviz, "
        "or trace(torchviz=True)"
    )


def _statements(dot: str) -> Iterator[_Statement]:
    """Read the statements that torchviz's DOT consists of; anything else is left out."""
    for name, target, attributes in _STATEMENT.findall(dot):
        if name in _DEFAULTS:
            continue
        found = {key: _unquoted(value) for key, value in _ATTRIBUTE.findall(attributes)}
        look = tuple((key, found[key]) for key in _KEPT if key in found)
        yield _Statement(_unquoted(name), _unquoted(target), found.get("label", ""), look)


def _unquoted(text: str) -> str:
    return text[1:-1].replace('\\"', '"') if text.startswith('"') else text


def _escaped(text: str) -> str:
    """Text for a label: lines stay, and nothing in it is an escape or, being `<…>`, markup."""
    lines = [str(graphviz.escape(words.one_line(line))) for line in text.split("\n")]
    label: str = graphviz.nohtml("\\n".join(lines))
    return label


class _Names:
    """The names of boxes: ours as they are, torchviz's others (`id()`s) numbered as they come."""

    def __init__(self) -> None:
        self._others: dict[str, str] = {}

    def of(self, name: str) -> str:
        if _OURS.fullmatch(name):
            return name
        return self._others.setdefault(name, f"t{len(self._others)}")


class _Values:
    """What to write on torchviz's boxes and arrows."""

    def __init__(self, trace: TraceRecord, view: PassView) -> None:
        self._trace = trace
        self._view = view
        self._titles = words.Titles(view.graph)
        self._edges: dict[tuple[str, str], list[Edge]] = {}
        for edge in reversed(view.graph.edges):
            self._edges.setdefault((f"n{edge.target}", f"n{edge.source}"), []).append(edge)

    def in_box(self, name: str, label: str) -> Iterator[str]:
        """The lines of a box: torchviz's own label, and ours."""
        kind, number = (name[0], int(name[1:])) if _OURS.fullmatch(name) else ("", 0)
        if kind == "v":
            yield self._titles[number]
        elif kind == "r":
            yield from self._root_name(number)
        yield label
        if kind == "v":
            yield from self._at_leaf(number)
        elif kind == "n":
            yield from self._at_node(number)

    def _at_node(self, number: int) -> Iterator[str]:
        view, node = self._view, self._view.graph.nodes[number]
        event = view.runs.get(number) or view.accumulates.get(number)
        if event is None:
            yield "not run in this pass"
            return
        step = f"#{view.steps[event.seq]}"
        if node.is_leaf:
            yield step
            return
        if node.site is not None and node.site.text:
            yield words.shorten(self._titles[number], 40)
        parts = [told(part.gradient) for part in view.arriving(number)]
        total = of_parts(parts) if len(parts) > 1 else ""
        yield f"{step}  in {words.tensor(view.received(number))}{total}"

    def _at_leaf(self, number: int) -> Iterator[str]:
        event = self._view.accumulates.get(number)
        if event is not None:
            yield f".grad {words.accumulation(event.before, event.incoming, event.after)}"

    def _root_name(self, number: int) -> Iterator[str]:
        roots = self._view.record.roots
        if number < len(roots):
            yield from self._view.graph.nodes[roots[number].node].variables[:1]

    def on_arrow(self, source: str, target: str) -> str:
        """The gradient that came back over an arrow; of several alike, each in turn."""
        view = self._view
        edges = self._edges.get((source, target))
        if edges:
            return _shown(view.contribution(edges.pop()))
        if source.startswith("v") and source[1:] == target[1:]:
            return _shown(view.received(int(source[1:])))
        if target.startswith("r") and target[1:].isdigit():
            roots, number = view.record.roots, int(target[1:])
            if number < len(roots):
                return _shown(view.arrived(roots[number].node, roots[number].input_nr))
        return ""


def _shown(gradient: Gradient | None) -> str:
    return f"\N{NO-BREAK SPACE}{words.tensor(gradient)} " if gradient is not None else ""


def _title(view: PassView) -> str:
    record = view.record
    call = record.site.text if record.site is not None else record.kind
    facts = [words.file_line(record.site)] if record.site is not None else []
    facts += [f"pass {record.id}", words.counts(record.node_count, record.leaf_count)]
    return f"{words.shorten(call, 72)}\n{' · '.join(facts)} · as torchviz draws it"
