"""How long a picture of a large graph takes, and how much memory: `tracer draw` beside torchviz.

    python benchmarks/draw.py
    python benchmarks/draw.py --shapes chain wide --nodes 100 1000 --limit 60 --json draw.json

For each shape and size the same program runs backward under `tracer`, which is not measured. Then,
one after the other and each in a process of its own with a time limit:

* ours: the command `tracer draw run.trace -o picture.svg`, from the start of Python to its end;
* torchviz: `make_dot` of the same graph and Graphviz's layout of it to SVG, without the time that
  building the graph takes. Graphviz is the one that `tracer draw` uses: `dot`, or the wheel's;
* deep: where torchviz ends in a RecursionError, the same with Python's limit out of its way.

Memory is the largest that a process of the two was, the layout's included; torchviz's holds torch.
CPU seconds are those of all processes of a way together, and tell more on a machine that is busy.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from figures import Figures

SIZES = (100, 1_000, 10_000, 100_000)
NODES_A_BLOCK = 63
ONE_DAY_S = 86_400.0
MOST_BYTES = 8 * 1024**3  # of address space, for each process


@dataclass(frozen=True)
class Measured:
    """What one way of drawing one graph took; `failure` says why there is no picture."""

    shape: str
    nodes: int
    way: str
    seconds: float
    cpu_seconds: float
    peak_mib: float
    failure: str = ""


def main() -> int:
    """Measure what is asked for, print a table as it comes, and JSON if wanted."""
    asked = _arguments()
    if asked.work:
        return _work(*asked.work)
    figures = Figures("draw", asked.json)
    sys.stdout.write(_row("shape", "nodes", "way", "seconds", "CPU", "peak MiB", ""))
    for shape in asked.shapes:
        for nodes in asked.nodes:
            for measured in _compare(shape, nodes, asked.limit):
                figures.add([measured])
                sys.stdout.write(_measured_row(measured))
                sys.stdout.flush()
    figures.finish()
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--nodes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for each process")
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def _row(*cells: str) -> str:
    shape, nodes, way, seconds, cpu, peak, failure = cells
    left = f"{shape:<12} {nodes:>8}  {way:<9}"
    return f"{left} {seconds:>8} {cpu:>7} {peak:>9}  {failure}".rstrip() + "\n"


def _measured_row(measured: Measured) -> str:
    seconds = f"{measured.seconds:.2f}" if not measured.failure else ""
    cpu = f"{measured.cpu_seconds:.2f}" if not measured.failure else ""
    peak = f"{measured.peak_mib:.0f}"
    nodes = f"{measured.nodes:,}"
    return _row(measured.shape, nodes, measured.way, seconds, cpu, peak, measured.failure)


# ---- one graph


def _compare(shape: str, nodes: int, limit: float) -> list[Measured]:
    with tempfile.TemporaryDirectory() as folder:
        trace, picture = Path(folder, "run.trace"), Path(folder, "picture.svg")
        work = [sys.executable, __file__, "--work"]
        recorded = _run([*work, "record", shape, str(nodes), str(trace)], 10 * limit)
        if recorded.failure:
            return [Measured(shape, nodes, "record", 0.0, 0.0, recorded.peak_mib, recorded.failure)]
        count = int(recorded.output.split()[-1])
        draw = [sys.executable, "-m", "tracer", "draw", str(trace), "-o", str(picture)]
        ways = {
            "ours": _run(draw, limit, picture),
            "torchviz": _run([*work, "torchviz", shape, str(nodes), str(picture)], limit, picture),
        }
        if ways["torchviz"].failure.startswith("RecursionError"):
            ways["deep"] = _run([*work, "deep", shape, str(nodes), str(picture)], limit, picture)
    return [
        Measured(shape, count, way, ran.seconds, ran.cpu_seconds, ran.peak_mib, ran.failure)
        for way, ran in ways.items()
    ]


@dataclass(frozen=True)
class _Ran:
    seconds: float
    cpu_seconds: float
    peak_mib: float
    output: str = ""
    failure: str = ""


def _run(command: list[str], limit: float, result: Path | None = None) -> _Ran:
    """Run a command in a session of its own; at the limit, end all of it.

    A line `seconds N M` that it prints counts instead of its whole time and CPU time.
    """
    if result is not None:
        result.unlink(missing_ok=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=_limit_memory,
        )  # fmt: skip
        status, used = _wait(process.pid, began + limit)
        seconds = time.monotonic() - began
        process.returncode = status
        said.seek(0)
        output = said.read()
    failure = _failure(status, limit, output)
    if not failure and result is not None and not result.exists():
        failure = "no picture"
    times = [seconds, used.ru_utime + used.ru_stime]
    own = re.search(r"^seconds (\S+) (\S+)$", output, re.MULTILINE)
    if own:
        times = [float(own.group(1)), float(own.group(2))]
    unit = 1024.0 if sys.platform != "darwin" else 1024.0**2
    return _Ran(*times, used.ru_maxrss / unit, output, failure)


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


def _wait(pid: int, deadline: float) -> tuple[int, resource.struct_rusage]:
    ended, status, used = os.wait4(pid, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
        ended, status, used = os.wait4(pid, os.WNOHANG)
    if not ended:
        os.killpg(pid, signal.SIGKILL)
        _, status, used = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), used


def _failure(status: int, limit: float, output: str) -> str:
    if status == 0:
        return ""
    if status == -signal.SIGKILL:
        return f"not done in {limit:g} s"
    said = [line for line in output.splitlines() if line.strip()]
    return said[-1].strip()[:72] if said else f"exit status {status}"


# ---- what the processes do; they import torch, this one does not


def _work(task: str, shape: str, nodes: str, path: str) -> int:
    run = {"record": _record, "torchviz": _torchviz, "deep": _deep}[task]
    run(SHAPES[shape], int(nodes), path)
    return 0


def _leave_without_freeing() -> None:
    """End the process at once: PyTorch 2.13 overflows the stack when it frees a deep graph whose
    nodes Python has looked at."""
    sys.stdout.flush()
    os._exit(0)


def _record(build: Callable[[int], object], nodes: int, path: str) -> None:
    import tracer

    with tracer.trace(path) as trace:
        root = build(nodes)
        root.backward()  # type: ignore[attr-defined]
    sys.stdout.write(f"{len(trace.graph.nodes)}\n")
    _leave_without_freeing()


def _torchviz(build: Callable[[int], object], nodes: int, path: str) -> None:
    from torchviz import make_dot

    from tracer.render.picture import draw_dot

    root = build(nodes)
    began, worked = time.monotonic(), sum(os.times()[:4])
    picture = draw_dot(make_dot(root).source, path, timeout_s=ONE_DAY_S)
    Path(path).write_bytes(picture.data)
    sys.stdout.write(f"seconds {time.monotonic() - began} {sum(os.times()[:4]) - worked}\n")
    _leave_without_freeing()


def _deep(build: Callable[[int], object], nodes: int, path: str) -> None:
    sys.setrecursionlimit(10**7)
    _torchviz(build, nodes, path)


def _chain(nodes: int) -> object:
    import torch

    weight = torch.ones(4, requires_grad=True)
    value = torch.ones(4, requires_grad=True)
    for _ in range(nodes - 3):
        value = value * weight
    return value.sum()


def _wide(nodes: int) -> object:
    import torch

    total = torch.zeros(4)
    for _ in range(nodes // 4):
        leaf = torch.ones(4, requires_grad=True)
        total = total + (leaf * 2).tanh()
    return total.sum()


def _transformer(nodes: int) -> object:
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.c_attn, self.c_proj = nn.Linear(size, 3 * size), nn.Linear(size, size)

        def forward(self, x):
            parts = self.c_attn(x).split(x.shape[-1], dim=-1)
            query, key, value = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts)
            weights = (query @ key.transpose(-2, -1) / math.sqrt(key.shape[-1])).softmax(-1)
            return self.c_proj((weights @ value).transpose(1, 2).flatten(-2))

    class Block(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(size), nn.LayerNorm(size)
            self.attn = Attention(size)
            self.mlp = nn.Sequential(nn.Linear(size, 16), nn.GELU(), nn.Linear(16, size))

        def forward(self, x):
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class Decoder(nn.Module):
        def __init__(self, layers: int, size: int = 8) -> None:
            super().__init__()
            self.wte = nn.Embedding(10, size)
            self.h = nn.ModuleList(Block(size) for _ in range(layers))
            self.head = nn.Linear(size, 10)

        def forward(self, tokens):
            x = self.wte(tokens)
            for block in self.h:
                x = block(x)
            return self.head(x)

    model = Decoder(max(1, nodes // NODES_A_BLOCK))
    return model(torch.zeros(1, 3, dtype=torch.long)).logsumexp(-1).sum()


SHAPES: dict[str, Callable[[int], object]] = {
    "chain": _chain,
    "wide": _wide,
    "transformer": _transformer,
}


if __name__ == "__main__":
    sys.exit(main())
