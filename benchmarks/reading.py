"""A number of events in; how long `tracer` takes to show, tell and draw a trace of so many out.

    python benchmarks/reading.py                    # ten million events, in many passes and in few
    python benchmarks/reading.py --events 1000000 --shape many

The traces are written to a temporary folder by the writer that recordings use, and deleted. Each
command runs in a process of its own; its wall and processor time are given beside those of a bare
Python, and the memory it took at most.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from figures import Figures

import tracer
from tracer.records import (
    Accumulate,
    DataWrite,
    Edge,
    Event,
    Forward,
    Gradient,
    GradWrite,
    Graph,
    Leaf,
    ModuleRef,
    Node,
    NodeKind,
    NodeRun,
    OptimizerStep,
    Pass,
    PassBegin,
    PassEnd,
    Root,
    Run,
    Site,
    TensorMeta,
)
from tracer.store import TraceWriter, read_trace
from tracer.store.frames import encode_event, scan_frames

SHAPES = {"many": 4, "thousands": 1_400, "few": 14_000}
"""How many layers the network of each trace has; of a layer come seven events a pass."""

SOURCE = "x = layer(x)\nloss = x.sum()\nloss.backward()\noptimizer.step()\n"
WIDTH = TensorMeta((64, 64))
BIAS = TensorMeta((64,))


@dataclass(frozen=True)
class Took:
    """What a command took: seconds of wall and processor, megabytes of memory at most."""

    wall: float
    cpu: float
    megabytes: float


# ---- a trace of any size


def site(number: int, expression: str, target: str = "") -> Site:
    """A line of the script."""
    targets = (target,) if target else ()
    text = f"{target} = {expression}" if target else expression
    return Site(number, "train.py", number, "<module>", expression, targets, text)


SITES = {
    "layer": site(1, "layer(x)", "x"),
    "loss": site(2, "x.sum()", "loss"),
    "backward": site(3, "loss.backward()"),
    "step": site(4, "optimizer.step()"),
}


def network(layers: int) -> Graph:
    """Layers of a matrix product and a relu, each with a weight and a bias, above one another."""
    nodes = [Node(0, "SumBackward0", sequence_nr=2 * layers, site=SITES["loss"], op="torch.sum")]
    nodes[0] = replace(nodes[0], outputs=(TensorMeta(()),), variables=("loss",))
    edges: list[Edge] = []
    above = 0
    for layer in reversed(range(layers)):
        module = ModuleRef(layer + 1, f"model.{layer}", "Layer", 1)
        first = len(nodes)
        made = {"site": SITES["layer"], "module": module, "call": layer + 1}
        nodes += [
            Node(first, "ReluBackward0", sequence_nr=2 * layer + 1, outputs=(WIDTH,), **made),
            Node(first + 1, "AddmmBackward0", sequence_nr=2 * layer, outputs=(WIDTH,), **made),
            leaf(first + 2, f"model.{layer}.bias", BIAS),
            leaf(first + 3, f"model.{layer}.weight", WIDTH),
        ]
        edges.append(Edge(above, 1 if above else 0, first))
        edges += [Edge(first, 0, first + 1), Edge(first + 1, 0, first + 2)]
        edges.append(Edge(first + 1, 2, first + 3))
        above = first + 1
    edges.sort(key=lambda edge: (edge.source, edge.slot))
    return Graph(1, tuple(nodes), tuple(edges), (Root(0),), "reading")


def leaf(number: int, name: str, meta: TensorMeta) -> Node:
    """An AccumulateGrad."""
    return Node(number, "AccumulateGrad", NodeKind.ACCUMULATE, outputs=(meta,), variables=(name,))


def seen(meta: TensorMeta) -> Gradient:
    """What a recording keeps of a tensor that is not small."""
    return Gradient(meta, 12.5, -0.75, 0.875, 0.001, 3, 0, 0)


def one_pass(graph: Graph) -> Iterator[Event]:
    """The events of a step: operations, the pass itself, the optimizer; `seq` counts from 1."""
    layers = len(graph.nodes) // 4
    seq = iter(range(1, 1 << 30))
    for layer in range(layers):
        yield Forward(seq=next(seq), op="torch.addmm", site=SITES["layer"],
                      module=f"model.{layer}", sequence_nrs=(2 * layer, 2 * layer + 2))  # fmt: skip
    yield PassBegin(seq=next(seq), pass_id=1)
    for order, node in enumerate(graph.nodes, 1):
        outputs = graph.edges_from[node.id]
        if node.is_leaf:
            number = node.id // 2
            gradient = seen(node.outputs[0] or WIDTH)
            yield Accumulate(seq=next(seq), pass_id=1, leaf=number, node=node.id, order=order,
                             before=None, incoming=gradient, after=gradient)  # fmt: skip
        else:
            slots = 1 + max((edge.slot for edge in outputs), default=0)
            returned = tuple(seen(WIDTH) if any(e.slot == k for e in outputs) else None
                             for k in range(slots))  # fmt: skip
            yield NodeRun(seq=next(seq), pass_id=1, node=node.id, order=order, end_ns=order,
                          received=(seen(WIDTH),), returned=returned)  # fmt: skip
    yield PassEnd(seq=next(seq), pass_id=1)
    for number in [node.id // 2 for node in graph.nodes if node.is_leaf][:2]:
        yield DataWrite(seq=next(seq), leaf=number, how="SGD.step", site=SITES["step"],
                        before=seen(WIDTH), after=seen(WIDTH))  # fmt: skip
    yield OptimizerStep(seq=next(seq), optimizer="SGD", site=SITES["step"])
    yield GradWrite(seq=next(seq), leaf=1, how=".grad =", before=seen(WIDTH), after=None)


def write(path: Path, *, events: int, layers: int) -> tuple[int, int]:
    """Write a trace of about so many events; how many it has, and in how many passes."""
    graph = network(layers)
    writer = TraceWriter(path, Run(script="train.py", argv=("train.py",)))
    writer.source("train.py", SOURCE)
    writer.put(graph)
    for node in graph.nodes:
        if node.is_leaf:
            writer.put(Leaf(node.id // 2, node.variables[0], node.outputs[0] or WIDTH))
    template = b"".join(encode_event(event, writer) for event in one_pass(graph))
    starts = np.array([at for at, *_ in scan_frames(template)])
    frames = np.frombuffer(template, np.uint8).copy()
    fields = {
        name: frames[starts[:, None] + np.arange(at, at + size)]
        for name, at, size in (("pass", 8, 4), ("seq", 12, 8), ("time", 20, 8))
    }
    in_pass = fields["pass"].any(axis=1)
    seqs = fields["seq"].copy().view("<u8")[:, 0]
    passes = max(1, events // len(starts))
    for number in range(1, passes + 1):
        begun = (number - 1) * len(starts)
        put(frames, starts[in_pass], 8, np.full(in_pass.sum(), number, "<u4"))
        put(frames, starts, 12, (seqs + begun).astype("<u8"))
        put(frames, starts, 20, ((seqs + begun) * 1000).astype("<i8"))
        writer.put(Pass(number, 1, site=SITES["backward"], roots=graph.roots, seeds=(None,),
                        begin_ns=begun * 1000, end_ns=(begun + len(starts)) * 1000,
                        node_count=len(graph.nodes), leaf_count=2 * layers))  # fmt: skip
        for part in pieces(frames.tobytes(), starts):
            writer.append(part)
            if writer.due():
                writer.flush()
    writer.close()
    return passes * len(starts), passes


def put(frames: np.ndarray, starts: np.ndarray, at: int, values: np.ndarray) -> None:
    """Write a number into each frame's header."""
    size = values.dtype.itemsize
    frames[starts[:, None] + np.arange(at, at + size)] = values.view(np.uint8).reshape(-1, size)


def pieces(frames: bytes, starts: np.ndarray) -> Iterator[bytes]:
    """The frames in pieces of 1,000, as the tape hands them on."""
    cuts = [*starts[::1000].tolist(), len(frames)]
    return (frames[one:other] for one, other in zip(cuts, cuts[1:], strict=False))


# ---- reading it


def run(*arguments: str) -> Took:
    """Run Python with these arguments and say what it took."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, env=as_usual()
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - begun
    if status:
        raise SystemExit(f"{' '.join(arguments)}: exit status {status}")
    return Took(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def as_usual() -> dict[str, str]:
    """The environment without what would have Python compile each module again, or write each line
    by itself: a user's has neither."""
    unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    return {name: text for name, text in os.environ.items() if name not in unwanted}


@dataclass(frozen=True)
class Read:
    """What one command took on one trace."""

    shape: str
    events: int
    passes: int
    command: str
    wall_s: float
    cpu_s: float
    megabytes: float


def measure(path: Path, shape: str) -> Iterator[Read]:
    """Print what each command takes on a trace."""
    record = read_trace(path)
    events, passes = len(record.events), len(record.passes)
    middle = str(max(passes // 2, 1))
    picture = str(path.with_suffix(".svg"))
    commands = {
        "bare Python": ("-c", "pass"),
        "tracer --help": ("-m", "tracer", "--help"),
        "show": ("-m", "tracer", "show", str(path)),
        "timeline of a pass": ("-m", "tracer", "timeline", str(path), "--pass", middle),
        "draw a pass (dot)": ("-m", "tracer", "draw", str(path), "--pass", middle,
                              "-o", picture.replace(".svg", ".dot")),
        "draw a pass (svg)": ("-m", "tracer", "draw", str(path), "--pass", middle, "-o", picture),
    }  # fmt: skip
    for name, command in commands.items():
        took = run(*command)
        sys.stdout.write(
            f"  {name:20} {took.wall:6.2f} s, {took.cpu:6.2f} s of processor,"
            f" {took.megabytes:5.0f} MB\n"
        )
        sys.stdout.flush()
        figures = (round(figure, 3) for figure in (took.wall, took.cpu, took.megabytes))
        yield Read(shape, events, passes, name, *figures)


def write_apart(path: Path, events: int, layers: int) -> dict[str, float]:
    """Write a trace in a process of its own, so that what reads it starts from a small one."""
    command = [sys.executable, __file__, "--write", str(path), str(events), str(layers)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(told)
    return found


def write_and_tell(path: Path, events: int, layers: int) -> None:
    """Write a trace and print what it took."""
    begun, before = time.process_time(), memory()
    written, passes = write(path, events=events, layers=layers)
    took, grown = time.process_time() - begun, memory() - before
    size = path.stat().st_size
    sys.stdout.write(json.dumps(
        {"events": written, "passes": passes, "bytes": size / written,
         "us": 1e6 * took / written, "megabytes": grown}))  # fmt: skip


def memory() -> float:
    """Megabytes that this process took at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Write and read a trace of each shape."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--keep", type=Path, help="a folder that the traces stay in")
    parser.add_argument("--write", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.write:
        write_and_tell(Path(asked.write[0]), *map(int, asked.write[1:]))
        return
    compileall.compile_dir(Path(tracer.__file__).parent, quiet=2)  # as an installation does
    figures = Figures("reading", asked.json)
    with tempfile.TemporaryDirectory() as folder:
        for shape in asked.shape or SHAPES:
            path = (asked.keep or Path(folder)) / f"{shape}.trace"
            if not path.exists():
                told = write_apart(path, asked.events, SHAPES[shape])
                sys.stdout.write(
                    f"{shape}: {told['events']:,.0f} events in {told['passes']:,.0f} passes, "
                    f"{told['bytes']:.0f} bytes each, written in {told['us']:.2f} µs each "
                    f"with {told['megabytes']:.0f} MB more\n"
                )
            figures.add(measure(path, shape))
            if asked.keep is None:
                path.unlink()
    figures.finish()


if __name__ == "__main__":
    main()
