"""Live tensors in, the graph behind them out: no trace is needed, and nothing is kept of them."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from tracer.capture.deep import make_room
from tracer.capture.held import names_held
from tracer.capture.names import find_names
from tracer.capture.session import Session
from tracer.capture.sites import SiteTable
from tracer.capture.structure import Fn, Walk, pack_links, read_graph, root_edges
from tracer.records.collection import no_collection
from tracer.records.graph import Graph
from tracer.records.packed import Origin


def walk_graph(outputs: Sequence[object]) -> Graph:
    """Read the graph behind tensors, given as they are or in lists, tuples and dictionaries.

    Leaves are named as the caller's variables reach them, and nodes by the variables that hold
    what they made. While a trace is recorded, lines, operations and modules are known too. Raises
    TypeError where there is no tensor, ValueError where none of them requires grad.
    """
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch(), no_collection():
        roots = _roots_of(list(_tensors_in(outputs)))
        walk = _walk(roots)
        make_room(len(walk.fns))
        sites = Session.active.sites if Session.active is not None else SiteTable()
        origins = _origins(walk, sites, sys._getframe())
        return read_graph(
            walk, origins, graph_id=1, site_of=lambda function: _defined_at(sites, function)
        ).unpacked


def _tensors_in(values: Iterable[object]) -> Iterable[Tensor]:
    waiting = list(values)[::-1]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            waiting += list(value.values())[::-1]
        elif isinstance(value, (list, tuple)):
            waiting += value[::-1]
        else:
            raise TypeError(f"no tensor, nor a list, tuple or dictionary: {type(value).__name__}")


def _roots_of(tensors: list[Tensor]) -> list[tuple[Fn, int]]:
    if not tensors:
        raise TypeError("there is no tensor in what was given")
    roots = [(fn, output_nr) for fn, output_nr in root_edges(tensors) if fn is not None]
    if not roots:
        raise ValueError("none of these tensors requires grad, so there is no graph behind them")
    return roots


def _walk(roots: list[tuple[Fn, int]]) -> Walk:
    """Visit every node below the roots, in the order in which it is first met."""
    fns: list[Fn] = []
    numbers: dict[Fn, int] = {}

    def number_of(fn: Fn) -> int:
        if fn not in numbers:
            numbers[fn] = len(fns)
            fns.append(fn)
        return numbers[fn]

    rooted = b"".join(struct.pack("<ii", number_of(fn), output_nr) for fn, output_nr in roots)
    links = []
    for fn in fns:  # which grows as it is walked
        links.append(
            [(-1 if to is None else number_of(to), input_nr) for to, input_nr in fn.next_functions]
        )
    leaves = [(i, fn.variable) for i, fn in enumerate(fns) if hasattr(fn, "variable")]
    return Walk(
        fns=fns, roots=rooted, links=pack_links(links), signatures=b"",
        sequence_nrs=[fn._sequence_nr() for fn in fns], variables=leaves, same=[],
    )  # fmt: skip


def _origins(walk: Walk, sites: SiteTable, frame: FrameType) -> list[Origin]:
    leaf_names = find_names(dict(walk.variables), frame, is_user=sites.is_user)
    names = names_held(walk.fns, frame, sites.is_user) | leaf_names
    session = Session.active
    known = [Origin()] * len(walk.fns) if session is None else session.graphs.origins_of(walk)
    return [
        replace(origin, variables=(names[number],)) if number in names else origin
        for number, origin in enumerate(known)
    ]


def _defined_at(sites: SiteTable, function: object) -> Any:
    return sites.function_site(function)[0]
