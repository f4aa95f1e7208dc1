"""Reading back: a record written is the record read, and nothing is read before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests import builders
from tests.store.recordings import BF16, F32, GRAPH, LEAF, SITES, recorded
from tracer.records import (
    Gradient,
    Leaf,
    Outcome,
    Pass,
    Root,
    Run,
    TensorMeta,
    TraceRecord,
)
from tracer.records.statistics import gradient_of_values
from tracer.store import TraceWriter, read_trace, read_writer
from tracer.store.entries import UNKNOWN_META, encode_entry

ROOT = Path(__file__).parent.parent.parent
PAIR = gradient_of_values(TensorMeta((2,)), (1.0, -2.0))


def write_record(path: Path, record: TraceRecord) -> None:
    """Write a whole hand-made trace."""
    writer = TraceWriter(path, record.run)
    for file, text in record.sources.items():
        writer.source(file, text)
    for stored in (*record.graphs.values(), *record.leaves.values(), *record.passes):
        writer.put(stored)
    for event in record.events:
        writer.event(event)
    for reason, count in record.dropped.items():
        writer.dropped(reason, count)
    writer.close(record.run.outcome)


@pytest.mark.parametrize("example", ["vector_jacobian", "hooks", "sgd"])
def test_a_whole_trace_comes_back_as_it_was(tmp_path: Path, example: str) -> None:
    record: TraceRecord = getattr(builders, example)()
    write_record(tmp_path / "run.trace", record)
    read = read_trace(tmp_path / "run.trace")
    assert read.run == record.run
    assert dict(read.sources) == dict(record.sources)
    assert dict(read.graphs) == dict(record.graphs)
    assert read.passes == list(record.passes)
    assert dict(read.leaves) == dict(record.leaves)
    assert list(read.events) == list(record.events)
    assert read.dropped == dict(record.dropped)
    assert read.complete


def test_what_ran_comes_back_as_it_was() -> None:
    run = Run(
        script="train.py", argv=("train.py", "--lr", "0.1"), started=1.7e9 + 0.25, host="h",
        pid=42, rank=3, world_size=8, versions=(("python", "3.11"), ("torch", "2.13")),
    )  # fmt: skip
    writer = TraceWriter(None, run)
    writer.close("KeyboardInterrupt")
    assert read_writer(writer).run == replace(run, outcome="KeyboardInterrupt")


def test_every_field_of_a_pass_comes_back_as_it_was() -> None:
    full = Pass(
        id=7, graph=1, kind="grad", site=SITES[1], roots=(Root(0), Root(1, 1)),
        seeds=(None, PAIR), retain_graph=True, create_graph=True, inputs=("w", "名"), thread=2,
        parent=3, begin_ns=10, end_ns=2**40, outcome=Outcome("ValueError", "no\n名", 1),
        node_count=3, leaf_count=1, torchviz="digraph {}",
    )  # fmt: skip
    bare = Pass(8, 1, seeds=(None,))
    nothing_given = Pass(9, 1, inputs=())
    assert recorded(full, bare, nothing_given).passes == [full, bare, nothing_given]


def test_every_field_of_a_leaf_comes_back_as_it_was() -> None:
    full = Leaf(1, "w", PAIR.meta, SITES[0], PAIR, Gradient(PAIR.meta, unread="on cuda"))
    bare = Leaf(2, "", BF16)
    assert dict(recorded(full, bare).leaves) == {1: full, 2: bare}


def test_a_seed_has_the_metadata_of_its_root() -> None:
    writer = TraceWriter(None, Run())
    packed = bytes([4]) + bytes(8)
    writer.put(GRAPH)
    writer.put(Pass(1, 1, roots=(Root(0), Root(1, 1)), seeds=(packed,) * 3))  # type: ignore[arg-type]
    (read,) = read_writer(writer).passes
    assert read.seeds == (Gradient(F32), Gradient(UNKNOWN_META), Gradient(UNKNOWN_META))


def test_of_a_graph_only_its_roots_are_read_for_seeds() -> None:
    writer = TraceWriter(None, Run())
    packed = bytes([4]) + bytes(8)
    writer.put(GRAPH)
    places = (Root(2), Root(3), Root(-1), Root(0, 9))
    # a recorder's seeds are packed already
    writer.put(Pass(1, 1, roots=places, seeds=(packed,) * 4))  # type: ignore[arg-type]
    trace = read_writer(writer)
    writer.connection.execute("UPDATE graph SET loops = 'nonsense'")
    unknown = Gradient(UNKNOWN_META)
    assert trace.passes[0].seeds == (Gradient(F32), unknown, unknown, unknown)


def test_what_a_leaf_held_has_its_metadata() -> None:
    writer = TraceWriter(None, Run())
    packed = bytearray(encode_entry(PAIR, writer))
    packed[1:5] = bytes(4)
    held = Leaf(1, "w", PAIR.meta, value=bytes(packed))  # type: ignore[arg-type]
    writer.put(held)
    assert read_writer(writer).leaves[1].value == PAIR


def test_graphs_and_sources_are_read_when_they_are_asked_for() -> None:
    writer = TraceWriter(None, Run())
    writer.put(GRAPH)
    writer.put(replace(GRAPH, id=5))
    writer.source("b.py", "pass\n")
    writer.source("a.py", "")
    trace = read_writer(writer)
    assert (list(trace.graphs), len(trace.graphs), 2 in trace.graphs) == ([1, 5], 2, False)
    assert list(trace.sources.items()) == [("a.py", ""), ("b.py", "pass\n")]
    assert trace.graphs[5] == replace(GRAPH, id=5)
    assert trace.graphs[5] is trace.graphs[5]
    with pytest.raises(KeyError):
        trace.graphs[2]


def test_numbers_and_texts_are_what_the_schema_says_in_a_strangers_file_too() -> None:
    writer = TraceWriter(None, Run())
    writer.put(GRAPH)
    writer.put(LEAF)
    trace = read_writer(writer)
    writer.connection.execute("UPDATE graph SET digest = x'41', nodes = '3 OR 1'")
    writer.connection.execute("UPDATE site SET line = '3 OR 1', file = 5.5")
    graph = trace.graphs[1]
    assert (graph.digest, len(graph.nodes)) == ("A", 3)
    site = read_writer(writer).leaves[1].site
    assert site is not None
    assert (site.line, site.file) == (3, "5.5")


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    write_record(tmp_path / "run.trace", builders.hooks())
    script = (
        "import sys; from tracer.store import read_trace; trace = read_trace(sys.argv[1]);"
        "print(len(list(trace.events)), 'torch' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run.trace")],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.stdout == f"{len(builders.hooks().events)} False\n"
