"""Events in, in order; for each execution of a node, the forward operation that made it, out."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from tracer.records.events import Event, Forward, NodeRun, Pass, PassBegin
from tracer.records.graph import Graph, Node
from tracer.records.passes import find_pass
from tracer.records.trace import TraceRecord

_MOST_REMEMBERED = 1 << 17


@dataclass(slots=True)
class _Made:
    """A forward operation: the numbers of its nodes, from `low` up to `high`, and its site."""

    low: int
    high: int
    site: int
    seq: int


class Origins:
    """Finds the forward operation of a node in each pass over a graph that passes share.

    A node's number is that of the first pass. What a later one adds to all of them follows from
    where the operation of its root stands; a node whose number then falls into an operation of
    another place in source has no known origin.
    """

    def __init__(self, trace: TraceRecord) -> None:
        self._trace = trace
        self._made: dict[int, list[_Made]] = {}
        self._latest: dict[int, _Made] = {}
        self._root_offsets: dict[int, int] = {}
        self._shifts: dict[int, tuple[Pass, Graph, int | None]] = {}

    def note(self, event: Event) -> int | None:
        """Take in the next event; of a node's run, the `seq` of its forward operation."""
        if isinstance(event, Forward):
            self._note_forward(event)
        elif isinstance(event, PassBegin):
            record = find_pass(self._trace, event.pass_id or 0)
            graph = self._trace.graphs[record.graph].unpacked
            self._shifts[record.id] = record, graph, self._shift(record, graph)
        elif isinstance(event, NodeRun):
            return self._origin(event)
        elif event.kind == "pass_end":
            self._shifts.pop(event.pass_id or 0, None)
        return None

    def _note_forward(self, event: Forward) -> None:
        low, high = event.sequence_nrs
        if high == low or event.site is None:
            return
        made = _Made(low, high, event.site.id, event.seq)
        self._latest[made.site] = made
        known = self._made.setdefault(event.thread, [])
        while known and known[-1].low >= low:  # the outer operation stands for those inside it
            known.pop()
        known.append(made)
        if len(known) > _MOST_REMEMBERED:
            del known[: _MOST_REMEMBERED // 2]

    def _shift(self, record: Pass, graph: Graph) -> int | None:
        """What this pass's numbers are greater by than those that the graph holds."""
        root = graph.nodes[record.roots[0].node] if record.roots else None
        if root is None or root.sequence_nr is None or root.site is None:
            return None
        made = self._latest.get(root.site.id)
        if made is None:
            return None
        if graph.id not in self._root_offsets:
            self._root_offsets[graph.id] = root.sequence_nr - made.low
        return made.low + self._root_offsets[graph.id] - root.sequence_nr

    def _origin(self, event: NodeRun) -> int | None:
        record, graph, shift = self._shifts.get(event.pass_id or 0, (None, None, None))
        if record is None or graph is None or shift is None:
            return None
        made = self._find(record.thread, graph.nodes[event.node], shift)
        return made.seq if made is not None else None

    def _find(self, thread: int, node: Node, shift: int) -> _Made | None:
        if node.sequence_nr is None or node.site is None:
            return None
        number, known = node.sequence_nr + shift, self._made.get(thread, [])
        place = bisect_right(known, number, key=lambda made: made.low) - 1
        if place < 0 or number >= known[place].high or known[place].site != node.site.id:
            return None
        return known[place]
