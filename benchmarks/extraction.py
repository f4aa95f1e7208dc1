"""What reading the graph behind a loss costs: `tracer` beside torchviz, without any layout.

    python benchmarks/extraction.py
    python benchmarks/extraction.py --workloads MLP Llama --seconds 5

* walk: `tracer.walk(loss)`, plain records of nodes, edges and leaves with their names;
* make_dot: `tracer.make_dot(loss)`, the same graph as torchviz's as text for Graphviz;
* torchviz: its `make_dot(loss)`. It recurses, and on a deep graph ends in a RecursionError, unless
  Python's limit is out of its way as it is here: `recursion` says which graphs are so deep.

Nothing is laid out. Each way takes its turn in each round, in the CPU time of the process.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchviz
from figures import Figures, tell
from workloads import WORKLOADS, make

import tracer

MOST_ROUNDS = 9
WIDTHS = (12, 10, -8, -10, -18, -7, 10)


@dataclass(frozen=True)
class Extracted:
    """One way of reading one graph: median CPU time in ms, with quartiles, and how many rounds.

    `recursion`: whether it goes deeper than Python lets it by default.
    """

    workload: str
    way: str
    nodes: int
    ms: float
    lower_quartile: float
    upper_quartile: float
    rounds: int
    recursion: bool = False


WAYS: dict[str, Callable[[Any], object]] = {
    "walk": tracer.walk,
    "make_dot": tracer.make_dot,
    "torchviz": torchviz.make_dot,
}


def main() -> int:
    """Measure what is asked for and print it as it comes, and JSON if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--seconds", type=float, default=10.0, help="for each workload, about")
    parser.add_argument("--json", help="also write the results to this file")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    figures = Figures("extraction", asked.json)
    tell("workload", "way", "nodes", "ms", "quartiles", "rounds", widths=WIDTHS)
    for name in asked.workloads:
        found = measure(name, asked.seconds)
        figures.add(found)
        for one in found:
            tell(
                one.workload, one.way, f"{one.nodes:,}", f"{one.ms:.2f}",
                f"{one.lower_quartile:.2f}-{one.upper_quartile:.2f}", str(one.rounds),
                "too deep for Python's own limit" * one.recursion, widths=WIDTHS,
            )  # fmt: skip
    figures.finish()
    return 0


def measure(name: str, seconds: float) -> list[Extracted]:
    """Read the graph of one workload's loss in every way, by turns."""
    workload = make(name)
    loss = workload.loss_of(workload.data)
    nodes = len(tracer.walk(loss).nodes)
    deep = {way for way, read in WAYS.items() if is_too_deep(read, loss)}
    sys.setrecursionlimit(10**7)
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    deadline = time.monotonic() + seconds
    for number in range(MOST_ROUNDS):
        if number >= 3 and time.monotonic() > deadline:
            break
        for way, read in WAYS.items():
            gc.collect()
            began = time.process_time()
            read(loss)
            times[way].append(1000 * (time.process_time() - began))
    return [extracted(name, way, nodes, each, deep=way in deep) for way, each in times.items()]


def is_too_deep(read: Callable[[Any], object], loss: object) -> bool:
    """Whether a graph is deeper than a way of reading it can go, as Python comes."""
    sys.setrecursionlimit(1000)
    try:
        read(loss)
    except RecursionError:
        return True
    return False


def extracted(name: str, way: str, nodes: int, ms: list[float], *, deep: bool) -> Extracted:
    """Sum up the times of one way."""
    lower, middle, upper = statistics.quantiles(ms, n=4, method="inclusive")
    return Extracted(
        name, way, nodes, *(round(x, 3) for x in (middle, lower, upper)), len(ms), deep
    )


if __name__ == "__main__":
    sys.exit(main())
