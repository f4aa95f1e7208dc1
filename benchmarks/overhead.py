"""What watching a training step costs: `tracer` beside the tools that people use today.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --workloads MLP LSTM --watchers tracer control --seconds 60
    python benchmarks/overhead.py --instructions --workloads MLP --watchers tracer

A step is forward, backward and the optimizer's step. Each workload has a process of its own. Each
round enters every way of watching in turn, runs steps that are not counted until what happens once
has happened, then times one block of steps by the CPU time of the whole process. A ratio is that of
a block to the untraced block of the same round; what is printed is the median over the rounds, with
the quartiles. PyTorch runs on one thread. `control` is untraced again: what differs from 1 there is
noise. What takes many times as long (torchlens) has a process and a time limit of its own, and is
compared with untraced steps before it.

Where `valgrind` is installed, `--instructions` counts what the processor executes instead, which
no other work on the machine can change.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

import torch
from figures import Figures
from watchers import APART, WATCHERS, Watcher, is_missing
from workloads import TRANSFORMERS, WORKLOADS, Workload, has_transformers, make

BLOCK_S = 0.25
MOST_ROUNDS = 60
STEPS_APART = 3


@dataclass(frozen=True)
class Measured:
    """One way of watching one workload; times are medians of CPU time, and `failure` says why there
    are none."""

    workload: str
    watcher: str
    ratio: float | None = None
    lower_quartile: float | None = None
    upper_quartile: float | None = None
    rounds: int = 0
    step_ms: float | None = None
    begin_ms: float | None = None
    first_step_ms: float | None = None
    end_ms: float | None = None
    failure: str = ""


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
    names = asked.workloads or [*WORKLOADS, *(TRANSFORMERS if asked.transformers else ())]
    if asked.work:
        return _run_steps(*asked.work)
    if asked.one:
        return _measure_here(asked.workloads[0], asked)
    if asked.instructions:
        return _print_instructions(names, asked.watchers)
    figures = Figures("overhead", asked.json)
    found: list[Measured] = []
    try:
        for name in names:
            for measured in _measure(name, asked):
                found.append(measured)
                figures.add([measured])
                sys.stdout.write(_line(measured))
                sys.stdout.flush()
        figures.finish()
    except KeyboardInterrupt:
        return 130
    finally:
        sys.stdout.write("\n" + _table(found))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [*WORKLOADS, *(TRANSFORMERS if has_transformers() else ())]
    ways = [*WATCHERS, *APART]
    parser.add_argument("--workloads", nargs="+", choices=every, metavar="NAME")
    parser.add_argument("--watchers", nargs="+", choices=ways, default=ways, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=120.0, help="for each workload, about")
    parser.add_argument("--rounds", type=int, default=9, help="at least, whatever the seconds")
    parser.add_argument(
        "--limit", type=float, default=60.0, help="seconds for what takes much longer"
    )
    parser.add_argument("--transformers", action="store_true", help="with models of that package")
    parser.add_argument("--instructions", action="store_true", help="count them, by valgrind")
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


# ---- a process for each


def _measure(name: str, asked: argparse.Namespace) -> Iterator[Measured]:
    together = [watcher for watcher in asked.watchers if watcher in WATCHERS]
    if together:
        yield from _measure_apart(name, together, asked.seconds, rounds=asked.rounds)
    for watcher in [watcher for watcher in asked.watchers if watcher in APART]:
        if is_missing(watcher):
            yield Measured(name, watcher, failure="not installed")
        else:
            yield from _measure_apart(name, [watcher], asked.limit, limit=asked.limit)


def _measure_apart(
    name: str,
    watchers: list[str],
    seconds: float,
    *,
    rounds: int = 1,
    limit: float | None = None,
) -> Iterator[Measured]:
    """Have a process measure, and end it at the limit; it says each thing in a line of JSON."""
    command = [
        sys.executable, __file__, "--one", "--workloads", name, "--watchers", *watchers,
        "--seconds", str(seconds), "--rounds", str(rounds),
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True)
        timer = threading.Timer(limit, process.kill) if limit else None
        if timer is not None:
            timer.start()
        found = 0
        try:
            for line in _lines_of(process):
                found += 1
                yield Measured(**json.loads(line))
        finally:
            if timer is not None:
                timer.cancel()
            process.wait()
        complaints.seek(0)
        said = [line.strip() for line in complaints if line.strip()]
    if not found:
        for watcher in watchers:
            yield Measured(name, watcher, failure=_failure(process.returncode, limit, said))


def _lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """What a process prints, up to its end though Ctrl-C, which it hears too, comes before that."""
    assert process.stdout is not None
    try:
        yield from iter(process.stdout.readline, "")
    except KeyboardInterrupt:
        yield from iter(process.stdout.readline, "")
        raise


def _failure(status: int, limit: float | None, said: list[str]) -> str:
    if status == -signal.SIGKILL:
        return f"not done in {limit:g} s" if limit else "killed, as for want of memory"
    return said[-1][:100] if said else f"exit status {status}"


def _measure_here(name: str, asked: argparse.Namespace) -> int:
    """What the process of a workload does. Interrupted, it says what it has found by then."""
    workload, watchers = make(name), asked.watchers
    if watchers[0] in APART:
        found = [_measure_slow(name, workload, watchers[0], asked.seconds)]
    else:
        chosen = {"untraced": WATCHERS["untraced"]} | {one: WATCHERS[one] for one in watchers}
        found = _measure_in_turns(name, workload, chosen, asked)
    for measured in found:
        sys.stdout.write(json.dumps(asdict(measured)) + "\n")
    return 0


# ---- time


def _measure_in_turns(
    name: str, workload: Workload, watchers: dict[str, Watcher], asked: argparse.Namespace
) -> list[Measured]:
    plain = min(_cpu_time(workload.step) for _ in range(2))
    block = max(1, round(BLOCK_S / plain))
    samples = {watcher: _Samples() for watcher in watchers}
    deadline = time.monotonic() + asked.seconds
    rounds, stopped = 0, threading.Event()  # an exception could be lost in what is being watched
    signal.signal(signal.SIGINT, lambda number, frame: stopped.set())
    while rounds < MOST_ROUNDS and (rounds < asked.rounds or time.monotonic() < deadline):
        for watcher in _rotated(list(watchers), rounds):
            if not stopped.is_set():
                _sample(workload, watchers[watcher], block, samples[watcher])
        if stopped.is_set():
            break
        rounds += 1
    if not rounds:
        return []
    base = samples["untraced"].steps[:rounds]
    return [
        _summary(name, watcher, each, [a / b for a, b in zip(each.steps, base, strict=False)])
        for watcher, each in samples.items()
    ]


def _rotated(names: list[str], by: int) -> list[str]:
    """Another begins each round: what one leaves behind meets each of the rest."""
    at = by % len(names)
    return names[at:] + names[:at]


def _sample(workload: Workload, watcher: Watcher, block: int, samples: _Samples) -> None:
    with ExitStack() as stack:
        gc.collect()
        entered = time.process_time()
        step = stack.enter_context(watcher(workload))
        began = time.process_time()
        step()
        first = time.process_time()
        step()
        gc.collect()
        steps = _cpu_time(lambda: [step() for _ in range(block)])
        last = time.process_time()
    samples.ends.append(time.process_time() - last)
    samples.begins.append(began - entered)
    samples.firsts.append(first - began)
    samples.steps.append(steps / block)


def _measure_slow(name: str, workload: Workload, watcher: str, seconds: float) -> Measured:
    """Time a few steps, after untraced ones, in the seconds there are; the first does not count
    where there is time for a second."""
    deadline = time.monotonic() + seconds
    workload.step()
    base = statistics.median(_cpu_time(workload.step) for _ in range(5))
    samples = _Samples()
    entered = time.process_time()
    with APART[watcher](workload) as step:
        samples.begins.append(time.process_time() - entered)
        took = time.monotonic()
        samples.firsts.append(_cpu_time(step))
        took = time.monotonic() - took
        while len(samples.steps) < STEPS_APART and time.monotonic() + 1.2 * took < deadline:
            samples.steps.append(_cpu_time(step))
        entered = time.process_time()
    samples.ends.append(time.process_time() - entered)
    samples.steps = samples.steps or list(samples.firsts)
    return _summary(name, watcher, samples, [each / base for each in samples.steps])


def _cpu_time(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _summary(name: str, watcher: str, samples: _Samples, ratios: list[float]) -> Measured:
    several = ratios if len(ratios) > 1 else ratios * 2
    lower, middle, upper = statistics.quantiles(several, n=4, method="inclusive")
    begin, first, end, step = (
        1000 * statistics.median(each)
        for each in (samples.begins, samples.firsts, samples.ends, samples.steps)
    )
    return Measured(
        name, watcher, round(middle, 4), round(lower, 4), round(upper, 4), len(ratios),
        round(step, 3), round(begin, 3), round(first, 3), round(end, 3),
    )  # fmt: skip


def _line(one: Measured) -> str:
    if one.ratio is None:
        return f"{one.workload:<21} {one.watcher:<13} {one.failure}\n"
    spread = f"{one.lower_quartile:.3f}-{one.upper_quartile:.3f}"
    return (
        f"{one.workload:<21} {one.watcher:<13} {one.ratio:>8.3f}  {spread:<17} {one.rounds:>3} x"
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
        cells = (_cell(ratios.get((watcher, name))).rjust(widths[name]) for name in workloads)
        lines.append(f"{watcher:<13} " + "  ".join(cells))
    return "\n".join(lines) + "\n"


def _cell(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


# ---- instructions


def _print_instructions(workloads: list[str], watchers: list[str]) -> int:
    for name in workloads:
        base = 0.0
        for watcher in dict.fromkeys(["untraced", *watchers]):
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
    with (WATCHERS | APART)[watcher](workload) as step:
        for _ in range(2 + int(steps)):
            step()
    return 0


if __name__ == "__main__":
    sys.exit(main())
