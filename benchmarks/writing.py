"""What a recording writes: bytes and time for each event and node, and the memory it takes.

    python benchmarks/writing.py
    python benchmarks/writing.py --workloads wide --nodes 100000

Each workload is trained until a million nodes have run, once untraced and once recorded to a file,
each in a process of its own. Memory is by how much the recorded process was larger at its largest
after the third step, or than it was then: what the first steps of training take is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from figures import Figures, tell
from workloads import WORKLOADS, make

import tracer

SMALL = ("tiny SGD", "MLP", "LSTM", "wide")
"""Those that reach a million nodes in sensible time."""
WARM = 3
WIDTHS = (12, -10, -10, -8, -8, -10, -10, -10, -10)


@dataclass(frozen=True)
class Written:
    """What one recording wrote.

    `event_bytes` and `node_bytes` are the whole file by events, and by nodes that ran (each with
    its share of all else); `events_per_s` are of CPU time that the recording added.
    """

    workload: str
    passes: int
    nodes: int
    events: int
    file_bytes: int
    event_bytes: float
    node_bytes: float
    added_us: float
    events_per_s: float
    memory_mb: float
    untraced_memory_mb: float


def main() -> int:
    """Measure what is asked for and print it as it comes, and JSON if wanted."""
    asked = arguments()
    torch.set_num_threads(1)
    if asked.work:
        return work(asked.work[0], int(asked.work[1]), asked.work[2])
    figures = Figures("writing", asked.json)
    tell(
        "workload", "nodes", "events", "MB", "B/node", "B/event", "us/event", "events/s",
        "MB memory", widths=WIDTHS,
    )  # fmt: skip
    for name in asked.workloads:
        found = measure(name, asked.nodes)
        figures.add([found])
        tell(
            name, f"{found.nodes:,}", f"{found.events:,}", f"{found.file_bytes / 1e6:.0f}",
            f"{found.node_bytes:.0f}", f"{found.event_bytes:.0f}", f"{found.added_us:.2f}",
            f"{found.events_per_s:,.0f}", f"{found.memory_mb - found.untraced_memory_mb:.0f}",
            widths=WIDTHS,
        )  # fmt: skip
    figures.finish()
    return 0


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(SMALL))
    parser.add_argument("--nodes", type=int, default=1_000_000, help="that are to run")
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(name: str, nodes: int) -> Written:
    """Train untraced, then recorded, and read what was written."""
    workload = make(name)
    graph = tracer.walk(workload.loss_of(workload.data))
    steps = max(1, -(-nodes // (len(graph.nodes) * workload.passes)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.trace")
        plain = run(name, steps, "")
        recorded = run(name, steps, str(path))
        record = tracer.load(path).record
        events, ran = len(record.events), sum(one.node_count for one in record.passes)
        size = path.stat().st_size
    added = recorded["cpu"] - plain["cpu"]
    return Written(
        name, len(record.passes), ran, events, size, round(size / events, 1),
        round(size / ran, 1), round(1e6 * added / events, 3), round(events / added),
        round(recorded["megabytes"], 1), round(plain["megabytes"], 1),
    )  # fmt: skip


def run(name: str, steps: int, path: str) -> dict[str, float]:
    """Train in a process of its own; what it took."""
    command = [sys.executable, __file__, "--work", name, str(steps), path]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(told)
    return found


def work(name: str, steps: int, path: str) -> int:
    """Train, recorded where there is a path, and print CPU seconds and the memory that grew."""
    workload = make(name)
    for _ in range(WARM):
        workload.step()
    began, before, most = time.process_time(), resident(), 0
    if path:
        with tracer.trace(path):
            for _ in range(steps):
                workload.step()
                most = max(most, resident())
    else:
        for _ in range(steps):
            workload.step()
            most = max(most, resident())
    cpu = time.process_time() - began
    sys.stdout.write(json.dumps({"cpu": cpu, "megabytes": (most - before) / 1e6}))
    return 0


def resident() -> int:
    """Bytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
