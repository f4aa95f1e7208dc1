"""A whole script recorded with either core gives the same trace, and sees the same world."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import tracer

ROOT = Path(__file__).parents[2]
TIMES = ("t_ns", "begin_ns", "end_ns")

SCRIPT = """
import warnings

import torch

torch.manual_seed(0)
torch.set_num_threads(1)


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(inplace=True),
    torch.nn.Flatten(), torch.nn.Linear(288, 16), torch.nn.LayerNorm(16), torch.nn.GELU(),
    torch.nn.Linear(16, 4),
)
adam = torch.optim.Adam(model.parameters())
sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for step in range(3):
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    loss = torch.nn.functional.cross_entropy(Double.apply(model(x)), torch.tensor([0, 1]))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    (adam if step % 2 else sgd).step()
    adam.zero_grad()

embedding = torch.nn.Embedding(5, 3, sparse=True)
embedding(torch.tensor([1, 2])).sum().backward()
d = torch.randn(5000, requires_grad=True, dtype=torch.float64)
((d * 1e160) ** 2).sum().backward()
(d.half().float() * torch.ones(())).mean().backward()
c = torch.randn(20, dtype=torch.complex64, requires_grad=True)
(c * c.conj()).real.sum().backward()
slope = torch.autograd.grad((d**3).sum(), d, create_graph=True)[0]
slope.norm().backward()
w = torch.randn(4, requires_grad=True)
w.register_hook(lambda gradient: gradient * 2)
for reentrant in (True, False):
    y = torch.utils.checkpoint.checkpoint(lambda t: (t * t).sin(), w, use_reentrant=reentrant)
    y.register_hook(lambda gradient: None)
    y.sum().backward()
print(y.grad)
with torch.no_grad():
    w.add_(1)
    w.grad.zero_()
    w.data = w * 2

b = torch.ones(1, requires_grad=True)
for epoch in range(4):
    loss = ((b - 3) ** 2).sum()
    b.grad = torch.zeros(1)
    loss.backward()
    b.data = b.data - 0.1 * b.grad
    again = b.detach()
    with torch.no_grad():
        (b.data * 2 + again).sum()
        b.detach().mul_(0.5)
    with torch.inference_mode():
        b.data
    b.data.requires_grad_()
b.data = torch.ones(3)
b.data = b.data.double()
b.detach_().data
warnings.warn("of the script's own")
try:
    y.sum().backward()
except RuntimeError as error:
    print(error)
print(w, w.grad, loss.item())
(torch.ones(2) + torch.ones(3)).sum()
"""


def run(script: Path, core: str) -> tuple[Path, Any]:
    """Record a script in a process of its own; the trace, and what was seen from outside."""
    trace = script.with_suffix(f".{core}.trace")
    words = ["-m", "tracer", "run", "--quiet", "-o", str(trace)] if core else []
    environment = {**os.environ, "TRACER_CORE": core}
    done = subprocess.run(
        [sys.executable, *words, str(script)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return trace, (done.returncode, done.stdout, done.stderr)


def timeless(value: Any) -> Any:
    """A record without times, and comparable where it holds a NaN."""
    if is_dataclass(value):
        return type(value).__name__, [
            (field.name, timeless(getattr(value, field.name)))
            for field in fields(value)
            if field.name not in TIMES
        ]
    if isinstance(value, (tuple, list)):
        return [timeless(item) for item in value]
    return repr(value)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tracebacks differ on Python 3.10")
def test_a_script_gives_the_same_trace_with_either_core(tmp_path: Path) -> None:
    pytest.importorskip("tracer.capture._core")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    compiled, python = run(script, "compiled"), run(script, "python")
    untraced = run(script, "")
    assert compiled[1] == python[1] == untraced[1]
    assert "of the script's own" in python[1][2]
    records = [tracer.load(path).record for path, _ in (compiled, python)]
    for part in ("graphs", "leaves", "passes", "sources", "dropped"):
        first, second = (getattr(record, part) for record in records)
        if isinstance(first, dict):
            first, second = list(first.items()), list(second.items())
        assert timeless(list(first)) == timeless(list(second))
    events = [[timeless(event) for event in record.events] for record in records]
    assert len(events[0]) > 300
    assert events[0] == events[1]


def test_the_environment_chooses_the_core() -> None:
    code = "from tracer.capture.core import core; print(core.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "TRACER_CORE": "python"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "tracer.capture.core_in_python\n"
