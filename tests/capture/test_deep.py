"""Graphs of a hundred thousand nodes in a row: traced, and freed again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import torch, tracer

x = torch.ones(1, requires_grad=True)
y = x
for _ in range(100_000):
    y = y + 1
with tracer.trace() as trace:
    y.backward()
print(trace.passes[0].node_count, x.grad.item())
del y
print("freed")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process raise its limit")
def test_a_hundred_thousand_nodes_in_a_row_are_traced_and_freed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "100001 1.0\nfreed\n")
