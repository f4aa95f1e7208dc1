"""What watching a training step costs: `tracer` beside the tools that people use today.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --workloads MLP LSTM --watchers tracer control --seconds 60
    python benchmarks/overhead.py --instructions --workloads MLP

A step is forward, backward and the optimizer's step. Each round enters every way of watching in
turn, runs steps that are not counted until what happens once has happened, then times one block of
steps by the CPU time of the whole process. A ratio is that of a block to the untraced block of the
same round; what is printed is the median over the rounds, with the quartiles. PyTorch runs on one
thread. `control` is untraced again: what differs from 1 there is noise.

Where `valgrind` is installed, `--instructions` counts what the processor executes instead, which
no other work on the machine can change.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from machine import describe_machine
from watchers import WATCHERS, Watcher
from workloads import TRANSFORMERS, WORKLOADS, Workload, has_transformers, make

BLOCK_S = 0.25
FEWEST_ROUNDS, MOST_ROUNDS = 5, 60


@dataclass(frozen=True)
class Measured:
    """One way of watching one workload; times are medians of CPU time."""

    workload: str
    watcher: str
    ratio: float
    lower_quartile: float
    upper_quartile: float
    rounds: int
    step_ms: float
    begin_ms: float
    first_step_ms: float
    end_ms: float


@dataclass
class _Samples:
    """What the rounds gave for one way of watching, in seconds."""

    steps: list[float] = field(default_factory=list)
    begins: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)


def main() -> int:
    """Measure what is asked for, print it as it comes, then one table, and JSON if wanted."""
    asked = _arguments()
    torch.set_num_threads(1)
    if asked.work:
        return _run_steps(*asked.work)
    names = asked.workloads or list(WORKLOADS)
    if asked.transformers:
        names += list(TRANSFORMERS)
    chosen = {"untraced": WATCHERS["untraced"]} | {name: WATCHERS[name] for name in asked.watchers}
    if asked.instructions:
        return _print_instructions(names, list(chosen))
    found: list[Measured] = []
    for name in names:
        for measured in _measure(name, chosen, asked.seconds):
            found.append(measured)
            sys.stdout.write(_line(measured))
            sys.stdout.flush()
    sys.stdout.write("\n" + _table(found))
    if asked.json:
        told = {"machine": asdict(describe_machine()), "overhead": [asdict(one) for one in found]}
        Path(asked.json).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [*WORKLOADS, *(TRANSFORMERS if has_transformers() else ())]
    parser.add_argument("--workloads", nargs="+", choices=every, metavar="NAME")
    parser.add_argument("--watchers", nargs="+", choices=WATCHERS, default=list(WATCHERS))
    parser.add_argument("--seconds", type=float, default=120.0, help="for each workload, about")
    parser.add_argument("--transformers", action="store_true", help="with models of that package")
    parser.add_argument("--instructions", action="store_true", help="count them, by valgrind")
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


# ---- time


def _measure(name: str, watchers: dict[str, Watcher], seconds: float) -> Iterator[Measured]:
    workload = make(name)
    plain = _cpu_time(lambda: workload.step(lambda loss: None))
    plain = min(plain, _cpu_time(lambda: workload.step(lambda loss: None)))
    block = max(1, round(BLOCK_S / plain))
    samples = {watcher: _Samples() for watcher in watchers}
    deadline = time.monotonic() + seconds
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and time.monotonic() > deadline:
            break
        for watcher in _rotated(list(watchers), number):
            _sample(workload, watchers[watcher], block, samples[watcher])
    base = samples["untraced"].steps
    for watcher, each in samples.items():
        yield _summary(name, watcher, each, [a / b for a, b in zip(each.steps, base, strict=True)])


def _rotated(names: list[str], by: int) -> list[str]:
    """Another begins each round: what one leaves behind meets each of the rest."""
    at = by % len(names)
    return names[at:] + names[:at]


def _sample(workload: Workload, watcher: Watcher, block: int, samples: _Samples) -> None:
    with ExitStack() as stack:
        gc.collect()
        entered = time.process_time()
        seen = stack.enter_context(watcher(workload))
        began = time.process_time()
        workload.step(seen)
        first = time.process_time()
        workload.step(seen)
        gc.collect()
        steps = _cpu_time(lambda: [workload.step(seen) for _ in range(block)])
        last = time.process_time()
    samples.ends.append(time.process_time() - last)
    samples.begins.append(began - entered)
    samples.firsts.append(first - began)
    samples.steps.append(steps / block)


def _cpu_time(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _summary(name: str, watcher: str, samples: _Samples, ratios: list[float]) -> Measured:
    lower, middle, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    begin, first, end, step = (
        1000 * statistics.median(each)
        for each in (samples.begins, samples.firsts, samples.ends, samples.steps)
    )
    return Measured(
        name, watcher, round(middle, 4), round(lower, 4), round(upper, 4), len(ratios),
        round(step, 3), round(begin, 3), round(first, 3), round(end, 3),
    )  # fmt: skip


def _line(one: Measured) -> str:
    spread = f"{one.lower_quartile:.3f}-{one.upper_quartile:.3f}"
    return (
        f"{one.workload:<21} {one.watcher:<13} {one.ratio:>7.3f}  {spread:<14} {one.rounds:>3} x"
        f" {one.step_ms:>9.1f} ms, begin {one.begin_ms:>7.1f}, first {one.first_step_ms:>8.1f},"
        f" end {one.end_ms:>7.1f}\n"
    )


def _table(found: list[Measured]) -> str:
    workloads = list(dict.fromkeys(one.workload for one in found))
    watchers = list(dict.fromkeys(one.watcher for one in found))
    ratios = {(one.watcher, one.workload): one.ratio for one in found}
    widths = {name: max(len(name), 8) for name in workloads}
    lines = [f"{'':<13} " + "  ".join(f"{name:>{widths[name]}}" for name in workloads)]
    for watcher in watchers:
        cells = (
            f"{ratios.get((watcher, name), math.nan):>{widths[name]}.2f}" for name in workloads
        )
        lines.append(f"{watcher:<13} " + "  ".join(cells))
    return "\n".join(lines) + "\n"


# ---- instructions


def _print_instructions(workloads: list[str], watchers: list[str]) -> int:
    for name in workloads:
        base = 0.0
        for watcher in watchers:
            count = _instructions(name, watcher)
            base = base or count
            sys.stdout.write(
                f"{name:<21} {watcher:<13} {count / base:>7.3f}  {count / 1e6:>10.1f} million\n"
            )
            sys.stdout.flush()
    return 0


def _instructions(name: str, watcher: str) -> float:
    """The instructions of one step: of three steps more, divided by three."""
    few, more = (_count_instructions(name, watcher, steps) for steps in (1, 4))
    return (more - few) / 3


def _count_instructions(name: str, watcher: str, steps: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--",
            sys.executable, __file__, "--work", name, watcher, str(steps),
        ]  # fmt: skip
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r"Collected : (\d+)", said)
    if found is None:
        raise RuntimeError(said[-500:])
    return int(found.group(1))


def _run_steps(name: str, watcher: str, steps: str) -> int:
    """What runs under valgrind."""
    workload = make(name)
    with WATCHERS[watcher](workload) as seen:
        for _ in range(2 + int(steps)):
            workload.step(seen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
