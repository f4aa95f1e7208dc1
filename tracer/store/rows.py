"""Records in, rows of the tables out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from tracer.records.events import Hook, Leaf, Pass
from tracer.records.graph import Graph, ModuleRef, NodeKind, Root, SavedTensor, Site
from tracer.records.tensors import TensorMeta
from tracer.records.trace import Run
from tracer.store.columns import (
    Row,
    number_pairs_text,
    numbers_text,
    pairs_text,
    plain,
    saved_text,
    strings_text,
)
from tracer.store.entries import Names, encode_entry


class GraphNames(Names, Protocol):
    """Gives ids for all that the rows of a graph refer to."""

    def module(self, module: ModuleRef | None) -> int: ...


def run_row(run: Run, outcome: str, *, complete: bool) -> Row:
    """The one row of `trace`."""
    return (
        1, plain(run.script), strings_text(run.argv), run.started, plain(run.host), run.pid,
        run.rank, run.world_size, pairs_text(run.versions), plain(run.limits), plain(outcome),
        complete,
    )  # fmt: skip


def meta_row(number: int, meta: TensorMeta) -> Row:
    """A row of `meta`."""
    return number, numbers_text(meta.shape), meta.dtype, meta.device, meta.layout


def site_row(site: Site) -> Row:
    """A row of `site`."""
    return (
        site.id, plain(site.file), site.line, plain(site.function), plain(site.expression),
        strings_text(site.targets), plain(site.statement),
    )  # fmt: skip


def module_row(module: ModuleRef) -> Row:
    """A row of `module`."""
    parent = 0 if module.parent is None else module.parent.id
    return module.id, plain(module.path), plain(module.cls), module.call, parent


def hook_row(hook: Hook, names: Names) -> Row:
    """A row of `hook`."""
    return (
        hook.id, hook.kind, plain(hook.text), plain(hook.subject), names.site(hook.defined),
        names.site(hook.added),
    )  # fmt: skip


def leaf_row(leaf: Leaf, names: Names) -> Row:
    """A row of `leaf`."""
    value = None if leaf.value is None else encode_entry(leaf.value, names)
    grad = None if leaf.grad is None else encode_entry(leaf.grad, names)
    return leaf.id, plain(leaf.name), names.meta(leaf.meta), names.site(leaf.site), value, grad


def graph_row(graph: Graph) -> Row:
    """A row of `graph`."""
    return graph.id, graph.digest, strings_text(graph.notes)


def node_rows(graph: Graph, names: GraphNames) -> Iterator[Row]:
    """The rows of `node` for one graph."""
    texts = _Texts(names)
    return (
        (
            graph.id, node.id, plain(node.name), _KINDS[node.kind], node.sequence_nr,
            texts.outputs(node.outputs), strings_text(node.variables), names.site(node.site),
            plain(node.op), names.module(node.module), node.call, pairs_text(node.loops),
            texts.saved(node.saved), pairs_text(node.attributes), plain(node.note),
        )
        for node in graph.nodes
    )  # fmt: skip


_KINDS = {kind: kind.value for kind in NodeKind}


class _Texts:
    """What refers to metadata in the rows of one graph: most nodes share it as the same objects."""

    def __init__(self, names: GraphNames) -> None:
        self._names = names
        self._outputs: dict[int, str] = {}
        self._saved: dict[int, str] = {}

    def outputs(self, outputs: tuple[TensorMeta | None, ...]) -> str:
        """The column of a node's outputs."""
        text = self._outputs.get(id(outputs))
        if text is None:
            numbers = [0 if meta is None else self._names.meta(meta) for meta in outputs]
            text = self._outputs[id(outputs)] = numbers_text(numbers)
        return text

    def saved(self, saved: Sequence[SavedTensor]) -> str:
        """The column of the tensors that a node keeps."""
        return f"[{','.join([self._saved.get(id(one)) or self._saved_one(one) for one in saved])}]"

    def _saved_one(self, saved: SavedTensor) -> str:
        meta = 0 if saved.meta is None else self._names.meta(saved.meta)
        text = self._saved[id(saved)] = saved_text(saved.attribute, meta, saved.nbytes)
        return text


def edge_rows(graph: Graph) -> Iterator[Row]:
    """The rows of `edge` for one graph."""
    return (
        (graph.id, position, edge.source, edge.slot, edge.target, edge.input_nr)
        for position, edge in enumerate(graph.edges)
    )


def root_rows(graph: Graph) -> Iterator[Row]:
    """The rows of `root` for one graph."""
    return (
        (graph.id, position, root.node, root.input_nr) for position, root in enumerate(graph.roots)
    )


class Ran(NamedTuple):
    """A pass that ended well, was in no other and recorded by the core alone: what it tells.

    `seeds` are packed entries, `site` is an id.
    """

    id: int
    structure: Graph
    kind: str
    site: int
    seeds: tuple[bytes, ...]
    retain_graph: int
    inputs: tuple[str, ...] | None
    thread: int
    begin_ns: int
    end_ns: int
    node_count: int
    leaf_count: int

    @property
    def graph(self) -> int:
        """The id of the graph, as a Pass has it."""
        return self.structure.id


def ran_rows(runs: Iterable[Ran]) -> list[Row]:
    """What `insert_into(RAN)` takes of each."""
    roots: dict[int, str] = {}
    return [_ran_row(run, roots) for run in runs]


def _ran_row(run: Ran, known_roots: dict[int, str]) -> Row:
    number, graph, kind, site, seeds, retain, inputs, thread, begin, end, nodes, leaves = run
    roots = known_roots.get(graph.id)
    if roots is None:
        roots = known_roots[graph.id] = _roots_text(graph.roots)
    return (
        number, graph.id, kind, site, roots, bytearray().join(seeds), retain,
        "" if inputs is None else strings_text(inputs), thread, begin, end, nodes, leaves,
    )  # fmt: skip


def _roots_text(roots: Iterable[Root]) -> str:
    return number_pairs_text((root.node, root.input_nr) for root in roots)


def pass_row(run: Pass, names: Names) -> Row:
    """A row of `pass`."""
    outcome = run.outcome
    return (
        run.id, run.graph, run.kind, names.site(run.site),
        _roots_text(run.roots),
        b"".join([encode_entry(seed, names) for seed in run.seeds]),
        run.retain_graph, run.create_graph,
        None if run.inputs is None else strings_text(run.inputs),
        run.thread, run.parent, run.begin_ns, run.end_ns,
        plain(outcome.error), plain(outcome.message), outcome.node,
        run.node_count, run.leaf_count, plain(run.torchviz),
    )  # fmt: skip
