"""Run as a script with torch imported once: recordings that are killed, or run out of something."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import tracer
from tracer.capture import graphs

MODES: dict[str, dict[str, object]] = {
    "all": {},
    "every": {"every": 3},
    "last": {"last": 5},
    "bytes": {"max_bytes": 1_000_000, "detail": "values:5000"},
    "structure": {"detail": "structure"},
    "values": {"detail": "values:5000"},
    "only": {"only": "kind:accumulate"},
    "together": {"every": 2, "last": 50, "max_bytes": 1_000_000, "detail": "values"},
}


def train(steps: int) -> float:
    """Run small passes, with a value large enough to fill a file."""
    weight = torch.ones(2000, requires_grad=True)
    for _ in range(steps):
        (weight * weight).sum().backward()
    return float(weight.grad.sum())  # type: ignore[union-attr]


def resident() -> int:
    """Return how many bytes of memory this process has now."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize()


def kill_half_way(folder: Path) -> None:
    """Kill a recording of each mode in the middle of a pass."""
    for mode, limits in MODES.items():
        in_child(lambda mode=mode, limits=limits: die(folder / f"{mode}.trace", limits))  # type: ignore[misc]


def die(path: Path, limits: dict[str, object]) -> None:
    """Record until killed by a hook."""
    trace = tracer.trace(path, **limits).__enter__()  # type: ignore[arg-type]
    train(60)
    assert trace.passes  # which writes what waits
    weight = torch.ones(3, requires_grad=True)
    weight.register_hook(lambda _gradient: os.kill(os.getpid(), signal.SIGKILL))
    for _ in range(4):
        (weight * weight).sum().backward()


def in_child(function: Callable[[], None]) -> None:
    """Run in a fork, which has torch already."""
    child = os.fork()
    if child == 0:
        function()
        os._exit(0)
    os.waitpid(child, 0)


def fill_the_disk(path: Path) -> None:
    """Record more than the disk, or this process, may write."""
    with tracer.trace(path, detail="values:5000") as trace:
        print(train(300))
    print(len(trace.passes) > 0)


def outgrow_a_limit(path: Path) -> None:
    """Record more than files of this process may hold."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
    fill_the_disk(path)


def outrun_the_disk(path: Path) -> None:
    """Print what memory and how many seconds 100 MB of events take while the disk is slow."""
    flag = Path(os.environ["SLOW_WHILE"])
    with tracer.trace(path, detail="values:5000"):
        train(20)
        flag.touch()
        before, began = resident(), time.monotonic()
        train(2500)
        print(resident() - before, time.monotonic() - began)
        flag.unlink()


def run_many(path: Path) -> None:
    """Print how many nodes ran, and by how much memory grew at most while they were recorded."""
    weight = torch.randn(64, requires_grad=True)

    def step() -> None:
        branches = [torch.tanh(weight * (k / 1000)).mean() for k in range(1000)]
        torch.stack(branches).sum().backward()

    step()
    before, most = resident(), 0
    with tracer.trace(path) as trace:
        for _ in range(1 + int(os.environ["NODES"]) // 3000):
            step()
            most = max(most, resident())
    print(sum(one.node_count for one in trace.passes), most - before)


def run_long(path: Path) -> None:
    """Print how much memory a recording takes after many passes, and after many more."""
    weight = torch.ones(3, requires_grad=True)
    with tracer.trace(path, last=100):
        for step in range(20_001):
            leaf = torch.ones(3, requires_grad=True)  # another one in each pass
            (weight * leaf).sum().backward()
            if step in (5_000, 20_000):
                print(resident())


def run_ever_new(path: Path) -> None:
    """Print the same of passes each over another structure, and over what a pass has made."""
    graphs._MOST_NODES = 1 << 10  # of those that are kept, to come to the end of it soon
    with tracer.trace(path, last=20):
        for step in range(801):
            leaf = torch.ones(3 + step, requires_grad=True)
            y = leaf
            for _ in range(1 + step % 10):
                y = y * leaf
            (slope,) = torch.autograd.grad(y.sum(), leaf, create_graph=True)
            slope.sum().backward()
            if step in (200, 800):
                print(resident())


if __name__ == "__main__":
    torch.set_num_threads(1)
    {function.__name__: function for function in (
        kill_half_way, fill_the_disk, outgrow_a_limit, outrun_the_disk, run_long, run_ever_new,
        run_many,
    )}[sys.argv[1]](Path(sys.argv[2]))  # fmt: skip
