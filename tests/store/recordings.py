"""Traces made for a test: records and events in, what a reader gives back out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tracer.records import (
    Edge,
    Event,
    Graph,
    Hook,
    Leaf,
    ModuleRef,
    Node,
    NodeKind,
    Pass,
    Root,
    Run,
    SavedTensor,
    Site,
    TensorMeta,
    TraceRecord,
)
from tracer.records.stream import ENTRY_STATS, HEADER, NODE
from tracer.store import TraceWriter, read_writer
from tracer.store.entries import STATS

F32 = TensorMeta((2, 3))
BF16 = TensorMeta((), "bfloat16", "cuda:0", "sparse_coo")
SITES = (
    Site(1, "train.py", 3, "<module>", "x1 * m3", ("x2",), "x2 = x1 * m3"),
    Site(2, "模型.py", 70_000, "forward", "", (), ""),
    Site(7, "a\\b.py", 1, "f", 'say("\0")', ("a", "名"), "a, 名 = 1, 2"),
)
ENCODER = ModuleRef(5, "encoder", "Encoder", 3, ModuleRef(2, "", "Net"))
MODULE = ModuleRef(1, "encoder.layers.0", "Linear", 3, ENCODER)
HOOKS = (
    Hook(0, "tensor hook", "grad * grad", "v", SITES[0], SITES[1]),
    Hook(9, "posthook", "Watcher.see", "", None, None),
)
NODES = (
    Node(
        0, "AddBackward0", sequence_nr=5, outputs=(F32,), variables=("y",), site=SITES[0],
        op="torch.add", module=MODULE, call=2, note="noted",
        loops=(("t", "3"), ("名", "'\\'")),
        attributes=(("_saved_alpha", "1"), ("_saved_名", "'\\'")),
    ),
    Node(
        1, "MulBackward0", sequence_nr=0, outputs=(F32, None),
        saved=(SavedTensor("_saved_self", BF16, 2), SavedTensor("_saved_other", None)),
    ),
    Node(2, "AccumulateGrad", NodeKind.ACCUMULATE, outputs=(F32,), variables=("w",)),
)  # fmt: skip
EDGES = (Edge(0, 0, 1), Edge(0, 1, 2), Edge(1, 1, 2))
GRAPH = Graph(1, NODES, EDGES, (Root(0), Root(1, 1)), "abc", ("one note",))
LEAF = Leaf(1, "w", F32, SITES[0])


def record(writer: TraceWriter, *records: Site | Graph | Leaf | Pass | Event) -> None:
    """Hand records and events to a writer, each by its door."""
    for each in records:
        if isinstance(each, Event):
            writer.event(each)
        else:
            writer.put(each)


def recorded(*records: Site | Graph | Leaf | Pass | Event) -> TraceRecord:
    """The trace in memory that holds these records."""
    writer = TraceWriter(None, Run())
    record(writer, *records)
    return read_writer(writer)


def write(path: Path, *records: Site | Graph | Leaf | Pass | Event) -> Path:
    """A closed trace file that holds these records."""
    writer = TraceWriter(path, Run())
    record(writer, *records)
    writer.close()
    return path


def node_frame(
    seq: int, node: int, *, pass_id: int = 1, received: Iterable[bytes], returned: Iterable[bytes]
) -> bytes:
    """A node's frame as the recorder packs it."""
    arrived, left = list(received), list(returned)
    entries = b"".join(arrived + left)
    length = HEADER.size + NODE.size + len(entries)
    header = HEADER.pack(length, 7, 0, 0, pass_id, seq, 10 * seq)
    return header + NODE.pack(node, seq, 10 * seq + 5, len(arrived), len(left)) + entries


def statistics(norm: float, meta: int = 0) -> bytes:
    """An entry of state 2 as the recorder packs it."""
    return STATS.pack(ENTRY_STATS, meta, norm, -norm, norm, 0.0, 1, 0, 0)


def files_beside(path: Path) -> list[str]:
    """The names of all files in a trace's folder."""
    return sorted(os.listdir(path.parent))
