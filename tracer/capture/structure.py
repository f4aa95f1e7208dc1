"""The roots of a backward call in, the structure that the engine will walk out."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import compress
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from tracer.capture.readings import is_leaf, node_behind
from tracer.capture.saved import SiteOf, plain_attributes, saved_tensors
from tracer.records.graph import Graph, NodeKind, Root
from tracer.records.packed import Origin, PackedEdges, Packing, Sort, narrow
from tracer.records.tensors import TensorMeta

_TOLD_AT_ONCE = 1024

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


def pack_links(links: Iterable[Sequence[tuple[int, int]]]) -> bytes:
    """Pack what `Walk.links` says: for each node its (target, input_nr) pairs."""
    return b"".join(
        struct.pack(f"<I{2 * len(pairs)}i", len(pairs), *(part for pair in pairs for part in pair))
        for pairs in links
    )


def _unpack_links(links: bytes) -> PackedEdges:
    """The edges that `Walk.links` says."""
    words = memoryview(links).cast("i").tolist()
    slots: list[int] = []
    at = 0
    while at < len(words):
        slots.append(words[at])
        at += 1 + 2 * words[at]

    def of_each(pair: bytes) -> Iterator[int]:
        """What is marked of each pair: the counts before them are left out."""
        marks = {count: b"\0" + pair * count for count in set(slots)}
        return compress(words, b"".join([marks[count] for count in slots]))

    targets = [target + 1 for target in of_each(b"\1\0")]
    return PackedEdges(narrow(slots), narrow(targets), narrow(list(of_each(b"\0\1"))))


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
    origins: Iterable[Origin],
    *,
    graph_id: int,
    site_of: SiteOf,
) -> Graph:
    """Make the record of a structure seen for the first time."""
    packing, told = Packing(), _Told()
    for fn, origin, sequence_nr in zip(found.fns, origins, found.sequence_nrs, strict=True):
        name = node_name(fn)
        sort = Sort(
            name, node_kind(fn, name), output_metas(fn), saved_tensors(fn),
            plain_attributes(fn, site_of),
        )  # fmt: skip
        number = None if sort.kind is NodeKind.ACCUMULATE else sequence_nr
        told.add(packing.add(sort, _noted(origin, name), number), origin)
    digest = told.digest(found.links, found.roots)
    edges = _unpack_links(found.links)
    return Graph(graph_id, packing.nodes(), edges, found.root_records(), digest)


_NOTES = {
    "CompiledFunctionBackward": "torch.compile: what it compiled runs as one node",
    "DifferentiableGraphBackward": "TorchScript: what it compiled runs as one node",
}


def _noted(origin: Origin, name: str) -> Origin:
    """The origin with what else a reader must know of such a node."""
    if origin.note:
        return origin
    if name == "CopySlices":
        op = origin.op or "the operation"
        note = f"in-place on a view: {op} runs inside, where nothing can be seen"
        return replace(origin, note=note)
    return replace(origin, note=_NOTES[name]) if name in _NOTES else origin


class _Told:
    """What of the nodes of a graph goes into its digest: the text of a list of them all."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(b"[", digest_size=12)
        self._waiting: list[bytes] = []
        self._known: dict[tuple[str, int, str, int], bytes] = {}

    def add(self, sort: Sort, origin: Origin) -> None:
        """Add a node: of thousands few differ, and those that are alike have the same objects."""
        key = sort.name, id(sort.outputs), origin.op, id(origin.site)
        text = self._known.get(key)
        if text is None:
            told = sort.name, sort.outputs, origin.op, origin.site and origin.site.text
            text = self._known[key] = repr(told).encode()
        if len(self._waiting) == _TOLD_AT_ONCE:
            self._hash.update(b", ".join([*self._waiting, b""]))
            self._waiting.clear()
        self._waiting.append(text)

    def digest(self, *rest: bytes) -> str:
        """The digest of the nodes that were added, which must live still, and the rest."""
        for part in (b", ".join(self._waiting), b"]", *rest):
            self._hash.update(part)
        return self._hash.hexdigest()
