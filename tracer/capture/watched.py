"""What a recording is restricted to in; which nodes, leaves and events that means out."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tracer.records.events import EVENT_KINDS, Accumulate, Event, Forward, NodeRun
from tracer.records.graph import Graph, Node
from tracer.records.selection import Only
from tracer.records.stream import HEADER

_LEFT_OUT = "events that only= leaves out"
_UNWATCHED = "nodes that only= leaves unwatched"
_FORWARD_CODE = EVENT_KINDS.index(Forward) + 1
_LENGTH_AND_KIND = struct.Struct("<IB")
_MODULE = struct.Struct("<I")
_MODULE_AT = HEADER.size + 8
_GRAPHS_KEPT = 64

Dropped = Callable[[str, int], None]


class Watched:
    """Keeps what was asked for; the rest is counted through `dropped(reason, count)`."""

    def __init__(self, only: Only, dropped: Dropped) -> None:
        self._only = only
        self._dropped = dropped
        self._kinds = [True] + [only.wants_kind(kind.kind) for kind in EVENT_KINDS]
        self._paths: dict[int, bool] = {}
        self._masks: dict[int, bytes] = {}
        self.everything = all(self._kinds) and not only.places
        self.accumulates = only.wants_kind(Accumulate.kind)
        self._keeps_ledger = any(
            only.wants_kind(kind) for kind in ("accumulate", "grad_write", "data_write")
        )

    def leaf(self, name: str) -> bool:
        """Whether what becomes of a leaf is recorded."""
        return self._keeps_ledger and self._only.wants_leaf(name)

    # ---- nodes

    def nodes(self, graph: Graph) -> bytes:
        """A 1 for each node to put a probe on, and else a 0; empty where all get one."""
        if self.everything:
            return b""
        mask = self._masks.get(graph.id)
        if mask is None:
            if len(self._masks) >= _GRAPHS_KEPT:
                self._masks.clear()
            mask = self._masks[graph.id] = bytes(map(self._wants_node, graph.nodes))
        unwatched = mask.count(0)
        if unwatched:
            self._dropped(_UNWATCHED, unwatched)
        return mask

    def _wants_node(self, node: Node) -> bool:
        kind = Accumulate.kind if node.is_leaf else NodeRun.kind
        if not self._only.wants_kind(kind):
            return False
        if node.is_leaf:
            return self._only.wants_leaf(node.variables[0] if node.variables else "")
        path = node.module.path if node.module is not None else ""
        return self._only.wants((node.name, *node.variables), path)

    # ---- events

    def path(self, number: int, path: str) -> int:
        """Remember the path of a module that operations will name by number; returns it."""
        if not self.everything and number not in self._paths:
            self._paths[number] = self._only.wants_module(path)
        return number

    def keeps(self, event: Event) -> bool:
        """Whether an event is recorded."""
        if self.everything:
            return True
        wanted = self._only.wants_kind(event.kind)
        if wanted and isinstance(event, Forward):
            wanted = self._only.wants_module(event.module)
        if not wanted:
            self._dropped(_LEFT_OUT, 1)
        return wanted

    def sift(self, frames: bytes) -> bytes:
        """Leave packed events out that are not recorded."""
        if self.everything:
            return frames
        kept: list[bytes] = []
        at = left_out = 0
        while at < len(frames):
            length, kind = _LENGTH_AND_KIND.unpack_from(frames, at)
            if self._kinds[kind] and (kind != _FORWARD_CODE or self._wants_forward(frames, at)):
                kept.append(frames[at : at + length])
            else:
                left_out += 1
            at += length
        if left_out:
            self._dropped(_LEFT_OUT, left_out)
        return b"".join(kept)

    def _wants_forward(self, frames: bytes, at: int) -> bool:
        (number,) = _MODULE.unpack_from(frames, at + _MODULE_AT)
        wanted = self._paths.get(number)
        return self._only.wants_module("") if wanted is None else wanted
