"""What a backward pass with `create_graph` makes comes in; by which node each was made goes out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import torch

from tracer.records.graph import Graph, Node, NodeKind
from tracer.records.words import BACKWARD_OF

if TYPE_CHECKING:
    from tracer.capture.session import Session

_next_sequence_nr = torch._C._autograd._get_sequence_nr
_LONGEST_SUM = 64
_FIRST_OP = 1 << 31
"""Ids from here on are no strings of the trace; this one stands for sums of contributions."""


class SecondOrder:
    """Remembers, by the id of an operation, which node of which graph it is the backward of."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ops: dict[int, dict[int, int]] = {}
        self._made_by: dict[int, tuple[int, Node]] = {}
        self._newest = _FIRST_OP

    def name(self, op: int) -> str:
        """What to call this operation; empty for one of the user's."""
        if op == _FIRST_OP:
            return "sum of contributions"
        made_by = self._made_by.get(op)
        return "" if made_by is None else f"{BACKWARD_OF}{made_by[1].name}"

    def note(self, op: int) -> str:
        """What to say of the nodes that this operation made; empty for one of the user's."""
        if op == _FIRST_OP:
            return "made in a backward pass: a sum of contributions"
        if op not in self._made_by:
            return ""
        graph, node = self._made_by[op]
        return f"made in a backward pass, by node {node.id} of graph {graph}"

    def follow(self, graph: Graph, site: int) -> MadeInPass:
        """Follow what a pass over `graph`, begun at `site`, makes."""
        return MadeInPass(self, graph, site)

    def enter(self, graph: Graph, node: Node, low: int, high: int) -> None:
        """Enter that running a node made the nodes numbered from `low` to before `high`."""
        module = node.module.id if node.module is not None else 0
        self._session.mode.log_made(low, high, _id(node), self._op(graph, node), module, node.call)

    def enter_sum(self, low: int, high: int, site: int) -> None:
        """Enter the nodes by which the engine adds up contributions; not those of user code."""
        for number in range(low, high):
            if self._session.made_by(number) is None:
                self._session.mode.log_made(number, number + 1, site, _FIRST_OP, 0, 1)

    def _op(self, graph: Graph, node: Node) -> int:
        ops = self._ops.setdefault(graph.id, {})
        if node.id not in ops:
            self._newest += 1
            ops[node.id] = self._newest
            self._made_by[self._newest] = graph.id, node
        return ops[node.id]

    def forget(self, graph: int) -> None:
        """Forget a graph that no pass to come has."""
        for op in self._ops.pop(graph, {}).values():
            del self._made_by[op]


class MadeInPass:
    """Told by the probes of one pass which nodes each node made."""

    def __init__(self, book: SecondOrder, graph: Graph, site: int) -> None:
        self._book = book
        self._graph = graph
        self._site = site
        self._known_until = {threading.get_ident(): _next_sequence_nr()}

    def __call__(self, node: int, low: int, high: int) -> None:
        """Running `node` made the nodes numbered from `low` to before `high`, in this thread."""
        self._reach(low)
        self._known_until[threading.get_ident()] = high
        record = self._graph.nodes[node]
        if record.kind is not NodeKind.CUSTOM:  # what its code did was seen as it ran
            self._book.enter(self._graph, record, low, high)

    def ends(self) -> None:
        """The pass ends in this thread: what was made last is a sum for `inputs=`."""
        self._reach(_next_sequence_nr())

    def _reach(self, low: int) -> None:
        """What was made since the last node ended is the engine's."""
        known_until = self._known_until.get(threading.get_ident(), low)
        if 0 < low - known_until <= _LONGEST_SUM:
            self._book.enter_sum(known_until, low, self._site)


def _id(node: Node) -> int:
    return node.site.id if node.site is not None else 0
