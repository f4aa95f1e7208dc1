"""How long reading the statistics of a large gradient takes: in one pass, and by torch operations.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --megabytes 4 64 --threads 1 4

Norm, minimum, maximum, mean and the numbers of zeros, NaNs and Infs of a contiguous float32 tensor,
in wall time: what a thread more gains is not seen in CPU time. Both ways by turns, the shortest of
some rounds: other work on the machine only adds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from figures import Figures, tell
from torch import Tensor

from tracer.capture.core import Tape, read_with

ROUNDS = 15
WIDTHS = (-10, -8, -11, -11)


@dataclass(frozen=True)
class Read:
    """Milliseconds for reading one tensor in two ways, on so many threads."""

    megabytes: int
    threads: int
    tracer_ms: float
    torch_ms: float


def main() -> int:
    """Measure what is asked for and print it as it comes, and JSON if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", nargs="+", type=int, default=[1, 16, 256])
    several = sorted({1, os.cpu_count() or 1})
    parser.add_argument("--threads", nargs="+", type=int, default=several)
    parser.add_argument("--json", help="also write the results to this file")
    asked = parser.parse_args()
    figures = Figures("kernels", asked.json)
    tell("megabytes", "threads", "tracer ms", "torch ms", widths=WIDTHS)
    for megabytes in asked.megabytes:
        tensor = torch.randn(megabytes * (1 << 18))
        for threads in asked.threads:
            found = measure(tensor, megabytes, threads)
            figures.add([found])
            tell(
                str(megabytes), str(threads), f"{found.tracer_ms:.3f}", f"{found.torch_ms:.3f}",
                widths=WIDTHS,
            )  # fmt: skip
    figures.finish()
    return 0


def measure(tensor: Tensor, megabytes: int, threads: int) -> Read:
    """Time both ways on so many threads."""
    torch.set_num_threads(threads)
    read_with(threads)
    tape = Tape(lambda tensor: None, 16, True)
    ways = (lambda: tape.entry(tensor, 1), lambda: by_operations(tensor))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for way, took in zip(ways, times, strict=True):
            took.append(wall_ms(way))
    return Read(megabytes, threads, *(round(min(each), 4) for each in times))


def wall_ms(work: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def by_operations(tensor: Tensor) -> tuple[Tensor, ...]:
    """The same numbers, a kernel of torch's for each."""
    return (
        tensor.norm(), *tensor.aminmax(), tensor.mean(), tensor.numel() - tensor.count_nonzero(),
        tensor.isnan().sum(), tensor.isinf().sum(),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
