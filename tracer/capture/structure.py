"""The roots of a backward call in, the structure that the engine will walk out."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from tracer.capture.readings import is_leaf, node_behind
from tracer.capture.saved import SiteOf, plain_attributes, saved_tensors
from tracer.records.graph import (
    Edge,
    Graph,
    ModuleRef,
    Node,
    NodeKind,
    Root,
    Site,
)
from tracer.records.quick import maker
from tracer.records.tensors import TensorMeta

Fn = Any  # torch.autograd.graph.Node is an ABC that the real nodes only pretend to subclass


@dataclass(slots=True)
class Walk:
    """The nodes reachable from the roots, in first-visit order, while a pass holds them.

    `roots`, `links` and `signatures` are packed: (node, input_nr) i32 pairs; for each node a count
    u32 and (target, input_nr) i32 pairs of its `next_functions` (-1 for none); a u32 a node that
    stands for its type, metadata, site, operation and module. `variables` are the leaves by node.
    `same[i]` has a 1 for each input of node i that receives just what one edge sends.
    """

    fns: list[Fn]
    roots: bytes
    links: bytes
    signatures: bytes
    sequence_nrs: list[int]
    variables: list[tuple[int, Tensor]]
    same: list[bytes]

    def root_records(self) -> tuple[Root, ...]:
        """The roots as records."""
        return tuple(Root(*pair) for pair in struct.iter_unpack("<ii", self.roots))

    def edge_records(self) -> tuple[Edge, ...]:
        """The edges as records, by source and slot."""
        edges = []
        numbers = struct.unpack(f"<{len(self.links) // 4}i", self.links)
        at = 0
        for source in range(len(self.fns)):
            first, at = at + 1, at + 1 + 2 * numbers[at]
            for place in range(first, at, 2):
                target = numbers[place]
                if target >= 0:
                    edges.append(_edge(source, (place - first) // 2, target, numbers[place + 1]))
        return tuple(edges)


_edge, _node = maker(Edge), maker(Node)


def pack_links(links: Iterable[Sequence[tuple[int, int]]]) -> bytes:
    """Pack what `Walk.links` says: for each node its (target, input_nr) pairs."""
    return b"".join(
        struct.pack(f"<I{2 * len(pairs)}i", len(pairs), *(part for pair in pairs for part in pair))
        for pairs in links
    )


def root_edges(outputs: Sequence[Tensor | GradientEdge]) -> list[tuple[Fn, int]]:
    """The node and input that each root's gradient goes to; a leaf's is its `AccumulateGrad`.

    As `torch.autograd.graph.get_gradient_edge` does, the `AccumulateGrad` of a leaf is found
    through a view of it; the caller must hold it, as nothing else does. None stands for a node that
    PyTorch forbids to ask for, as it will the backward call.
    """
    edges: list[tuple[Fn, int]] = []
    for output in outputs:
        if isinstance(output, GradientEdge):
            edges.append((output.node, output.output_nr))
        elif isinstance(output, Tensor) and output.requires_grad:
            fn = node_behind(output)
            if fn is not None:
                edges.append((fn, output.output_nr))
            else:
                edges.append((_accumulate_grad(output) if is_leaf(output) else None, 0))
    return edges


def _accumulate_grad(leaf: Tensor) -> Fn:
    """The node behind a leaf, None where nothing leads to it and the engine will refuse it too.

    A view of an inference tensor has no node; a copy of it has, with the leaf as its second input.
    """
    with torch._C._InferenceMode(False), torch.enable_grad():
        fn = leaf.view_as(leaf).grad_fn or leaf.clone().grad_fn
    targets = fn.next_functions if fn is not None else ()
    return next((target for target, _ in targets if hasattr(target, "variable")), None)


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of how a node was made: site, operation, module, call number, names, what else
    there is to say of it, and where the loops around it stood."""

    site: Site | None = None
    op: str = ""
    module: ModuleRef | None = None
    call: int = 1
    variables: tuple[str, ...] = ()
    note: str = ""
    loops: tuple[tuple[str, str], ...] = ()


def output_metas(fn: Fn) -> tuple[TensorMeta | None, ...]:
    """The metadata of each output of the forward operation, as the engine will check gradients."""
    metas: list[TensorMeta | None] = []
    found = getattr(fn, "_input_metadata", ()) or ()
    for meta in found:
        try:
            nested = bool(meta.is_nested_tensor)
            shape = () if nested else tuple(meta.shape)
            known = _meta_of(shape, meta.dtype, meta.device, nested)
        except (RuntimeError, TypeError):  # an undefined output has no metadata
            metas.append(None)
        else:
            if len(found) == 1:
                return known
            metas.append(known[0])
    return tuple(metas)


@lru_cache(maxsize=4096)
def _meta_of(
    shape: tuple[int, ...], dtype: object, device: object, nested: bool
) -> tuple[TensorMeta]:
    """The metadata as what most nodes have: that of one output."""
    text, layout = str(dtype).removeprefix("torch."), "nested" if nested else "strided"
    return (TensorMeta(tuple(map(int, shape)), text, str(device), layout),)


def node_name(fn: Fn) -> str:
    """The name of a node's type; where Python knows it only as `CppFunction`, PyTorch's own."""
    name = type(fn).__name__
    return str(fn.name()).rpartition("::")[2] if name == "CppFunction" else name


def node_kind(fn: Fn, name: str) -> NodeKind:
    """What a node is to the reader of a picture."""
    if name == "AccumulateGrad":
        return NodeKind.ACCUMULATE
    if name == "CompiledFunctionBackward":
        return NodeKind.COMPILED
    if name == "BackwardHookFunctionBackward":
        return NodeKind.HOOK_WRAPPER
    if isinstance(fn, torch.autograd.function.BackwardCFunction):
        return NodeKind.CUSTOM
    return NodeKind.OPERATION


def read_graph(
    found: Walk,
    origins: Sequence[Origin],
    metas: Sequence[tuple[TensorMeta | None, ...]],
    *,
    graph_id: int,
    site_of: SiteOf,
) -> Graph:
    """Make the record of a structure seen for the first time."""
    nodes = []
    told = _Told()
    for number, (fn, origin) in enumerate(zip(found.fns, origins, strict=True)):
        name = node_name(fn)
        kind = node_kind(fn, name)
        nodes.append(
            _node(
                number, name, kind,
                None if kind is NodeKind.ACCUMULATE else found.sequence_nrs[number],
                metas[number], origin.variables, origin.site, origin.op, origin.module,
                origin.call, origin.loops, saved_tensors(fn), plain_attributes(fn, site_of),
                origin.note or _note(name, origin.op),
            )
        )  # fmt: skip
        told.add(nodes[-1])
    hashed = told.text().encode() + found.links + found.roots
    digest = hashlib.blake2b(hashed, digest_size=12).hexdigest()
    return Graph(graph_id, tuple(nodes), found.edge_records(), found.root_records(), digest)


class _Told:
    """What of the nodes of a graph goes into its digest, as a text of them all."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._known: dict[tuple[str, int, str, int], str] = {}

    def add(self, node: Node) -> None:
        """Add a node: of thousands few differ, and those that are alike have the same objects."""
        key = node.name, id(node.outputs), node.op, id(node.site)
        text = self._known.get(key)
        if text is None:
            text = repr((node.name, node.outputs, node.op, node.site and node.site.text))
            self._known[key] = text
        self._texts.append(text)

    def text(self) -> str:
        """The text of the nodes that were added, which must live still."""
        return f"[{', '.join(self._texts)}]"


def _note(name: str, op: str) -> str:
    """What else a reader must know of such a node."""
    if name == "CopySlices":
        return f"in-place on a view: {op or 'the operation'} runs inside, where nothing can be seen"
    if name == "CompiledFunctionBackward":
        return "torch.compile: what it compiled runs as one node"
    if name == "DifferentiableGraphBackward":
        return "TorchScript: what it compiled runs as one node"
    return ""
